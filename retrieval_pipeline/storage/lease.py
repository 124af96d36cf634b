"""The lease: the right to write a remote home, which one machine holds at a time."""

import contextlib
import fcntl
import os
import random
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.storage.remote import Remote, RemoteError

# A claim that was not renewed for so many seconds belongs to a dead run.
STALE_SECONDS = 600.0
# A run that has looked at its claim so many seconds ago looks again before it writes.
CHECK_SECONDS = 5.0
# The names of those who were last given the right to write, by the first folder that it is for.
FENCES = "fences"
# Unlike the monotonic clock, this one goes on while the machine is suspended.
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Lease:
    """The right to write, among machines that share nothing but a remote file system.

    A run that wants to write first writes a claim (a small file) and then lists all claims. If two
    runs do this at once, at least one sees the claim of the other and gives way. This needs a file
    system whose listing shows every earlier write, as object stores guarantee. The age of a claim
    is measured by the clock of the file system. On each machine only the holder of the local lock
    makes claims, so that another claim of the same machine is of a run that died.

    A run that was suspended for longer than STALE_SECONDS may wake up beside its successor. Who
    gets the right therefore writes its claim's name into a file, the fence. A run checks before
    each write that its claim is there and that the fence names it; a late one writes no more. What
    remains is the moment between a check and a write, because the stores have no conditional write
    in common.
    """

    def __init__(self, folder: Remote, machine: str) -> None:
        self._folder, self._machine = folder, machine
        self._home = folder.root
        self._name = uuid.uuid4().hex
        self._fence = self._home / FENCES / folder.name
        self._checked = 0.0
        self._owner = f"{os.uname().nodename}, process {os.getpid()}"

    @classmethod
    @contextlib.contextmanager
    def held(cls, folder: Remote, machine: str, *, wait: bool) -> Iterator["Lease"]:
        """Hold the right to write inside the `with` block.

        Raises:
            StoreError: Another run holds it, and `wait` is False.
        """
        while True:
            claim = cls(folder, machine)
            claim._write()
            try:
                other = claim._other()
                if other is None:
                    claim._fence.write(claim._name.encode())
            except BaseException:
                claim._file.delete()
                raise
            if other is None:
                break
            claim._file.delete()
            if not wait:
                raise StoreError(
                    f"{claim._home} is being written by another run ({other}): wait for it or "
                    "stop it, then run again"
                )
            time.sleep(random.uniform(0.5, 2))
        try:
            yield claim
        finally:
            claim._file.delete()

    @property
    def _file(self) -> Remote:
        return self._folder / self._name

    def _write(self) -> None:
        self._file.write(f"{self._owner}\n{self._machine}".encode())

    def renew(self) -> None:
        """Write the claim again: its new time of change shows others that the owner is alive.

        Raises:
            StoreError: Another run took this one for dead.
            RemoteError: The file system cannot be reached.
        """
        self._checked = 0.0
        self.check()
        self._write()

    def check(self) -> None:
        """Check that this run still has the right to write, unless it did so CHECK_SECONDS ago.

        Raises:
            StoreError: Another run took this one for dead.
            RemoteError: The file system cannot be reached.
        """
        began = time.clock_gettime(CLOCK)
        if self._checked and began - self._checked < CHECK_SECONDS:
            return
        self._checked = 0.0
        here = self._file.info().is_file and self._fence.info().is_file
        if not here or self._fence.read() != self._name.encode():
            raise StoreError(
                f"{self._home}: this run was taken for dead, having been out of reach for "
                f"{STALE_SECONDS:.0f} s: run again to go on from what was uploaded"
            )
        self._checked = began

    def _other(self) -> str | None:
        """Return who else holds a claim, or None; remove the claims of dead runs."""
        claims = {info.path: info.mtime_ns or 0 for info in self._folder.files()}
        now = claims.pop(self._name, 0)
        for name, renewed in claims.items():
            claim = self._folder / name
            try:
                owner, _, machine = str(claim.read(), errors="replace").partition("\n")
            except RemoteError:
                return "which has just ended"
            if machine != self._machine and now - renewed < STALE_SECONDS * 1e9:
                return owner
            claim.delete()
        return None


def is_held(lock: Path) -> bool:
    """Return whether a process of this machine holds a lock."""
    try:
        with lock.open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
