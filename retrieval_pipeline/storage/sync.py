"""A home on a remote file system, and the local copy of it that all other code works with.

The remote home is authoritative. A run that writes takes the lease, brings the copy up to date,
works on the copy, and uploads its results: first tables as they are finished, then the pointer to
the new build; last it deletes remote files that the run removed. A process that only reads fetches
the current build.
"""

import contextlib
import functools
import json
import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.paths import printable
from retrieval_pipeline.storage.atomic import TEMPORARY_PREFIX, replacing, temporary_path
from retrieval_pipeline.storage.home import MARKER, mark_home, marker_text
from retrieval_pipeline.storage.lease import Lease
from retrieval_pipeline.storage.locks import exclusive, is_held
from retrieval_pipeline.storage.remote import Remote, RemoteError

# Folders that the copy shares with the remote home; all others stay on their machine.
TABLES = ("manifest", "embeddings", "facts", "sidecars", "engine")
ANSWERS = ("index", "map", "labels")
# What people decided, which exists nowhere else.
USER_DATA = ("judgements", "albums", "searches")
CURRENT = "index/CURRENT"
# The marker of version 0.1.0.
FORMER_MARKER = "retrieval-home"

# Seconds between two uploads of finished files, which also renew the lease.
PUSH_SECONDS = 60.0
# Seconds between two looks for a new build.
FRESH_SECONDS = 10.0
# Requests in flight.
THREADS = 16

# Files that stay on their machine: locks, and the record of which files were hashed there.
CHECKED = "checked.json"
LOCAL = ("lock", CHECKED)

# What the store names its files and folders, at most so deep. Other keys are not of this program:
# fetched, a key with ".." would be written outside the copy.
NAME = re.compile(r"(?!\.*$)[A-Za-z0-9_@.+-]{1,255}")
DEEPEST = 5

# The version of a file: size in bytes and time of change in ns.
Stamp = tuple[int, int]


def copy_of(remote: Remote) -> Path:
    """Return the directory of the local copy, in $RETRIEVAL_CACHE or the user's cache directory."""
    given = os.environ.get("RETRIEVAL_CACHE")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retrieval"
    name = re.sub(r"[^\w.-]", "-", str(remote).partition("://")[2])[-40:]
    # One bucket's name may exist at several services: these are different homes.
    digest = sha256(remote.identity.encode(errors="surrogateescape")).hexdigest()[:8]
    return (Path(given) if given else cache) / f"{name}-{digest}"


@dataclass(frozen=True)
class Mirror:
    """A remote home and its local copy.

    Attributes:
        remote: The remote home.
        home: Directory of the copy.
    """

    remote: Remote
    home: Path

    @contextlib.contextmanager
    def writing(self, folders: Sequence[str], *, wait: bool) -> Iterator[None]:
        """Hold the only right to write `folders`: fetch them first, upload the changes at the end.

        Raises:
            StoreError: Another run holds the right and `wait` is False, or took it away; or the
                file system cannot be reached.
        """
        claims = self.remote / f"claims/{folders[0]}"
        with _explained(), Lease.held(claims, self._machine(), wait=wait) as claim:
            with self._alone():
                if not self._is_there():
                    self._check_empty()
                    (self.remote / MARKER).write(marker_text().encode())
                mark_home(self.home)
                for folder in folders:
                    self._pull(folder)
            ended = threading.Event()
            helper = threading.Thread(target=self._keep_up, args=(folders, claim, ended))
            helper.start()
            try:
                yield
            finally:
                ended.set()
                helper.join()
                # A run that failed or was stopped uploads its finished files too.
                self._push(folders, claim, last=True)

    def refresh(self, locks: Mapping[Sequence[str], Path]) -> None:
        """Bring folders of the copy up to date for a process that only reads.

        Args:
            locks: Folders -> the local lock whose holder writes them. If a process of this machine
                holds it, the copy is up to date or ahead, and nothing is fetched.

        Raises:
            StoreError: The file system cannot be reached.
        """
        stamp = self._records / "refreshed"
        with _explained(), self._alone():
            with contextlib.suppress(OSError):
                # Negative if the clock was set back since: then nobody knows how old the copy is.
                if 0 <= time.time() - stamp.stat().st_mtime < FRESH_SECONDS:
                    return
            if not self._is_there():
                return
            mark_home(self.home)
            for folders, lock in locks.items():
                # A run that takes the lock meanwhile waits for `_alone`.
                for folder in () if is_held(lock) else folders:
                    self._pull(folder)
            stamp.touch()

    def _is_there(self) -> bool:
        """Tell whether the remote home exists.

        Raises:
            StoreError: It existed, as the copy shows, and is empty now.
        """
        if any((self.remote / name).info().is_file for name in (MARKER, FORMER_MARKER)):
            return True
        if any(self._records.glob("*.json")):
            raise StoreError(
                f"{self.remote} is empty now, and was not: nothing was changed. If this is right, "
                f"remove {self.home}"
            )
        return False

    def _check_empty(self) -> None:
        """Check that nothing but the lease is where a home is to be made.

        Raises:
            StoreError: Something is.
        """
        files = self.remote.files(missing_ok=True)
        if any(not info.path.startswith(("claims/", "fences/")) for info in files):
            raise StoreError(
                f"{self.remote} is not a home of this program and not empty: nothing was changed "
                "there. Let `home` in the settings name a prefix of its own"
            )

    def _pull(self, folder: str) -> None:
        """Make a folder of the copy the same as the remote folder."""
        there = {
            f"{folder}/{info.path}": (info.size or 0, info.mtime_ns or 0)
            for info in (self.remote / folder).files(missing_ok=True)
            if self._is_ours(f"{folder}/{info.path}")
        }
        record, here = self._read_record(folder), self._files(folder)
        # Object stores count times in whole seconds. Small files that can change twice in one
        # second are always fetched.
        doubtful = there.keys() if folder in USER_DATA else {CURRENT}
        missing = [
            path
            for path in there
            if path in doubtful or record.get(path) != (there[path], here.get(path))
        ]
        # The pointer is fetched last, so that the build that it names is complete.
        missing.sort(key=lambda path: path == CURRENT)
        plain = [path for path in missing if path != CURRENT]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(self._fetch, plain))
        for path in missing[len(plain) :]:
            self._fetch(path)
        # The time of a manifest says when its source was crawled; maps are sorted by the time of
        # their directory.
        missing.sort(key=lambda path: there[path][1])
        fetched = {path: self._date(path, there[path][1]) for path in missing}
        for path in here.keys() - there.keys():
            (self.home / path).unlink(missing_ok=True)
            self._remove_empty((self.home / path).parent)
        here |= fetched
        self._write_record(folder, {path: (there[path], here[path]) for path in there})

    def _is_ours(self, path: str) -> bool:
        """Tell whether a remote path is one that the store makes; say so of others."""
        if _is_temporary(path):
            return False
        names = path.split("/")
        if len(names) <= DEEPEST and all(map(NAME.fullmatch, names)) and names[-1] not in LOCAL:
            return True
        _warn(f"{self.remote}/{printable(path)}: not a name that this program makes: left alone")
        return False

    def _remove_empty(self, directory: Path) -> None:
        while directory != self.home and {each.name for each in directory.iterdir()} <= {CHECKED}:
            (directory / CHECKED).unlink(missing_ok=True)
            directory.rmdir()
            directory = directory.parent

    def _date(self, path: str, mtime_ns: int) -> Stamp:
        """Give a file and its directory the time of change of the remote file."""
        target = self.home / path
        os.utime(target, ns=(mtime_ns, mtime_ns))
        os.utime(target.parent, ns=(mtime_ns, mtime_ns))
        return _stamp(target)

    def _fetch(self, path: str) -> None:
        with replacing(self.home / path) as temporary:
            try:
                (self.remote / path).download(temporary)
            except RemoteError as error:
                raise _unusable(error) from None

    def _keep_up(self, folders: Sequence[str], claim: Lease, ended: threading.Event) -> None:
        while not ended.wait(PUSH_SECONDS):
            # If the file system stays out of reach, the last upload raises the error.
            with contextlib.suppress(RemoteError, StoreError):
                claim.renew()
                self._push(folders, claim, last=False)

    def _push(self, folders: Sequence[str], claim: Lease, *, last: bool) -> None:
        """Upload new and changed files; with `last`, also the pointer, and delete removed files."""
        for folder in folders:
            record, here = self._read_record(folder), self._files(folder)
            new = [path for path in here if record.get(path, (None, None))[1] != here[path]]
            gone = record.keys() - here.keys() if last else set()
            if not new and not gone:
                continue
            plain = [path for path in new if path != CURRENT]
            send = functools.partial(self._send, claim)
            with ThreadPoolExecutor(THREADS) as pool:
                sent = dict(zip(plain, pool.map(send, plain), strict=True))
            if last and CURRENT in new:
                sent[CURRENT] = send(CURRENT)
            for path in gone:
                claim.check()
                (self.remote / path).delete()
            kept = {path: stamps for path, stamps in record.items() if path not in gone}
            kept |= {path: (stamp, here[path]) for path, stamp in sent.items() if stamp}
            self._write_record(folder, kept)

    def _send(self, claim: Lease, path: str) -> Stamp | None:
        # Before each file: the process may have been suspended since the one before.
        claim.check()
        try:
            (self.remote / path).upload(self.home / path)
        except RemoteError:
            if not (self.home / path).exists():
                return None  # The run removed it meanwhile, as it does with old parts.
            raise
        info = (self.remote / path).info()
        return info.size or 0, info.mtime_ns or 0

    def _files(self, folder: str) -> dict[str, Stamp]:
        found: dict[str, Stamp] = {}
        for directory, folders, names in os.walk(self.home / folder):
            folders[:] = [name for name in folders if not _is_temporary(name)]
            for name in names:
                path = Path(directory, name)
                if name not in LOCAL and not _is_temporary(name):
                    with contextlib.suppress(FileNotFoundError):
                        found[path.relative_to(self.home).as_posix()] = _stamp(path)
        return found

    @property
    def _records(self) -> Path:
        return self.home / "mirror"

    def _read_record(self, folder: str) -> dict[str, tuple[Stamp, Stamp]]:
        """Return path -> (remote, local) versions of a file when both last had the same content."""
        try:
            contents = json.loads((self._records / f"{folder}.json").read_bytes())
            return {path: (tuple(there), tuple(here)) for path, (there, here) in contents.items()}
        except (FileNotFoundError, ValueError):
            return {}

    def _write_record(self, folder: str, record: dict[str, tuple[Stamp, Stamp]]) -> None:
        self._records.mkdir(parents=True, exist_ok=True)
        file = self._records / f"{folder}.json"
        temporary = temporary_path(file)
        temporary.write_text(json.dumps(record), encoding="utf-8")
        temporary.replace(file)

    def _machine(self) -> str:
        """Return a name for this copy; a clone of the machine differs by its host name."""
        with self._alone():
            file = self._records / "machine"
            if not file.exists():
                file.write_text(uuid.uuid4().hex, encoding="ascii")
            return f"{os.uname().nodename} {file.read_text(encoding='ascii')}"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Let only one process of this machine fetch at a time."""
        self._records.mkdir(parents=True, exist_ok=True)
        with exclusive(self._records / "lock", wait=True):
            yield


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except RemoteError as error:
        raise _unusable(error) from None


def _unusable(error: RemoteError) -> StoreError:
    return StoreError(f"the home cannot be used: {error}")


@functools.cache
def _warn(line: str) -> None:
    """Log a line once in a process."""
    logging.getLogger(__name__).warning("%s", line)


def _is_temporary(path: str) -> bool:
    return any(part.startswith(TEMPORARY_PREFIX) for part in path.split("/"))


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
