"""Locks among the processes that use one home.

The kernel's locks (flock) are used where the file system has them: they end with their process.
Elsewhere (some NFS, SMB and FUSE mounts) a file beside the lock names its owner, who touches it
every few seconds. It is taken over when its process is gone, or, on another machine, when it was
not touched for a while.
"""

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pydantic import BaseModel, ValidationError

from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.storage.atomic import explained, temporary_path

HEARTBEAT_SECONDS = 10.0
# An owner on another machine that did not touch its file for this long has died.
STALE_SECONDS = 120.0
# Between two attempts of somebody who waits.
RETRY_SECONDS = 0.5

_NO_LOCKS = frozenset(
    {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY}
)


class BusyError(Exception):
    """Somebody else holds the lock; the argument says who."""


class Owner(BaseModel):
    """Who holds a lock where the file system has no locks.

    Attributes:
        machine: Its host name, and the container in which `pid` counts.
        pid: Process id there.
        started: When the process started, in the kernel's ticks after boot: ids are used again.
    """

    machine: str
    pid: int
    started: str

    @classmethod
    def me(cls) -> "Owner":
        """Return this process."""
        return cls(machine=_machine(), pid=os.getpid(), started=_started(os.getpid()))

    def is_alive(self, unheard: float) -> bool:
        """Return whether the owner lives; `unheard` are seconds since it touched its file."""
        if self.machine == _machine():
            return _started(self.pid) == self.started
        return unheard < STALE_SECONDS


@contextlib.contextmanager
def exclusive(file: Path, *, wait: bool) -> Iterator[IO[str]]:
    """Hold a lock until the block ends; yield the open file, which keeps its content.

    Raises:
        BusyError: Somebody else holds it, and `wait` is false.
        StoreError: The file system refused.
    """
    with explained(file, "locked"):
        handle = file.open("a+", encoding="utf-8")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            handle.seek(0)
            raise BusyError(f"process {handle.readline().strip() or 'unknown'}") from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise StoreError(f"{file}: cannot be locked: {error.strerror}") from error
            with _owned(file, wait=wait):
                yield handle
        else:
            yield handle


def is_held(lock: Path) -> bool:
    """Return whether a process holds a lock."""
    try:
        with lock.open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise StoreError(f"{lock}: cannot be locked: {error.strerror}") from error
        return _holder(lock) is not None
    return False


@contextlib.contextmanager
def _owned(lock: Path, *, wait: bool) -> Iterator[None]:
    """Hold a lock by a file that names this process as its owner."""
    file = _owner_file(lock)
    with explained(file, "locked"):
        while not _create(file):
            if (holder := _holder(lock)) is None:
                _take_away(lock)
            elif wait:
                time.sleep(RETRY_SECONDS)
            else:
                raise BusyError(holder)
    ended = threading.Event()
    heart = threading.Thread(target=_beat, args=(file, ended), daemon=True)
    heart.start()
    try:
        yield
    finally:
        ended.set()
        heart.join()
        with contextlib.suppress(OSError):
            file.unlink()


def _owner_file(lock: Path) -> Path:
    return lock.with_name(f"{lock.name}.owner")


def _create(file: Path) -> bool:
    try:
        with file.open("x", encoding="utf-8") as handle:
            handle.write(Owner.me().model_dump_json())
    except FileExistsError:
        return False
    return True


def _holder(lock: Path, file: Path | None = None) -> str | None:
    """Return who holds a lock; None if there is no owner, or it has died."""
    file = file or _owner_file(lock)
    try:
        data = file.read_bytes()
        # Both times are of the file system's clock, which may differ from this machine's.
        os.utime(lock)
        unheard = lock.stat().st_mtime - file.stat().st_mtime
    except FileNotFoundError:
        return None
    try:
        owner = Owner.model_validate_json(data)
    except ValidationError:  # it is being written, or its writer was killed
        return "a process that has just started" if unheard < STALE_SECONDS else None
    return f"process {owner.pid} on {owner.machine}" if owner.is_alive(unheard) else None


def _take_away(lock: Path) -> None:
    """Remove the file of an owner that died, unless another process has replaced it meanwhile."""
    file = _owner_file(lock)
    taken = temporary_path(file)
    try:
        file.replace(taken)
    except FileNotFoundError:
        return
    if _holder(lock, taken) is not None and not file.exists():
        taken.replace(file)
    else:
        taken.unlink(missing_ok=True)


def _beat(file: Path, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT_SECONDS):
        # If the file system is out of reach now, the next beat may succeed.
        with contextlib.suppress(OSError):
            os.utime(file)


def _machine() -> str:
    """Return the name of this machine, and of the container whose process ids are meant."""
    name = os.uname().nodename
    with contextlib.suppress(OSError):
        name += f" {Path('/proc/self/ns/pid').readlink()}"
    return name


def _started(pid: int) -> str:
    """Return when a process of this machine started, in ticks after boot; "" if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]
