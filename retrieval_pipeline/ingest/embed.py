"""Manifest -> embeddings: decode in worker processes, encode on threads, write Parquet parts."""

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.concurrency import available_cores
from retrieval_pipeline.config.extensions import DAMAGED
from retrieval_pipeline.config.settings import Source
from retrieval_pipeline.encoders.base import Description, Encoder
from retrieval_pipeline.errors import EncoderError, Stopped
from retrieval_pipeline.facts.grouped_files import read_grouped_files
from retrieval_pipeline.facts.model import PictureFacts
from retrieval_pipeline.images.decode_pool import DecodePool, Job
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.images.worker import WorkerError
from retrieval_pipeline.ingest.bottleneck import MachineWork, Timings
from retrieval_pipeline.ingest.encode_threads import Embedded, EncodeThreads, Result
from retrieval_pipeline.ingest.facts import record_facts
from retrieval_pipeline.ingest.manifest import Status, distrust
from retrieval_pipeline.ingest.missing_views import ViewTables
from retrieval_pipeline.ingest.part_writer import PartWriter
from retrieval_pipeline.ingest.quarantine import Quarantine
from retrieval_pipeline.paths import to_path
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.storage.schemas import embedding_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import (
    read_manifest,
    read_table,
)
from retrieval_pipeline.vectors import VectorSpace

# Takes jobs and yields their results in batches, in the order of the jobs.
Backend = Callable[[Sequence[Job], dict[str, MachineWork]], Generator[list[Result], None, None]]


@dataclass(frozen=True)
class EmbedReport:
    """What became of the images of one source.

    files = companions + duplicates + known + embedded + quarantined + left

    Attributes:
        source: Name of the source.
        files: Files of the manifest whose content is known, and files that are too large.
        companions: Files that are shown with another one of the same photograph.
        duplicates: Files whose content an earlier file of the source has too.
        known: Contents that had an embedding before this run.
        embedded: Contents that this run embedded.
        quarantined: Contents that cannot be used, from this run or earlier ones, and files that
            are too large to be read.
        newly_quarantined: Those of them that were not in the quarantine before.
        left: Contents whose file changed during the run, for the next run.
        seconds: Wall time of the run.
        timings: Where the time went; None if nothing was decoded in this process.
        views: Further views that this run embedded, also of known contents.
        machines: What each machine of a cluster did, by its name; empty if all was done here.
    """

    source: str
    files: int
    companions: int
    duplicates: int
    known: int
    embedded: int
    quarantined: int
    newly_quarantined: int
    left: int
    seconds: float
    timings: Timings | None = None
    views: int = 0
    machines: Mapping[str, MachineWork] = field(default_factory=dict)

    @property
    def images_per_second(self) -> float:
        """Images embedded per second of wall time."""
        return self.embedded / self.seconds if self.seconds else 0.0

    def followed_by(self, later: "EmbedReport") -> "EmbedReport":
        """Return the report of this run and a later one over the same source together."""
        return replace(
            later,
            known=self.known,
            embedded=self.embedded + later.embedded,
            newly_quarantined=self.newly_quarantined + later.newly_quarantined,
            seconds=self.seconds + later.seconds,
            timings=self.timings or later.timings,
            views=self.views + later.views,
            machines=self.machines or later.machines,
        )


@dataclass(frozen=True)
class EmbedOptions:
    """How to embed.

    Attributes:
        limits: Bounds for decoding one picture.
        workers: Number of decode processes; None means one per core.
        retry_quarantined: True to try quarantined images again.
        backend: Decodes and encodes elsewhere, such as on a Ray cluster, and adds up what each
            machine did; None means in this process and its decode workers.
        pool: Returns the decode workers of a run over many sources, which would otherwise start
            new ones for each; None starts them. It is called only if there is something to embed.
    """

    limits: Limits = field(default_factory=Limits)
    workers: int | None = None
    retry_quarantined: bool = False
    backend: Backend | None = None
    pool: Callable[[], DecodePool] | None = None


def update_embeddings(
    store: Store,
    source: Source,
    description: Description,
    load: Callable[[], Encoder],
    options: EmbedOptions | None = None,
    *,
    embedded: set[str] | None = None,
    tables: ViewTables | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> EmbedReport:
    """Embed the images of `source` whose content has no embedding yet in this vector space.

    Companions, such as the RAW file of a JPEG, are not embedded.

    Of images that have one, those further views are embedded that the source's settings ask for and
    that are missing. Parts are written as they fill, so that a run that ends early loses little.
    Images that cannot be used go to the quarantine table; they are tried again when the versions of
    the decoding software change, or with `options.retry_quarantined`.

    Args:
        store: Holds the manifest and receives the parts.
        source: The source whose images are embedded.
        description: The encoder's vector space and the input that it wants.
        load: Loads the encoder. Called only if there is something to embed, while the first images
            are being decoded.
        options: Limits, workers and the like; None means the defaults.
        embedded: What `embedded_ids` returned, for a run over many sources, which would otherwise
            read every part once for each source; gets the content ids that this call embeds.
        tables: What is stored of views, for a run over many sources too; gets the new ones.
        progress: Told of images and failures.
        stop: Ends the run when it is set; what is finished is kept.

    Raises:
        EncoderError: The model cannot be loaded, or its device failed; finished vectors are kept.
        WorkerError: No decode worker can be started; finished vectors are kept.
        StoreError: A table is damaged or cannot be written.
        Stopped: `stop` was set; finished vectors are published.
    """
    options = options or EmbedOptions()
    progress = progress or Quiet()
    started = time.monotonic()
    space = description.space
    large = read_manifest(store, source.name)["status"].to_pylist().count(Status.TOO_LARGE)
    grouped = read_grouped_files(store, space, source.name)
    paths = first_paths(grouped.files)
    if embedded is None:
        embedded = embedded_ids(store, space)
    known = embedded & paths.keys()
    tables = tables or ViewTables(store, description)
    missing = tables.missing(source.views, known)
    wanted = (paths.keys() - known) | missing.keys()
    quarantine = Quarantine.read(store, space, source.name, wanted)
    skipped = set() if options.retry_quarantined else quarantine.settled()
    wanted -= skipped
    todo = {content: path for content, path in paths.items() if content in wanted}
    # What failed before may take long, or end this run: all others come first.
    tried = quarantine.tried()
    todo = dict(sorted(todo.items(), key=lambda item: item[0] in tried))
    progress.start(f"embedding {source.name}", len(todo), "images")
    writer = PartWriter(store, space, source.name)
    results = _Results(source.name, todo, writer, quarantine, progress, stop, embedded, tables)
    jobs = (
        Job(source.path / to_path(path), content, missing.get(content, source.views))
        for content, path in todo.items()
    )
    timings = None
    machines: dict[str, MachineWork] = {}
    try:
        if todo and options.backend is not None:
            with contextlib.closing(options.backend(list(jobs), machines)) as batches:
                results.store(batches)
        elif todo:
            timings = _embed_here(jobs, description, load, options, results, started)
    finally:
        for name, work in machines.items():
            progress.note(f"{source.name}: {name} {work}")
        # Otherwise the next run reads these pictures' headers again.
        if results.facts:
            record_facts(store, source.name, results.facts)
    quarantine.publish()
    if results.changed:
        # Their sizes and times may be as before: then the crawl would not look at them again.
        distrust(store, source.name, results.changed)
    progress.finish()
    return EmbedReport(
        source=source.name,
        files=len(grouped.files) + len(grouped.companions.pictures) + large,
        companions=len(grouped.companions.pictures),
        duplicates=len(grouped.files) - len(paths),
        known=len(known),
        embedded=writer.count,
        # A known image whose views failed stays an image that can be found.
        quarantined=len(quarantine.tried() - known) + large,
        newly_quarantined=quarantine.added,
        left=len(results.changed - {paths[content] for content in missing}),
        seconds=time.monotonic() - started,
        timings=timings,
        views=writer.views,
        machines=machines,
    )


def _embed_here(
    jobs: Iterable[Job],
    description: Description,
    load: Callable[[], Encoder],
    options: EmbedOptions,
    results: "_Results",
    started: float,
) -> Timings:
    """Decode in worker processes and encode on threads of this process; return the timings."""
    with contextlib.ExitStack() as stack:
        if options.pool is not None:
            pool = options.pool()
        else:
            own = DecodePool(description.transform, options.limits, options.workers)
            pool = stack.enter_context(own)
        outcomes = (outcome for _, outcome in pool.map(jobs, waiting=results.wait))
        encoder = load()
        if encoder.gpu is not None:
            pool.use_device(encoder.gpu)
        threads = EncodeThreads(encoder)
        batches = threads.map(outcomes, len(results.todo))
        loaded, done_before = time.monotonic(), pool.work
        results.store(batches)
        return Timings(
            loading=loaded - started,
            elapsed=time.monotonic() - loaded,
            decode=pool.work - done_before,
            encode=threads.work,
            writing=results.writer.seconds,
            cores=available_cores(),
            efficiency=threads.efficiency,
        )


@dataclass
class _Results:
    """Writes each result to a part or the quarantine, or leaves it for the next run.

    Attributes:
        source: Name of the source.
        todo: Content id -> an example path, in the order in which the results come.
        writer: Collects vectors and publishes them as parts.
        quarantine: Collects the images that cannot be used.
        progress: Told of images and failures.
        stop: Ends the run when it is set.
        embedded: Gets the content ids that are embedded.
        tables: Gets the views that are embedded.
        changed: Paths of images that changed since they were listed, for the next run.
        facts: Content id -> what the metadata of the image hold, for images that are embedded.
    """

    source: str
    todo: Mapping[str, str]
    writer: PartWriter
    quarantine: Quarantine
    progress: Progress
    stop: threading.Event | None
    embedded: set[str]
    tables: ViewTables
    changed: set[str] = field(default_factory=set)
    facts: dict[str, PictureFacts] = field(default_factory=dict)

    def store(self, batches: Iterable[Sequence[Result]]) -> None:
        """Collect the results of all batches; publish them from time to time and at the end.

        Raises:
            EncoderError: Raised by `batches`; earlier results are published.
            WorkerError: Raised by `batches`; earlier results are published.
            Stopped: `stop` was set; earlier results are published.
        """
        contents = iter(self.todo)
        try:
            for batch in batches:
                for content, result in zip(islice(contents, len(batch)), batch, strict=True):
                    self._put(content, result)
                self.progress.advance(len(batch))
                if self.writer.is_due():
                    self._publish()
                self._check_stop()
        except (EncoderError, WorkerError):
            self._publish()
            raise
        self._publish()

    def wait(self, jobs: Sequence[Job]) -> None:
        """Put images that take long to decode into the quarantine, until they are decoded.

        Should the run end before that, however that may be, they are decided, and come last in the
        next one.

        Raises:
            Stopped: The run is to end.
        """
        for job in jobs:
            assert job.content_id is not None
            self.quarantine.add_unfinished(job.content_id, self.todo[job.content_id])
        self.quarantine.publish()
        self._check_stop()

    def _check_stop(self) -> None:
        if self.stop is not None and self.stop.is_set():
            self._publish()
            raise Stopped(
                f"stopped while embedding {self.source}: {self.writer.count} images are kept"
            )

    def _put(self, content: str, result: Result) -> None:
        if isinstance(result, Embedded):
            self.quarantine.discard(content)
            self.writer.add(content, result)
            if result.facts is not None:
                self.facts[content] = result.facts
            self.embedded.add(content)
            self.tables.add(content, result.views)
        elif isinstance(result, ImageError):
            path = self.todo[content]
            self.quarantine.add(content, path, result)
            self.progress.note(f"{self.source}/{path}: {result}")
        else:
            self.quarantine.discard(content)
            self.changed.add(self.todo[content])

    def _publish(self) -> None:
        self.writer.publish()
        self.quarantine.publish()


def embedded_ids(store: Store, space: VectorSpace) -> set[str]:
    """Return the content ids that have an embedding in `space`, from any source.

    Raises:
        StoreError: A part is damaged.
    """
    schema = embedding_schema(space.dim)
    return {
        content
        for part in store.parts(space)
        for content in read_table(part, schema, ["content_id"])["content_id"].to_pylist()
    }


def damaged_ids(store: Store, space: VectorSpace) -> set[str]:
    """Return the content ids that were embedded although the end of the picture is missing.

    Raises:
        StoreError: A part is damaged.
    """
    schema = embedding_schema(space.dim)
    tables = [read_table(part, schema, ["content_id", "format"]) for part in store.parts(space)]
    return {
        content
        for table in tables
        for content in table.filter(pc.ends_with(table["format"].cast("string"), DAMAGED))[
            "content_id"
        ].to_pylist()
    }


def first_paths(manifest: pa.Table) -> dict[str, str]:
    """Return content id -> the first path that holds it, in the order of the manifest."""
    paths: dict[str, str] = {}
    columns = (manifest[name].to_pylist() for name in ("content_id", "path"))
    for content, path in zip(*columns, strict=True):
        paths.setdefault(content, path)
    return paths
