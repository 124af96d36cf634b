"""A home on a remote file system, and the copy of it on this machine that everything works with.

The remote one is the truth. A run that writes claims it, makes the copy the same, works on the
copy, and uploads what it made: tables as they are finished, then the pointer to the new build, and
last it removes what has gone. Whoever only asks fetches the current build.
"""

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.storage.atomic import TEMPORARY_PREFIX, temporary_path
from retrieval_pipeline.storage.home import MARKER, marker_text
from retrieval_pipeline.storage.lease import Lease
from retrieval_pipeline.storage.locks import exclusive, is_held
from retrieval_pipeline.storage.remote import Remote, RemoteError

# What the copy shares with the remote home; all else stays on its machine.
TABLES = ("manifest", "embeddings")
ANSWERS = ("index", "map")
VOTES = ("judgements",)
CURRENT = "index/CURRENT"
# The marker of version 0.1.0.
FORMER_MARKER = "retrieval-home"

# A run uploads what is finished, and says that it lives, so often. Seconds.
PUSH_SECONDS = 60.0
# Queries look for a new build at most so often.
FRESH_SECONDS = 10.0
# Requests that wait for one another at a time.
THREADS = 16

# What only matters to its machine: locks, and which files were hashed there.
CHECKED = "checked.json"
LOCAL = ("lock", CHECKED)

# Size in bytes and time of change in ns.
Stamp = tuple[int, int]


def copy_of(remote: Remote) -> Path:
    """Return the directory of the copy: below $RETRIEVAL_CACHE or the user's cache directory."""
    given = os.environ.get("RETRIEVAL_CACHE")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retrieval"
    name = str(remote).partition("://")[2].replace("/", "-")[-40:]
    digest = sha256(str(remote).encode()).hexdigest()[:8]
    return (Path(given) if given else cache) / f"{name}-{digest}"


@dataclass(frozen=True)
class Mirror:
    """A remote home and its copy.

    Attributes:
        remote: The truth.
        home: The copy.
    """

    remote: Remote
    home: Path

    @contextlib.contextmanager
    def writing(self, folders: Sequence[str], *, wait: bool) -> Iterator[None]:
        """Hold the only right to write `folders`: the same as there at first, there at last.

        Raises:
            StoreError: Another run holds it, and not `wait`; or the file system cannot be reached.
        """
        claims = self.remote / f"claims/{folders[0]}"
        with _explained(), Lease.held(claims, self._machine(), wait=wait) as claim:
            with self._alone():
                if not self._is_there():
                    self._check_empty()
                    (self.remote / MARKER).write(marker_text().encode())
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
                # Also what a run had finished that was stopped.
                self._push(folders, claim, last=True)

    def refresh(self, locks: Mapping[Sequence[str], Path]) -> None:
        """Fetch folders for a process that only reads.

        Args:
            locks: The folders, and the lock whose holder writes them: with one on this machine the
                copy is fresh, or ahead.

        Raises:
            StoreError: The file system cannot be reached.
        """
        stamp = self._records / "refreshed"
        with _explained(), self._alone():
            with contextlib.suppress(OSError):
                if time.time() - stamp.stat().st_mtime < FRESH_SECONDS:
                    return
            if not self._is_there():
                return
            for folders, lock in locks.items():
                # Whoever takes it now waits for this to end.
                for folder in () if is_held(lock) else folders:
                    self._pull(folder)
            stamp.touch()

    def _is_there(self) -> bool:
        """Tell whether this is a home by now.

        Raises:
            StoreError: It is none any more.
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
        """Check that nothing but claims is where a home is to be made.

        Raises:
            StoreError: Something is.
        """
        if any(not info.path.startswith("claims/") for info in self.remote.files(missing_ok=True)):
            raise StoreError(
                f"{self.remote} is not a home of this program and not empty: nothing was changed "
                "there. Let `home` in the settings name a prefix of its own"
            )

    def _pull(self, folder: str) -> None:
        """Make a folder of the copy the same as the remote one."""
        there = {
            f"{folder}/{info.path}": (info.size or 0, info.mtime_ns or 0)
            for info in (self.remote / folder).files(missing_ok=True)
            if not _is_temporary(info.path)
        }
        record, here = self._read_record(folder), self._files(folder)
        # The times of object stores are whole seconds. What can change twice in one, and is small,
        # is fetched always.
        doubtful = there.keys() if folder in VOTES else {CURRENT}
        missing = [
            path
            for path in there
            if path in doubtful or record.get(path) != (there[path], here.get(path))
        ]
        # The pointer last: a build that it names is complete.
        missing.sort(key=lambda path: path == CURRENT)
        plain = [path for path in missing if path != CURRENT]
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(self._fetch, plain))
        for path in missing[len(plain) :]:
            self._fetch(path)
        # Manifests tell the last look by their time, and maps their order by that of the directory.
        missing.sort(key=lambda path: there[path][1])
        fetched = {path: self._date(path, there[path][1]) for path in missing}
        for path in here.keys() - there.keys():
            (self.home / path).unlink(missing_ok=True)
            self._remove_empty((self.home / path).parent)
        here |= fetched
        self._write_record(folder, {path: (there[path], here[path]) for path in there})

    def _remove_empty(self, directory: Path) -> None:
        while directory != self.home and {each.name for each in directory.iterdir()} <= {CHECKED}:
            (directory / CHECKED).unlink(missing_ok=True)
            directory.rmdir()
            directory = directory.parent

    def _date(self, path: str, mtime_ns: int) -> Stamp:
        """Give a file and its directory the time of change that they have there."""
        target = self.home / path
        os.utime(target, ns=(mtime_ns, mtime_ns))
        os.utime(target.parent, ns=(mtime_ns, mtime_ns))
        return _stamp(target)

    def _fetch(self, path: str) -> None:
        target = self.home / path
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_path(target)
        try:
            (self.remote / path).download(temporary)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def _keep_up(self, folders: Sequence[str], claim: "Lease", ended: threading.Event) -> None:
        while not ended.wait(PUSH_SECONDS):
            # The last push will tell if the file system stays away.
            with contextlib.suppress(RemoteError, StoreError):
                claim.renew()
                self._push(folders, claim, last=False)

    def _push(self, folders: Sequence[str], claim: "Lease", *, last: bool) -> None:
        """Upload what is new; remove what has gone, and name the new build, only at the `last`."""
        for folder in folders:
            record, here = self._read_record(folder), self._files(folder)
            new = [path for path in here if record.get(path, (None, None))[1] != here[path]]
            gone = record.keys() - here.keys() if last else set()
            if not new and not gone:
                continue
            claim.check()
            plain = [path for path in new if path != CURRENT]
            with ThreadPoolExecutor(THREADS) as pool:
                sent = dict(zip(plain, pool.map(self._send, plain), strict=True))
            if last and CURRENT in new:
                sent[CURRENT] = self._send(CURRENT)
            for path in gone:
                (self.remote / path).delete()
            kept = {path: stamps for path, stamps in record.items() if path not in gone}
            kept |= {path: (stamp, here[path]) for path, stamp in sent.items() if stamp}
            self._write_record(folder, kept)

    def _send(self, path: str) -> Stamp | None:
        try:
            (self.remote / path).upload(self.home / path)
        except RemoteError:
            if not (self.home / path).exists():
                return None  # Removed meanwhile, as old parts are.
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
        """Return, for each file, its stamps there and here when both were the same."""
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
        """Return what names this copy, and no other one anywhere, also if it was cloned."""
        with self._alone():
            file = self._records / "machine"
            if not file.exists():
                file.write_text(uuid.uuid4().hex, encoding="ascii")
            return f"{os.uname().nodename} {file.read_text(encoding='ascii')}"

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Let one process of this machine fetch at a time."""
        self._records.mkdir(parents=True, exist_ok=True)
        with exclusive(self._records / "lock", wait=True):
            yield


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except RemoteError as error:
        raise StoreError(f"the home cannot be used: {error}") from error


def _is_temporary(path: str) -> bool:
    return any(part.startswith(TEMPORARY_PREFIX) for part in path.split("/"))


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
