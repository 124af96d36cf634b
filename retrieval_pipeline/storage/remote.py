"""Places on object stores and other remote file systems, named by a URL as in the settings.

`s3://bucket/prefix`, `gs://...`, `abfs://...` and `hdfs://...` are PyArrow's own; every other
scheme is fsspec's, if its package is installed. Nothing here knows what the files mean.
"""

import contextlib
import functools
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from retrieval_pipeline.errors import RetrievalError

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://.")

# Here a file appears when its upload has ended, and there are no directories.
OBJECT_STORES = ("s3", "gcs", "abfs")

# Bytes read at once: one request to an object store.
CHUNK_BYTES = 8 << 20


class RemoteError(RetrievalError, OSError):
    """A remote file system cannot be reached, or refuses."""

    # As `OSError` has it, which callers show.
    strerror: str

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.strerror = message


@dataclass(frozen=True)
class Remote:
    """A file or directory on a remote file system.

    Attributes:
        root: URL as people write it; options such as `?region=eu-central-1` may follow.
        key: What lies below the root, "" for the root itself. No URL: any character is itself.
    """

    root: str
    key: str = ""

    def __truediv__(self, name: str) -> "Remote":
        return Remote(self.root, f"{self.key}/{name}" if self.key else name)

    def __str__(self) -> str:
        # A URL may hold keys: nobody wants to read them in a log.
        base = re.sub("//[^/@]*@", "//", self.root.partition("?")[0]).rstrip("/")
        return f"{base}/{self.key}" if self.key else base

    @property
    def name(self) -> str:
        """Last part of the path."""
        return PurePosixPath(str(self)).name

    @property
    def stem(self) -> str:
        """Last part of the path without its extension."""
        return PurePosixPath(self.name).stem

    def files(self, *, missing_ok: bool = False) -> list["FileInfo"]:
        """Return every file below, `path` being relative to here, in the order of their paths.

        Raises:
            RemoteError: There is no such directory, and not `missing_ok`; or it cannot be listed.
        """
        from pyarrow.fs import FileSelector, FileType

        with self._opened() as (system, path):
            selector = FileSelector(path, recursive=True, allow_not_found=missing_ok)
            found = system.get_file_info(selector)
            base = f"{path.rstrip('/')}/"
            return sorted(
                (_relative(info, base) for info in found if info.type == FileType.File),
                key=lambda info: info.path,
            )

    def info(self) -> "FileInfo":
        """Return type, size and time of change; the type is NotFound if there is nothing.

        Raises:
            RemoteError: The file system cannot be asked.
        """
        with self._opened() as (system, path):
            return system.get_file_info(path)

    def exists(self) -> bool:
        """Tell whether something is there; what cannot be asked for is taken to be."""
        try:
            return bool(self.info().type.value)
        except RemoteError:
            return True

    def is_file(self) -> bool:
        """Tell whether it is a file that can be reached."""
        return self._is("File")

    def is_dir(self) -> bool:
        """Tell whether it is a directory that can be reached."""
        return self._is("Directory")

    def read(self) -> bytes:
        """Return the content of the file.

        Raises:
            RemoteError: It cannot be read.
        """
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """Yield the content of the file piece by piece; raises as `read` does."""
        with self._opened() as (system, path), system.open_input_stream(path) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk

    def write(self, data: bytes) -> None:
        """Write a file whole: readers see it complete or not at all.

        Raises:
            RemoteError: It cannot be written.
        """
        with self._replacing() as (system, path), system.open_output_stream(path) as stream:
            stream.write(data)

    def upload(self, file: Path) -> None:
        """Write the content of a local file; raises as `write` does."""
        from pyarrow.fs import LocalFileSystem, copy_files

        with self._replacing() as (system, path):
            copy_files(
                str(file),
                path,
                source_filesystem=LocalFileSystem(),
                destination_filesystem=system,
                chunk_size=CHUNK_BYTES,
            )

    def download(self, file: Path) -> None:
        """Copy the file to a local one.

        Raises:
            RemoteError: It cannot be read.
            OSError: The local one cannot be written.
        """
        with file.open("wb") as target:
            for chunk in self.chunks():
                target.write(chunk)

    def delete(self) -> None:
        """Remove the file, which may be gone already.

        Raises:
            RemoteError: It cannot be removed.
        """
        with self._opened() as (system, path), contextlib.suppress(FileNotFoundError):
            system.delete_file(path)

    @contextlib.contextmanager
    def _replacing(self) -> Iterator[tuple["FileSystem", str]]:
        """Give the path to write to, so that this file becomes visible when it is complete."""
        with self._opened() as (system, path):
            if system.type_name in OBJECT_STORES:
                yield system, path
                return
            folder, _, name = path.rpartition("/")
            system.create_dir(folder, recursive=True)
            temporary = f"{folder}/.tmp-{uuid.uuid4().hex[:12]}-{name}"
            yield system, temporary
            system.move(temporary, path)

    def _is(self, kind: str) -> bool:
        from pyarrow.fs import FileType

        try:
            return bool(self.info().type == FileType[kind])
        except RemoteError:
            return False

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple["FileSystem", str]]:
        """Give the file system and the path on it; its errors become one line."""
        import pyarrow as pa

        try:
            system, base = _filesystem(self.root)
            yield system, f"{base}/{self.key}" if self.key else base
        except (OSError, pa.ArrowException) as error:
            if isinstance(error, RemoteError):
                raise
            raise RemoteError(f"{self}: {_first_line(error)}") from error


Place = Path | Remote


def parse_place(value: object) -> object:
    """Return a `Remote` for a URL; anything else as it is."""
    return Remote(value) if isinstance(value, str) and URL.match(value) else value


@functools.cache
def _filesystem(root: str) -> tuple[Any, str]:
    """Connect once in a process: it takes requests to learn where a bucket lives."""
    import pyarrow as pa
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    try:
        system, path = FileSystem.from_uri(root)
    except pa.ArrowInvalid as error:
        if "nrecognized filesystem" not in str(error):
            raise
        system, path = PyFileSystem(FSSpecHandler((found := _from_fsspec(root))[0])), found[1]
    return system, path.rstrip("/")


def _from_fsspec(root: str) -> tuple[Any, str]:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(root)
    except (ImportError, ValueError) as error:
        raise RemoteError(f"{root}: {_first_line(error)}") from error
    return system, path


def _relative(info: "FileInfo", base: str) -> "FileInfo":
    from pyarrow.fs import FileInfo

    return FileInfo(
        info.path.removeprefix(base), type=info.type, size=info.size, mtime_ns=info.mtime_ns
    )


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:300]
