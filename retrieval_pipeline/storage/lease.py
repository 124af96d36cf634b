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

<<<<<<< HEAD
# A claim that was not renewed for this long belongs to a run that died.
=======
# A claim that was not renewed for so many seconds belongs to a dead run.
>>>>>>> 91f6a16
STALE_SECONDS = 600.0


class Lease:
    """The right to write, among machines that share nothing but a remote file system.

<<<<<<< HEAD
    A machine that wants to write uploads a claim (a small file) and then lists all claims. Of two
    machines that do so at the same time at least one sees the claim of the other, and gives way.
    That needs listings that show every file uploaded before, which today's object stores
    guarantee. The age of a claim is told by the clock of the file system, since the clocks of the
    machines may differ. On one machine only the holder of the local lock claims, so that an older
    claim of the same machine was left by a run that died.
=======
    A run that wants to write first writes a claim (a small file) and then lists all claims. If two
    runs do this at once, at least one sees the claim of the other and gives way. This needs a file
    system whose listing shows every earlier write, as object stores guarantee. The age of a claim
    is measured by the clock of the file system. On each machine only the holder of the local lock
    makes claims, so that another claim of the same machine is of a run that died.
>>>>>>> 91f6a16
    """

    def __init__(self, folder: Remote, machine: str) -> None:
        self._folder, self._machine = folder, machine
        self._home = Remote(folder.root)
        self._name = uuid.uuid4().hex
        self._owner = f"{os.uname().nodename}, process {os.getpid()}"

    @classmethod
    @contextlib.contextmanager
    def held(cls, folder: Remote, machine: str, *, wait: bool) -> Iterator["Lease"]:
<<<<<<< HEAD
        """Hold the lease until the block ends.

        Args:
            folder: Where the claims are.
            machine: Names this machine's copy of the home, see `Mirror`.
            wait: Wait for another holder instead of failing.

        Raises:
            StoreError: Another run holds the lease, and `wait` is false.
            RemoteError: The file system cannot be reached.
=======
        """Hold the right to write inside the `with` block.

        Raises:
            StoreError: Another run holds it, and `wait` is False.
>>>>>>> 91f6a16
        """
        while True:
            claim = cls(folder, machine)
            claim.renew()
            try:
                other = claim._other()
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

    def renew(self) -> None:
<<<<<<< HEAD
        """Write the claim again: its time of change tells others that its owner is alive."""
        self._file.write(f"{self._owner}\n{self._machine}".encode())

    def check(self) -> None:
        """Check that no other machine removed the claim because it was not renewed in time.

        Raises:
            StoreError: The claim is gone.
=======
        """Write the claim again: its new time of change shows others that the owner is alive."""
        self._file.write(f"{self._owner}\n{self._machine}".encode())

    def check(self) -> None:
        """Check that no other run has removed the claim.

        Raises:
            StoreError: Another run took this one for dead.
>>>>>>> 91f6a16
        """
        if not self._file.is_file():
            raise StoreError(
                f"{self._home}: this run was taken for dead, having been out of reach for "
                f"{STALE_SECONDS:.0f} s: run again to go on from what was uploaded"
            )

    def _other(self) -> str | None:
<<<<<<< HEAD
        """Return the owner of another claim, or None; claims of runs that died are removed."""
=======
        """Return who else holds a claim, or None; remove the claims of dead runs."""
>>>>>>> 91f6a16
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
