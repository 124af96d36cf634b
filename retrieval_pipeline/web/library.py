"""The state of the server: the current snapshot, the threads that work, and what they share."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, Self, TypeVar

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.encoders.from_settings import describe_encoder
from retrieval_pipeline.errors import (
    BuildError,
    EncoderError,
    EngineError,
    RetrievalError,
    Stopped,
)
from retrieval_pipeline.index.build_info import BuildInfo, read_info
from retrieval_pipeline.index.milvus.schema import PublishedInfo
from retrieval_pipeline.maintenance.status import LibraryStatus, read_status
from retrieval_pipeline.search.near_duplicates import DuplicateGroup, duplicate_groups
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.query_vectors import QueryVectors
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.shared_progress import read_progress
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline.web.api_models import IdsOf, Run
from retrieval_pipeline.web.indexing import Indexing
from retrieval_pipeline.web.parameters import Search, SearchPage
from retrieval_pipeline.web.pictures import AnswerPage
from retrieval_pipeline.web.snapshot import Layout, Snapshot, check_sources
from retrieval_pipeline.web.thumbnails import Thumbnails
from retrieval_pipeline.web.uploads import Uploads

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

# Seconds between two looks at the pointer to the current build.
LOOK_SECONDS = 1.0
# And after a build that could not be opened.
FAILED_SECONDS = 15.0
# Threads that search, read tables and train: NumPy and Arrow leave the interpreter lock.
THREADS = 4
# Runs that the status shows.
RUNS = 10


class Library:
    """What the requests are answered from; an asynchronous context manager.

    There is one thread that encodes, so that one model answers one query at a time and typing
    people do not wait for each other's searches; a new build is opened beside the old one, which
    lives on in the requests that have it.
    """

    def __init__(
        self,
        load_settings: Callable[[], Settings],
        index_command: Sequence[str] | None = None,
    ) -> None:
        """Answer from the home of the settings; `index_command` brings it up to date."""
        self._load_settings = load_settings
        self.settings = load_settings()
        self.store = Store(self.settings.home)
        self.thumbnails = Thumbnails(self.settings, self.run)
        self.uploads = Uploads(self.settings, self.run)
        self.indexing = Indexing(self.store, index_command)
        self._snapshot: Snapshot | None = None
        self._problem: RetrievalError = BuildError("the index is being opened")
        self._settings_problem = ""
        self._encoding = ThreadPoolExecutor(1, thread_name_prefix="encode")
        self._working = ThreadPoolExecutor(THREADS, thread_name_prefix="work")
        self._comparing = ThreadPoolExecutor(1, thread_name_prefix="compare")
        self._stop = threading.Event()
        self._duplicates: tuple[Snapshot, asyncio.Future[list[DuplicateGroup]]] | None = None
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.run(self.uploads.sweep)
        self._watch = asyncio.create_task(self._keep_looking(await self.look()))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._stop.set()
        self.indexing.close()
        self.thumbnails.close()
        self.uploads.close()
        for threads in (self._encoding, self._working, self._comparing):
            threads.shutdown(wait=False, cancel_futures=True)

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function on a worker thread."""
        return await asyncio.wrap_future(self._working.submit(function, *args, **kwargs))

    # The current build

    @property
    def snapshot(self) -> Snapshot:
        """The current build.

        Raises:
            BuildError: Nothing is indexed yet, or the build is damaged.
            StoreError: The pointer to it is.
        """
        if self._snapshot is None:
            raise self._problem
        return self._snapshot

    @property
    def is_open(self) -> bool:
        """Whether there is an index to answer from."""
        return self._snapshot is not None

    async def look(self) -> float:
        """Open the current build if it or the settings changed; return when to look again.

        Returns:
            Seconds.
        """
        try:
            opened = await self.run(self._open_other)
        except RetrievalError as error:
            # The build before goes on answering.
            self._problem = error
            # A damaged build is read whole before it is refused, and an engine that is away must
            # not be called without end: not every second.
            is_new = isinstance(error, BuildError) and not self.store.current_file.exists()
            return LOOK_SECONDS if is_new else FAILED_SECONDS
        if opened is not None:
            former, self._snapshot = self._snapshot, opened
            self.settings = opened.settings
            self.thumbnails.settings = opened.settings
            if former is None or former.index.info.space != opened.index.info.space:
                self._encoding.submit(self._warm_up, opened)
            # What an engine was not asked about stays until the next publication.
            with contextlib.suppress(EngineError):
                await self.run(self.thumbnails.sweep, opened.index)
        elif self._snapshot is not None and self._snapshot.map is None:
            await self.run(self._snapshot.look_for_map)
        return LOOK_SECONDS

    def _open_other(self) -> Snapshot | None:
        former, settings = self._snapshot, self._current_settings()
        if former and settings == former.settings and former.index.is_current(settings):
            return None
        opened = Snapshot(former.searcher.reopened(settings) if former else Searcher.open(settings))
        opened.warm_up()
        return opened

    def _current_settings(self) -> Settings:
        """Read the settings anew, for a source that was added; a broken file changes nothing."""
        try:
            settings = self._load_settings()
        except RetrievalError as error:
            if str(error) != self._settings_problem:
                self._settings_problem = str(error)
                logger.warning("%s", error)
            return self.settings
        self._settings_problem = ""
        return settings.model_copy(update={"home": self.settings.home})

    async def _keep_looking(self, seconds: float) -> None:
        told = ""
        while True:
            await asyncio.sleep(seconds)
            try:
                seconds = await self.look()
                told = ""
            # Whatever goes wrong now may be right in a while; a task that ended would never see it.
            except Exception as error:  # noqa: BLE001
                seconds = FAILED_SECONDS
                if (line := f"{type(error).__name__}: {error}") != told:
                    told = line
                    logger.warning("the index could not be looked at (%s): trying again", line)

    @staticmethod
    def _warm_up(snapshot: Snapshot) -> None:
        try:
            snapshot.searcher.warm_up()
        except EncoderError as error:
            logger.warning("%s", error)

    # Questions

    async def search(self, page: SearchPage) -> tuple[Snapshot, AnswerPage]:
        """Answer a search, or show everything, newest first, if it asks for nothing.

        Raises:
            RetrievalError: As the core raises it.
            RequestError: A parameter names something that is not there.
        """
        snapshot = self.snapshot
        check_sources(snapshot, page.source)
        read = await self.run(snapshot.query, page)
        if not read.query.asks:
            return snapshot, await self.run(snapshot.browse, page, read)
        query_vectors, milliseconds = await self._encode(snapshot, read.query)
        answer = await self.run(snapshot.answer, page, read, query_vectors)
        timings = answer.timings_ms | {"encode": milliseconds}
        return snapshot, answer.model_copy(update={"timings_ms": timings})

    async def layout(self, search: Search, offset: int) -> Layout:
        """Return what a grid must know of what a search finds; raises as `search` does."""
        snapshot = self.snapshot
        check_sources(snapshot, search.source)
        query = (await self.run(snapshot.query, search)).query
        if not query.asks:
            return await self.run(snapshot.browse_layout, search, offset, query)
        query_vectors, _ = await self._encode(snapshot, query)
        return await self.run(snapshot.answer_layout, search, offset, query, query_vectors)

    async def ids(self, asked: IdsOf) -> list[str]:
        """Return the content ids of a part of what a search finds; raises as `search` does."""
        snapshot = self.snapshot
        check_sources(snapshot, asked.source)
        query = (await self.run(snapshot.query, asked)).query
        vectors = (await self._encode(snapshot, query))[0] if query.asks else None
        return await self.run(snapshot.ids, asked, query, vectors)

    async def query_vectors(self, snapshot: Snapshot, search: Search) -> QueryVectors:
        """Return the vectors of all words of a search; raises as `search` does."""
        literal = search.model_copy(update={"literal": True})
        query = (await self.run(snapshot.query, literal)).query
        return (await self._encode(snapshot, query))[0]

    async def _encode(self, snapshot: Snapshot, query: Query) -> tuple[QueryVectors, float]:
        if (known := snapshot.known_vectors(query)) is not None:
            return known, 0.0
        return await asyncio.wrap_future(self._encoding.submit(snapshot.encode, query))

    async def status(self) -> LibraryStatus:
        """Return the state of sources and build; raises StoreError if a table is damaged."""
        return await self.run(self._status)

    def _status(self) -> LibraryStatus:
        return read_status(self.settings, self.space())

    def is_being_written(self) -> bool:
        """Whether a run, of whatever program, is bringing the tables or the index up to date."""
        return read_progress(self.store) is not None

    def space(self) -> VectorSpace:
        """Return the vector space of the settings, or of the build if that model cannot be had.

        Raises:
            EncoderError: Neither is known.
        """
        try:
            return describe_encoder(self.settings).space
        except EncoderError:
            if self._snapshot is None:
                raise
            return self._snapshot.index.info.space

    def runs(self) -> list[Run]:
        """Return the last builds, or what of an engine can answer, the newest first.

        Raises:
            StoreError: The pointer to the current build, or a ledger, is damaged.
        """
        runs = _publications(self.settings) if self.settings.has_engine else self._builds()
        return sorted(runs, key=lambda run: run.created_at, reverse=True)[:RUNS]

    def _builds(self) -> list[Run]:
        current = self.store.current_build()
        runs = []
        for path in self.store.all_builds():
            try:
                info = read_info(path)
            except BuildError:
                # Damaged or of another version: `retrieval verify` tells.
                continue
            runs.append(_run(path.name, info, info.build_seconds, current=path == current))
        return runs

    def duplicates(self) -> "asyncio.Future[list[DuplicateGroup]]":
        """Return what is there more than once, when it is known: comparing takes its time.

        Raises:
            BuildError: There is no index.
        """
        snapshot = self.snapshot
        if self._duplicates is None or self._duplicates[0] is not snapshot:
            whole = snapshot.searcher.whole
            job = self._comparing.submit(
                duplicate_groups,
                whole.corpus,
                whole.path_of,
                whole.looks,
                stop=self._stop,
            )
            self._duplicates = snapshot, asyncio.wrap_future(job)
            self._duplicates[1].add_done_callback(_ignore_stop)
        return self._duplicates[1]


def _ignore_stop(future: "asyncio.Future[list[DuplicateGroup]]") -> None:
    if not future.cancelled() and isinstance(future.exception(), Stopped):
        logger.debug("the search for duplicates was stopped")


def _publications(settings: Settings) -> list[Run]:
    """Return what was published from this home, or if that is nothing, what answers."""
    from retrieval_pipeline.pipeline.engine import answering, publications

    try:
        found = publications(settings)
        if not any(each.answers for each in found) and (other := answering(settings)) is not None:
            found.append(other)
    except EngineError:
        # The status says that it does not answer.
        return []
    return [
        _run(each.info.build, each.info, each.info.seconds, current=each.answers) for each in found
    ]


def _run(build: str, info: BuildInfo | PublishedInfo, seconds: float, *, current: bool) -> Run:
    return Run(
        build=build,
        created_at=info.created_at,
        items=info.items,
        files=info.locations,
        seconds=seconds,
        model=info.model,
        recall_at_10=info.recall_at_10,
        current=current,
    )
