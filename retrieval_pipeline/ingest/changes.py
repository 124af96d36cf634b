"""Which paths of the sources have changed, as the operating system reports it.

watchfiles asks the system (inotify, FSEvents) or, where that cannot tell, such as on a network
share, looks at all files every so often. A path is handed on once it holds still: until then, a
file may not be whole.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from retrieval_pipeline.config.extensions import SIDECARS, VIDEOS
from retrieval_pipeline.config.settings import Source
from retrieval_pipeline.ingest.walk import Beside, Tree, readable_extensions
from retrieval_pipeline.storage.remote import Remote

# Size and time of a file must stay the same for so many seconds. A copy over a slow line pauses for
# longer now and then: what was read too early is read again after the next change.
SETTLE_SECONDS = 0.8
# Seconds between two looks at the directory of a source: is it still the same one, or back again?
LOOK_SECONDS = 2.0
# Before another attempt where a folder has vanished at the wrong moment.
PAUSE_SECONDS = 0.2
# Events that come within so many ms are handed over together.
TOGETHER_MS = 400

# Where the system does not report changes, and nobody says how often to look, seconds.
POLL_SECONDS = 30.0

# What stands for a path of the operating system that is no UTF-8: watchfiles cannot name it.
_UNNAMEABLE = "\ufffd"

Tell = Callable[[str], None]
# Device and inode of a directory; None if it is not there.
Identity = tuple[int, int] | None


@dataclass
class _Waiting:
    """A path that has changed: its state when it was last looked at, and since when it has that."""

    state: tuple[int, int, int] | None
    since: float


@dataclass(frozen=True)
class Settled:
    """Paths that hold still.

    Attributes:
        paths: Name of a source -> files and folders, relative to it; "" is all of it.
        since: When the first of them took its present state, by `time.monotonic()`; None for a
            source that is to be looked through as a whole.
    """

    paths: dict[str, set[str]]
    since: float | None


class Changes:
    """Collects the changed paths of all sources, from several threads."""

    def __init__(self, sources: dict[str, Source]) -> None:
        self._roots = {name: str(source.path) for name, source in sources.items()}
        self._waiting: dict[tuple[str, str], _Waiting] = {}
        self._whole: set[str] = set()
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """Return whether anything waits, settled or not."""
        with self._lock:
            return bool(self._waiting or self._whole)

    def add(self, source: str, path: str) -> None:
        """Note that a path of a source has changed; "" stands for the whole source."""
        with self._lock:
            if path:
                self._waiting.setdefault((source, path), _Waiting((-1, -1, -1), time.monotonic()))
            else:
                self._whole.add(source)

    def settled(self) -> Settled:
        """Return, and forget, the paths that hold still by now."""
        now = time.monotonic()
        paths: dict[str, set[str]] = {}
        since: float | None = None
        with self._lock:
            for source in self._whole:
                paths.setdefault(source, set()).add("")
            self._whole.clear()
            for (source, path), waiting in list(self._waiting.items()):
                state = _state(os.path.join(self._roots[source], path))
                if state != waiting.state:
                    waiting.state, waiting.since = state, now
                elif now - waiting.since >= SETTLE_SECONDS:
                    del self._waiting[source, path]
                    paths.setdefault(source, set()).add(path)
                    since = min(since or waiting.since, waiting.since)
        return Settled(paths, since)


def _state(path: str) -> tuple[int, int, int] | None:
    """Return what changes when a file does: inode, size and time; None if there is no file."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def follow(
    source: Source,
    home: Path,
    changes: Changes,
    tell: Tell,
    stop: threading.Event,
    *,
    ready: threading.Event,
    poll_seconds: float | None = None,
) -> None:
    """Report what changes in a local source until `stop` is set.

    It begins with the whole source, since nobody knows what changed before. So it does again when
    the directory was away, or is another one than before: a disk was unmounted, or mounted.

    Args:
        source: A source on this machine.
        home: The home of the tables, whose files are left out.
        changes: Gets the paths.
        tell: Called with a line when the source vanishes, returns, or cannot be followed.
        stop: Ends this, within LOOK_SECONDS.
        ready: Is set once changes are noticed, or the source is known to be away.
        poll_seconds: Look at all files every so many seconds, instead of asking the system.
    """
    assert not isinstance(source.path, Remote)
    is_away = tolerant = False
    while not stop.is_set():
        if _identity(source.path) is None:
            if not is_away:
                tell(
                    f'source "{source.name}": {source.path} is away: its pictures stay in the '
                    "index, and changes are looked for when it is back"
                )
            is_away = True
            ready.set()
            stop.wait(LOOK_SECONDS)
            continue
        if is_away:
            tell(f'source "{source.name}": {source.path} is back')
        is_away = False
        try:
            _report(source, source.path, home, changes, stop, ready, poll_seconds, tolerant)
        except FileNotFoundError:
            stop.wait(PAUSE_SECONDS)
        except PermissionError:
            # A folder in it is closed. Other errors would be passed over with it.
            tolerant = True
        except (OSError, RuntimeError) as error:  # the latter is what watchfiles' own error is
            if poll_seconds is not None:
                # What is wrong with the directory is told by those who look through it.
                stop.wait(LOOK_SECONDS)
                continue
            poll_seconds = POLL_SECONDS
            reason = str(error).partition(" about ")[0].rstrip(".")
            tell(
                f'source "{source.name}": the system does not report changes ({reason}): looking '
                f"every {poll_seconds:g} s instead. On Linux, the settings "
                "fs.inotify.max_user_watches (one a folder) and max_user_instances of `sysctl` "
                "permit more"
            )


def _report(
    source: Source,
    root: Path,
    home: Path,
    changes: Changes,
    stop: threading.Event,
    ready: threading.Event,
    poll_seconds: float | None,
    tolerant: bool,
) -> None:
    """Report changes until `stop` is set, or the directory is another one.

    Raises:
        FileNotFoundError: The directory is not there.
        PermissionError: A folder in it may not be listed, and `tolerant` is false.
        OSError: The system cannot watch it.
        RuntimeError: The same.
    """
    import watchfiles

    # It logs every change.
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    identity = _identity(root)
    interest = _Interest(source, root, home)
    is_new = True
    for found in watchfiles.watch(
        root,
        watch_filter=None,
        debounce=TOGETHER_MS,
        rust_timeout=200 if not ready.is_set() else int(LOOK_SECONDS * 1000),
        yield_on_timeout=True,
        stop_event=stop,
        raise_interrupt=False,
        force_polling=poll_seconds is not None,
        poll_delay_ms=int((poll_seconds or POLL_SECONDS) * 1000),
        ignore_permission_denied=tolerant,
    ):
        if is_new:
            changes.add(source.name, "")
            ready.set()
            is_new = False
        if _identity(root) != identity:
            return
        for change, path in found:
            relative = os.path.relpath(path, root)
            while _UNNAMEABLE in relative:
                relative = os.path.dirname(relative)
            if relative in ("", "."):
                changes.add(source.name, "")
            elif interest.has(relative, gone=change == watchfiles.Change.deleted):
                changes.add(source.name, relative)


class _Interest:
    """Tells which paths of a source may matter, without looking at more than their names."""

    def __init__(self, source: Source, root: Path, home: Path) -> None:
        self._tree, self._root = Tree(source, root, home, Beside()), os.fspath(root)
        self._sniff = source.sniff
        self._extensions = readable_extensions(source) | {*SIDECARS, *VIDEOS}

    def has(self, path: str, *, gone: bool) -> bool:
        """Return whether a path may be a picture, a companion of one, or a folder.

        A path that is gone may have been a folder, whatever its name.
        """
        extension = os.path.splitext(path)[1].lower()
        if not (
            self._sniff
            or gone
            or extension in self._extensions
            or os.path.isdir(os.path.join(self._root, path))
        ):
            return False
        return self._tree.enters(path)


def _identity(path: Path) -> Identity:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
