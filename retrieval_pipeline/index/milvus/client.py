"""The connection to Milvus: every call ends within a time, and fails with one clear line."""

import contextlib
import functools
import logging
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import EngineError
from retrieval_pipeline.storage.locks import is_held

# The only place that a token is taken from: settings are shown, logged and copied.
TOKEN = "RETRIEVAL_MILVUS_TOKEN"
# Seconds that a directory of Milvus Lite is waited for while another process has it.
LITE_WAIT = 5.0

# Of the channel to Milvus Lite: pymilvus asks every ten seconds whether the server is still there,
# and Milvus Lite, which is in this process, ends the connection when that happens during a call.
LITE_OPTIONS = {"grpc.keepalive_time_ms": 2**31 - 1}

# Codes of Milvus's errors (`pkg/util/merr/errors.go` of its source), and of its former versions.
_NOT_FOUND = (100, 1600)  # of a collection and of an alias
_TOO_MANY_REQUESTS, _RATE_LIMIT = 4, 8
_FULL = {3: "memory", 7: "disk", 9: "quota", 12: "resources"}
_NO_PRIVILEGE = (1400, 1401)
# The statuses of gRPC that servers give, and the words of former versions.
_NO_USER = ("unauthenticated", "permission_denied", "auth check failure")
_UNIMPLEMENTED = 10

# The version that is needed, and the first one that reads more patterns than beginnings.
LEAST_VERSION, WITH_PATTERNS = (2, 3), (2, 4)
NEEDED = "Milvus 2.3.5 or later is needed"
# What an engine reads in patterns of `like`: nothing but a beginning; also "%" and "_" anywhere; or
# these, and a backslash before them.
Patterns = Literal["none", "wildcards", "escapes"]

_open_files: Counter[Path] = Counter()
_files_lock = threading.Lock()


class Client:
    """A connection to Milvus, with the methods of `pymilvus.MilvusClient`.

    Each of them raises EngineError, and ends within the timeout of the settings. pymilvus tries
    again within that time what failed because the engine was away or asked to be called less often.

    Attributes:
        where: The engine's address, for messages.
        patterns: What it reads in patterns of `like`.
    """

    def __init__(self, uri: str, *, token: str = "", timeout: float = 30.0) -> None:
        """Connect to a server, or open the directory `uri`, ending in ".db", with Milvus Lite.

        Raises:
            EngineError: The engine cannot be reached or is too old, or the extra is not installed.
        """
        self.where = uri
        self.timeout = timeout
        self._token = token
        self._file = Path(uri).absolute() if _is_file(uri) else None
        with self.explained():
            self._client = self._connect()
            version = str(self._client.get_server_version(timeout=timeout))
        try:
            self.patterns = patterns_of(version)
        except EngineError as error:
            self._client.close()
            raise EngineError(f"{uri}: {error}") from None
        if self._file is not None:
            with _files_lock:
                _open_files[self._file] += 1

    @property
    def is_lite(self) -> bool:
        """Whether it is Milvus Lite that is asked, by its directory."""
        return self._file is not None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return a method of `pymilvus.MilvusClient` that raises EngineError."""
        method = getattr(self._client, name)

        @functools.wraps(method)
        def called(*args: Any, **kwargs: Any) -> Any:
            with self.explained():
                return method(*args, **{"timeout": self.timeout, **kwargs})

        return called

    def collection_of(self, alias: str) -> str | None:
        """Return the collection that an alias names; None if there is no such alias.

        Raises:
            EngineError: The engine cannot be asked.
        """
        from pymilvus import MilvusException

        with self.explained():
            try:
                found = self._client.describe_alias(alias, timeout=self.timeout)
            except MilvusException as error:
                if error.code in _NOT_FOUND:
                    return None
                raise
        return str(found["collection_name"])

    def close(self) -> None:
        """End the connection; what Milvus Lite has open can then be opened by other processes."""
        self._client.close()
        if self._file is None:
            return
        with _files_lock:
            _open_files[self._file] -= 1
            if not _open_files[self._file]:
                from milvus_lite.server_manager import server_manager_instance

                server_manager_instance.release_server(str(self._file))

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> Any:
        try:
            import pymilvus
        except ImportError:
            raise EngineError(
                'engine = "milvus" needs the extra: pip install "retrieval-pipeline[milvus]"'
            ) from None
        # Their logs repeat each error with a traceback, and name what servers before 2.5 lack; that
        # of gRPC tells what Milvus Lite lacks.
        names = ["pymilvus", "pymilvus.milvus_client", "milvus_lite"]
        for name in (*names, *(["grpc._server"] if self._file else [])):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        give_up = time.monotonic() + LITE_WAIT
        while True:
            try:
                return pymilvus.MilvusClient(
                    self.where,
                    token=self._token,
                    timeout=self.timeout,
                    grpc_options=LITE_OPTIONS if self._file else {},
                )
            except pymilvus.MilvusException:
                if self._file is None:
                    raise
                lock = self._file / "LOCK"
                if not (lock.is_file() and is_held(lock)):
                    raise EngineError(
                        f"{self._file}: Milvus Lite cannot open it: it must be a directory of its "
                        "own, or not be there yet, on a disk that can be written"
                    ) from None
                if time.monotonic() > give_up:
                    raise EngineError(
                        f"{self._file} is open in another process, and Milvus Lite serves one at a "
                        "time: end that one, or run a Milvus server (docs/scale.md)"
                    ) from None
                time.sleep(0.2)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turn the errors of pymilvus and gRPC into EngineError, each of one line.

        Raises:
            EngineError: The engine is away, slow, full, of another version, or refuses.
        """
        try:
            import grpc
            from pymilvus import MilvusException
        except ImportError:
            yield
            return
        try:
            yield
        except (MilvusException, grpc.RpcError) as error:
            # Whatever goes wrong while it connects, pymilvus says that the server is not there.
            status = error if isinstance(error, grpc.RpcError) else error.__cause__
            why = status.code().name if isinstance(status, grpc.RpcError) else ""
            raise EngineError(self._line(error, why)) from None

    def _line(self, error: Any, why: str) -> str:
        """Say in one line what went wrong, and what to do; `why` is the status that gRPC gave."""
        # Errors of gRPC have methods where pymilvus's have values.
        is_of_grpc = callable(error.code)
        code = 0 if is_of_grpc else error.code
        said = " ".join(str(error.details() if is_of_grpc else error.message or error).split())
        if self._token:
            said = said.replace(self._token, "***")
        said, text = said[:300], f"{said} {why}".casefold()
        if code in _NO_PRIVILEGE or any(each in text for each in _NO_USER):
            return (
                f"{self.where}: the engine does not accept the token: put that of a user who may "
                f"write into ${TOKEN}"
            )
        if "node" in text and "not enough" in text:
            return (
                f"{self.where}: the engine has too few query nodes for index.replicas: it needs as "
                f"many as there are replicas ({said})"
            )
        if code in _FULL or "no space left" in text:
            what = _FULL.get(code, "disk")
            return f"{self.where}: the engine is full ({what}): {said}"
        if code in (_TOO_MANY_REQUESTS, _RATE_LIMIT):
            return f"{self.where}: the engine is asked too much: try again later ({said})"
        if code == _UNIMPLEMENTED or "unimplemented" in text:
            return (
                f"{self.where}: the engine is of another version, which does not know this call: "
                f"{NEEDED} ({said})"
            )
        if "deadline" in text or "timed out" in text:
            return (
                f"{self.where}: no answer within {self.timeout:g} s (index.timeout): the engine "
                "is slow or overloaded"
            )
        if "fail connecting" in text or "unavailable" in text or "connection refused" in text:
            return f"{self.where}: the engine is not there: start it, or mend index.uri"
        if "dim" in text and ("vector" in text or "dimension" in text):
            return (
                f"{self.where}: a collection has vectors of other dimensions: run "
                f"`retrieval index` ({said})"
            )
        return f"{self.where}: the engine refused: {said}"


def patterns_of(version: str) -> Patterns:
    """Return what an engine reads in patterns of `like`, by the version that it says it is.

    Raises:
        EngineError: It is too old.
    """
    if version.startswith("milvus_lite"):
        # It reads escapes, but not beside a condition on an array.
        return "wildcards"
    found = re.match(r"v?(\d+)\.(\d+)", version)
    # What is built from a branch may name that.
    number = (int(found[1]), int(found[2])) if found else WITH_PATTERNS
    if number < LEAST_VERSION:
        raise EngineError(f"the engine is Milvus {version.removeprefix('v')}: {NEEDED}")
    return "escapes" if number >= WITH_PATTERNS else "none"


def _is_file(uri: str) -> bool:
    return uri.endswith(".db") and "://" not in uri


def connect(settings: Settings) -> Client:
    """Connect to the engine that the settings name; the token is that of $RETRIEVAL_MILVUS_TOKEN.

    Raises:
        EngineError: The engine cannot be reached, or the extra is not installed.
    """
    file = settings.engine_file
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EngineError(f"{file.parent}: {error.strerror}") from None
    index = settings.index
    uri = index.uri if file is None else str(file)
    return Client(uri, token=os.environ.get(TOKEN, ""), timeout=index.timeout)


def served(client: Client, settings: Settings) -> str:
    """Return the collection that answers: the one that the alias names.

    Raises:
        EngineError: Nothing is published yet, or the engine cannot be asked.
    """
    found = client.collection_of(settings.index.collection)
    if found is None:
        raise EngineError(
            f'{client.where}: nothing is published as "{settings.index.collection}" yet: run '
            "`retrieval index`"
        )
    return found
