"""Which old builds go, and when."""

import contextlib
import fcntl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from retrieval_pipeline.index.build import INFO
from retrieval_pipeline.storage.atomic import discard
from retrieval_pipeline.storage.store import Store

# How long a replaced build stays, so that whoever is about to open it still can.
GRACE = timedelta(hours=1)


def retire_builds(store: Store, grace: timedelta = GRACE) -> list[Path]:
    """Remove the old builds that no process has open, and return them.

    Raises:
        StoreError: One cannot be removed.
    """
    return [build for build in old_builds(store, grace) if remove_build(build)]


def old_builds(store: Store, grace: timedelta = GRACE) -> list[Path]:
    """Return the builds that were replaced longer than `grace` ago.

    Never the current one, nor the newest other one of each space, to which people can go back, nor
    one in whose directory others have put files.

    Raises:
        StoreError: CURRENT is damaged.
    """
    current = store.current_build()
    spaces: dict[Path, list[Path]] = {}
    for build in store.all_builds():
        spaces.setdefault(build.parent, []).append(build)
    old = []
    for builds in spaces.values():
        others = [build for build in builds if build != current]
        for build in others[:-1]:
            successor = builds[builds.index(build) + 1]
            replaced = datetime.fromtimestamp(successor.stat().st_mtime, UTC)
            if datetime.now(UTC) - replaced >= grace and store.is_removable(build):
                old.append(build)
    return old


def remove_build(build: Path) -> bool:
    """Remove a build unless a process has it open; tell whether it went.

    Raises:
        StoreError: The file system refused.
    """
    with _let_go(build) as free:
        if free:
            discard(build)
    return free


def is_open(build: Path) -> bool:
    """Tell whether a process has the build open."""
    with _let_go(build) as free:
        return not free


@contextlib.contextmanager
def _let_go(build: Path) -> Iterator[bool]:
    """Tell whether nobody has the build open, and let nobody open it meanwhile."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context((build / INFO).open("rb"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        except OSError:
            # It is not whole, or the file system knows no locks (see `_hold`).
            yield True
        else:
            yield True
