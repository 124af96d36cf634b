"""Files and directories on object stores and other remote file systems, named by a URL.

PyArrow opens `s3://bucket/prefix`, `gs://...`, `abfs://...` and `hdfs://...`; fsspec opens every
other scheme, if its package is installed. What the files mean is left to the callers.
"""

import contextlib
import functools
import re
import urllib.parse
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any

from retrieval_pipeline.errors import RetrievalError
from retrieval_pipeline.paths import printable

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.+)", re.DOTALL)
# A text that was meant to be a URL: it may hold credentials and must not be shown as a path.
MISTYPED_URL = re.compile(r"\s*[A-Za-z][\w+.-]*\s*:\s*/|[^/]*//[^/]*:[^/]*@")

# Of these stores the part before "@" is a container, not a user.
CONTAINERS = ("abfs", "abfss", "az", "adl", "wasb", "wasbs")
# Here that part is the key of an account: the same bucket may be read with different ones.
BUCKETS = ("s3", "s3a", "gs", "gcs")
# Options of a URL that choose another service, whose buckets are others of the same names.
ENDPOINT = ("endpoint_override", "scheme")
# Options whose values are no secrets.
PLAIN_OPTIONS = (*ENDPOINT, "region", "allow_bucket_creation", "allow_bucket_deletion")
# Stands for what is not shown.
HIDDEN = "***"

# PyArrow's names of stores where a file becomes visible when its upload ends.
OBJECT_STORES = ("s3", "gcs", "abfs")

# Bytes per read: one request to an object store.
CHUNK_BYTES = 8 << 20


class RemoteError(RetrievalError, OSError):
    """A remote file system cannot be reached, or refuses."""

    # Callers show this attribute of any `OSError`.
    strerror: str

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.strerror = message


@dataclass(frozen=True, repr=False)
class Remote:
    """A file or directory on a remote file system.

    The URL may hold credentials: `str` and `repr` leave them and the options out, also of a URL
    that cannot be parsed.

    Attributes:
        key: Path below the URL, "" for the URL itself. It is not a URL: nothing is escaped.
    """

    _url: str
    key: str = ""

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: type, handler: "GetCoreSchemaHandler"
    ) -> "CoreSchema":
        """Accept an instance, and write it as `str` does."""
        from pydantic_core import core_schema

        return core_schema.is_instance_schema(cls, serialization=core_schema.to_string_ser_schema())

    def url_with_credentials(self) -> str:
        """Return the URL as it was given, to open it or hand it to another machine; not to show."""
        return self._url

    def __truediv__(self, name: str) -> "Remote":
        return Remote(self._url, f"{self.key}/{name}" if self.key else name)

    def __str__(self) -> str:
        base = masked_url(self._url)
        return f"{base}/{self.key}" if self.key else base

    def __repr__(self) -> str:
        return f"Remote({str(self)!r})"

    @property
    def root(self) -> "Remote":
        """The place of the URL itself."""
        return Remote(self._url)

    @property
    def identity(self) -> str:
        """Text that is the same for two places if and only if they are the same directory.

        It holds the service and the user, but no password, and no key of a bucket's account.
        """
        service = "".join(
            f"{name}={value}&" for name, value in sorted(_options(self._url)) if name in ENDPOINT
        )
        scheme, rest = _split(self._url)
        user, at, _ = rest.partition("/")[0].rpartition("@")
        if at and scheme not in (*BUCKETS, *CONTAINERS):
            service += f"{user.partition(':')[0]}@"
        return f"{service}{self}"

    @property
    def is_bucket(self) -> bool:
        """Whether this is a bucket of S3, or a part of one."""
        return _split(self._url)[0] in ("s3", "s3a")

    @property
    def on_store(self) -> str:
        """Path as the file system has it: the bucket and the prefix, of a bucket.

        Raises:
            RemoteError: The URL cannot be understood, or the bucket's region cannot be asked for.
        """
        with self._opened() as (_, path):
            return path

    @property
    def name(self) -> str:
        """Last part of the path."""
        return PurePosixPath(str(self)).name

    @property
    def stem(self) -> str:
        """Last part of the path without its extension."""
        return PurePosixPath(self.name).stem

    def files(self, *, missing_ok: bool = False) -> list["FileInfo"]:
        """Return every file below this directory, sorted; the paths are relative to it.

        Raises:
            RemoteError: The directory cannot be listed, or does not exist while `missing_ok` is
                False.
        """
        from pyarrow.fs import FileSelector, FileType

        with self._opened() as (system, path):
            selector = FileSelector(path, recursive=True, allow_not_found=missing_ok)
            found = system.get_file_info(selector)
            base = f"{path.rstrip('/')}/"
            return sorted(
                (
                    _relative(info, base)
                    for info in found
                    # A key of nothing but slashes is listed as the directory itself.
                    if info.type == FileType.File and info.path.startswith(base)
                ),
                key=lambda info: info.path,
            )

    def info(self) -> "FileInfo":
        """Return type, size (bytes) and time of change (ns); the type NotFound if nothing is there.

        Raises:
            RemoteError: The file system cannot be reached or refuses.
        """
        with self._opened() as (system, path):
            return system.get_file_info(path)

    def exists(self) -> bool:
        """Tell whether something is there; True also if the file system cannot be reached."""
        try:
            return bool(self.info().type.value)
        except RemoteError:
            return True

    def is_file(self) -> bool:
        """Tell whether this is a file; False if the file system cannot be reached."""
        return self._is("File")

    def is_dir(self) -> bool:
        """Tell whether this is a directory; False if the file system cannot be reached."""
        return self._is("Directory")

    def read(self) -> bytes:
        """Return the content of the file.

        Raises:
            RemoteError: It cannot be read.
        """
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """Yield the content of the file in pieces.

        Raises:
            RemoteError: It cannot be read.
        """
        with self._opened() as (system, path), system.open_input_stream(path) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk

    def start(self, count: int) -> bytes:
        """Return the first `count` bytes of the file, or all if it has fewer.

        Raises:
            RemoteError: It cannot be read.
        """
        with self._opened() as (system, path), system.open_input_stream(path) as stream:
            found: bytes = stream.read(count)
            return found

    def write(self, data: bytes) -> None:
        """Write the file; readers see the complete content, or the former one.

        Raises:
            RemoteError: It cannot be written.
        """
        with self._replacing() as (system, path), system.open_output_stream(path) as stream:
            stream.write(data)

    def upload(self, file: Path) -> None:
        """Copy a local file to this place; readers see it complete or not at all.

        Raises:
            RemoteError: It cannot be written, or the local file cannot be read.
        """
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
            OSError: The local file cannot be written.
        """
        with file.open("wb") as target:
            for chunk in self.chunks():
                target.write(chunk)

    def delete(self) -> None:
        """Remove the file; one that is gone already is no error.

        Raises:
            RemoteError: It cannot be removed.
        """
        with self._opened() as (system, path), contextlib.suppress(FileNotFoundError):
            system.delete_file(path)

    @contextlib.contextmanager
    def _replacing(self) -> Iterator[tuple["FileSystem", str]]:
        """Give a file system and a path to write to; the file gets its real name at the end."""
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
        """Give the file system and the path on it; its errors become a RemoteError of one line."""
        import pyarrow as pa

        try:
            system, base = _filesystem(self._url)
            yield system, f"{base}/{self.key}" if self.key else base
        except (OSError, pa.ArrowException) as error:
            if isinstance(error, RemoteError):
                raise
            # Not `from error`: its message may repeat the URL, and logs show causes.
            raise RemoteError(f"{self}: {_line_about(self._url, error)}") from None


Place = Path | Remote


def parse_place(value: object) -> object:
    """Return a `Remote` for a text that is a URL, and another text, a path or a `Remote` unchanged.

    Raises:
        ValueError: The value is none of these, or a text that was meant to be a URL and is none.
    """
    if isinstance(value, PurePath | Remote):
        return value
    if not isinstance(value, str):
        raise ValueError("must be a path or URL in quotes")  # pydantic reports no TypeError
    if URL.fullmatch(value):
        return Remote(value)
    if MISTYPED_URL.match(value):
        raise ValueError('neither a path nor a URL such as "s3://bucket/prefix"')
    return value


def masked_url(url: str) -> str:
    """Return a URL without credentials and options, on one line.

    People put secrets into URLs without escaping them, so that they hold "/", "?", "#" or "@". In
    doubt more is hidden than needed.
    """
    scheme, rest = _split(url)
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    user, at, _ = rest.rpartition("@")
    if at and ("@" in authority or ":" in authority):
        if "@" in authority and ":" not in user:
            # One user or container, and perhaps another "@" in the path.
            user, _, rest = rest.partition("@")
        else:
            rest = rest[len(user) + 1 :]
        if scheme in CONTAINERS and re.fullmatch(r"[\w$-]+", user):
            rest = f"{user}@{rest}"
    rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    authority, slash, path = rest.partition("/")
    if ":" in authority and (scheme in BUCKETS or not _has_port(authority)):
        # An account's key and its secret, without a bucket.
        authority, slash, path = HIDDEN, "", ""
    return printable(f"{scheme}://{authority}{slash}{path}").rstrip("/")


def _without_secrets(message: str, url: str) -> str:
    """Return a message about a URL without what `masked_url` hides of it."""
    shown = masked_url(url)
    message = message.replace(url, shown)
    hidden = _split(url)[1]
    for plain in re.split(r"[/@]", _split(shown)[1]):
        hidden = hidden.replace(plain, " ", 1)
    for name, value in _options(url):
        if name in PLAIN_OPTIONS:
            hidden = hidden.replace(value, " ", 1)
        hidden = hidden.replace(name, " ", 1)
    words = re.findall(r"[^\s/?#@:&=]+", f"{hidden} {urllib.parse.unquote(hidden)}")
    for word in sorted(set(words), key=len, reverse=True):
        message = re.sub(rf"(?<![\w*]){re.escape(word)}(?![\w*])", HIDDEN, message)
    return message


def _split(url: str) -> tuple[str, str]:
    """Return the scheme, and what follows "://"."""
    scheme, _, rest = url.partition("://")
    return scheme.lower(), rest


def _options(url: str) -> list[tuple[str, str]]:
    return urllib.parse.parse_qsl(url.partition("?")[2], keep_blank_values=True)


def _has_port(authority: str) -> bool:
    return re.fullmatch(r"([^:\[\]]*|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?", authority) is not None


@functools.cache
def _filesystem(url: str) -> tuple[Any, str]:
    """Open the file system of a URL, once per process: finding a bucket's region takes requests."""
    import pyarrow as pa
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    try:
        system, path = FileSystem.from_uri(url)
    except pa.ArrowInvalid as error:
        if "nrecognized filesystem" not in str(error):
            raise
        system, path = PyFileSystem(FSSpecHandler((found := _from_fsspec(url))[0])), found[1]
    return system, path.rstrip("/")


def _from_fsspec(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError, TypeError) as error:
        raise RemoteError(f"{masked_url(url)}: {_line_about(url, error)}") from None
    return system, path


def _relative(info: "FileInfo", base: str) -> "FileInfo":
    from pyarrow.fs import FileInfo

    return FileInfo(
        info.path.removeprefix(base), type=info.type, size=info.size, mtime_ns=info.mtime_ns
    )


def _line_about(url: str, error: BaseException) -> str:
    return _without_secrets(str(error), url).partition("\n")[0][:300]
