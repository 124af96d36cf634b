"""The right to write a remote home, held among machines."""

import contextlib
import os
import random
import time
import uuid
from collections.abc import Iterator

from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.storage.remote import Remote, RemoteError

# A claim that was not renewed for so long is that of a dead run.
STALE_SECONDS = 600.0


class Lease:
    """The right to write, among machines that share nothing but the file system.

    Who wants it writes a claim and then lists them all: of two that do, at least one sees the
    other's, and gives way. That needs a listing that shows what was written before, as those of
    object stores do by now. Ages are told by the clock of the file system. Of a machine only the
    holder of its lock claims: what else it left is of the dead.
    """

    def __init__(self, folder: Remote, machine: str) -> None:
        self._folder, self._machine = folder, machine
        self._home = Remote(folder.root)
        self._name = uuid.uuid4().hex
        self._owner = f"{os.uname().nodename}, process {os.getpid()}"

    @classmethod
    @contextlib.contextmanager
    def held(cls, folder: Remote, machine: str, *, wait: bool) -> Iterator["Lease"]:
        """Hold a claim.

        Raises:
            StoreError: Another run holds it, and not `wait`.
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
        """Write the claim anew: its time of change tells others that the owner is alive."""
        self._file.write(f"{self._owner}\n{self._machine}".encode())

    def check(self) -> None:
        """See that nobody took this run for dead.

        Raises:
            StoreError: Somebody did.
        """
        if not self._file.is_file():
            raise StoreError(
                f"{self._home}: this run was taken for dead, having been out of reach for "
                f"{STALE_SECONDS:.0f} s: run again to go on from what was uploaded"
            )

    def _other(self) -> str | None:
        """Return who else holds a claim; claims of the dead are removed."""
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
