"""Follows the sources, and brings tables and index up to date whenever something has changed.

The home is locked for the length of a batch only, so that other runs can take place in between.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import RetrievalError, SettingsError, Stopped
from retrieval_pipeline.ingest.changes import Changes, Tell, follow
from retrieval_pipeline.ingest.small_parts import merge_small_parts
from retrieval_pipeline.pipeline.publish import answering_build, update_index, update_map
from retrieval_pipeline.pipeline.run import (
    Kept,
    SourcesReport,
    keeping,
    update_labels,
    update_sources,
)
from retrieval_pipeline.progress import NotesOnly, Progress, Quiet
from retrieval_pipeline.storage.remote import Remote
from retrieval_pipeline.storage.shared_progress import SharedProgress
from retrieval_pipeline.storage.store import Store

# Seconds between two looks at what has changed.
TICK_SECONDS = 0.1
# Everything is looked through so often, in seconds: the system may lose events, and of object
# stores it knows none.
CRAWL_SECONDS = 900.0
# After so many seconds without a change, labels and map are brought up to date: that takes seconds
# to minutes, in which other pictures would wait.
CALM_SECONDS = 60.0
# A batch that failed is tried again after so many seconds, then after twice as many, and so on.
RETRY_SECONDS, LONGEST_RETRY_SECONDS = 5.0, 300.0
# How long the start waits for the sources to be followed.
START_SECONDS = 60.0


@dataclass(frozen=True)
class BatchReport:
    """What one batch of changes did.

    Attributes:
        new: Files at paths that were not known before.
        changed: Files with another content than before.
        removed: Paths that are gone.
        embedded: Pictures that were embedded.
        failed: Pictures that were found not to be usable.
        seconds: From the last change of the file that waited longest to the published index; None
            for a batch that looked through whole sources.
        build: Name of the index that answers now.
        items: Pictures in it.
    """

    new: int
    changed: int
    removed: int
    embedded: int
    failed: int
    seconds: float | None
    build: str
    items: int


def watch(
    settings: Settings,
    *,
    told: Callable[[BatchReport], None],
    tell: Tell,
    stop: threading.Event,
    poll_seconds: float | None = None,
    progress: Progress | None = None,
) -> None:
    """Follow the sources until `stop` is set.

    It begins by looking through all sources, as `index_sources` does, and does so again every
    CRAWL_SECONDS, and for a source whose directory was away. The encoder and the decode workers
    stay for as long as it runs. What goes wrong with one batch is told once, and tried again.

    Args:
        settings: Sources, model and home.
        told: Called after each batch that changed something, and after the first one.
        tell: Called with a line that people should read.
        stop: Ends this; a batch in work finishes its part first.
        poll_seconds: Look at all files every so many seconds instead of asking the system, which
            does not know what other machines change on a network share.
        progress: Told of the steps of the first batch, and of files that fail in any.

    Raises:
        SettingsError: There is no source.
        EncoderError: The model cannot be had.
        Stopped: `stop` was set.
    """
    if not settings.sources:
        raise SettingsError("there are no sources in the settings: add a [[sources]] table")
    local = {each.name: each for each in settings.sources if not isinstance(each.path, Remote)}
    changes = Changes(local)
    with keeping(settings) as kept, _following(settings, changes, tell, stop, poll_seconds):
        watcher = _Watcher(settings, kept, changes, told, tell, stop)
        watcher.look_through(progress or Quiet())
        # The first picture need not wait for the model.
        with kept.load().encode_threads():
            pass
        while not stop.wait(TICK_SECONDS):
            watcher.tick(progress or Quiet())
    raise Stopped("stopped watching")


@contextlib.contextmanager
def _following(
    settings: Settings,
    changes: Changes,
    tell: Tell,
    stop: threading.Event,
    poll_seconds: float | None,
) -> Iterator[None]:
    """Follow each local source on a thread of its own; begin when all are followed, or are away."""
    home = Store(settings.home).home
    threads, waiting = [], []
    for source in settings.sources:
        if isinstance(source.path, Remote):
            continue
        ready = threading.Event()
        arguments = (source, home, changes, tell, stop)
        options = {"ready": ready, "poll_seconds": poll_seconds}
        thread = threading.Thread(target=follow, args=arguments, kwargs=options, daemon=True)
        thread.start()
        threads.append(thread)
        waiting.append(ready)
    deadline = time.monotonic() + START_SECONDS
    for ready in waiting:
        ready.wait(max(deadline - time.monotonic(), 0))
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


class _Watcher:
    """Works off what has changed, batch by batch."""

    def __init__(
        self,
        settings: Settings,
        kept: Kept,
        changes: Changes,
        told: Callable[[BatchReport], None],
        tell: Tell,
        stop: threading.Event,
    ) -> None:
        self._settings, self._kept, self._changes = settings, kept, changes
        self._told, self._tell, self._stop = told, tell, stop
        self._store = Store(settings.home)
        self._next_crawl = 0.0
        self._last_change = time.monotonic()
        self._has_map = False
        # Sources of batches that failed, which are looked through again at that time.
        self._failed: set[str] = set()
        self._retry_at, self._retry_after = 0.0, RETRY_SECONDS
        self._unreadable: set[str] = set()
        self._complaint = ""

    def look_through(self, progress: Progress) -> None:
        """Look through all sources, and report what was found."""
        self._changes.settled()
        self._next_crawl = time.monotonic() + CRAWL_SECONDS
        names = {source.name: {""} for source in self._settings.sources}
        self._work_off(names, None, progress, is_first=True)

    def tick(self, progress: Progress) -> None:
        """Work off what holds still by now; if nothing has changed for long, draw the map."""
        now = time.monotonic()
        settled = self._changes.settled()
        paths: dict[str, Collection[str]] = {**settled.paths}
        if now >= self._next_crawl:
            self._next_crawl = now + CRAWL_SECONDS
            paths |= {source.name: {""} for source in self._settings.sources}
        if self._failed and now >= self._retry_at:
            paths |= {name: {""} for name in self._failed}
        if paths:
            self._work_off(paths, settled.since, NotesOnly(progress.note))
        elif not self._has_map and now - self._last_change >= CALM_SECONDS and not self._failed:
            self._draw_map()

    def _work_off(
        self,
        paths: Mapping[str, Collection[str]],
        since: float | None,
        progress: Progress,
        *,
        is_first: bool = False,
    ) -> None:
        """Bring tables and index up to date with these paths; tell what went wrong.

        Raises:
            Stopped: The process is to end.
        """
        self._last_change = time.monotonic()
        progress = SharedProgress(self._store, progress)
        try:
            with self._store.locked():
                tables = update_sources(
                    self._settings,
                    paths=paths,
                    kept=self._kept,
                    progress=progress,
                    stop=self._stop,
                )
                if is_first or tables.embeddings:
                    self._publish(tables, since, progress, is_first=is_first)
        except Stopped:
            raise
        except RetrievalError as error:
            self._complain(str(error), {*paths})
            return
        if tables.failures:
            self._complain("\n".join(map(str, tables.failures.values())), {*tables.failures})
        for name in sorted(self._unreadable & {*paths} - {*tables.failures}):
            self._tell(f'source "{name}": it can be read again')
        self._unreadable = (self._unreadable - {*paths}) | {*tables.failures}
        whole = {name for name, each in paths.items() if "" in each}
        self._failed -= whole - {*tables.failures}
        if not self._failed:
            self._complaint, self._retry_after = "", RETRY_SECONDS

    def _publish(
        self, tables: SourcesReport, since: float | None, progress: Progress, *, is_first: bool
    ) -> None:
        build = update_index(
            self._settings, tables.description.space, self._kept.load, progress=progress
        )
        if build.kept:
            self._complain(f"the index stays as it is: {build.kept}", set())
        report = BatchReport(
            new=sum(each.new for each in tables.manifests),
            changed=sum(each.changed for each in tables.manifests),
            removed=sum(each.removed for each in tables.manifests),
            embedded=sum(each.embedded for each in tables.embeddings),
            failed=sum(each.newly_quarantined for each in tables.embeddings),
            seconds=None if since is None else time.monotonic() - since,
            build=build.build.name,
            items=build.info.items,
        )
        if build.published:
            self._has_map = False
        if is_first or build.published or report.failed:
            self._told(report)

    def _complain(self, complaint: str, names: set[str]) -> None:
        """Tell what went wrong, once, and look through these sources again later."""
        if complaint != self._complaint:
            self._complaint, self._retry_after = complaint, RETRY_SECONDS
            for line in complaint.splitlines():
                self._tell(line)
        self._failed |= names
        self._retry_at = time.monotonic() + self._retry_after
        self._retry_after = min(2 * self._retry_after, LONGEST_RETRY_SECONDS)

    def _draw_map(self) -> None:
        """Label the current build, merge small parts, and draw the map, until something changes."""
        self._has_map = True
        try:
            with self._store.locked():
                build = answering_build(self._settings)
                merge_small_parts(self._store)
                if build is not None:
                    update_labels(self._settings)
                    update_map(self._settings, build, stop=_Interrupt(self._stop, self._changes))
        except Stopped:
            self._has_map = False
        except RetrievalError as error:
            self._tell(f"labels, tables and map were not brought up to date: {error}")


class _Interrupt(threading.Event):
    """Is set once the process is to end, or something has changed."""

    def __init__(self, stop: threading.Event, changes: Changes) -> None:
        super().__init__()
        self._stop, self._changes = stop, changes

    def is_set(self) -> bool:
        """Return whether it is."""
        return self._stop.is_set() or bool(self._changes)
