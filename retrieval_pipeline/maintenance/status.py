"""The status: what is indexed, by which model, when it was last looked at, and what failed."""

import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, GetPydanticSchema, PlainSerializer
from pydantic_core import core_schema

from retrieval_pipeline.config.settings import Settings, Source
from retrieval_pipeline.encoders.catalogue import languages_of
from retrieval_pipeline.encoders.from_settings import precision_line
from retrieval_pipeline.errors import BuildError, EngineError
from retrieval_pipeline.facts.grouped_files import read_grouped_files
from retrieval_pipeline.facts.summary import FactsSummary, most_frequent, summary_of
from retrieval_pipeline.images.errors import Reason
from retrieval_pipeline.index.build import facts_of
from retrieval_pipeline.index.build_info import BuildInfo, read_info
from retrieval_pipeline.index.milvus.schema import PublishedInfo
from retrieval_pipeline.ingest.embed import damaged_ids, embedded_ids
from retrieval_pipeline.ingest.manifest import Status, read_not_looked_at
from retrieval_pipeline.ingest.missing_views import stored_views
from retrieval_pipeline.paths import to_text
from retrieval_pipeline.search.labels import read_labels
from retrieval_pipeline.storage.albums import album_names, read_album
from retrieval_pipeline.storage.remote import Place
from retrieval_pipeline.storage.schemas import FACTS
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_facts, read_manifest, read_quarantine
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline.views import View

# A path as text: some are on other machines.
AnyPlace = Annotated[Place, PlainSerializer(lambda place: to_text(str(place)), return_type=str)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class SourceStatus(_Model):
    """One source, as it was at its last crawl.

    Attributes:
        name: The source's name.
        path: Its directory.
        reachable: Whether the directory is there now.
        files: Number of files with a content id that are no companions, and of files that are too
            large.
        images: Number of different content ids of these, and of files that are too large.
        companions: Number of files that are shown with another one, by what they are to it
            (`facts.groups.Kind`).
        bytes: Sum of the files' sizes.
        embedded: Content ids with an embedding in the vector space of the settings.
        damaged: How many of them have a file that lacks the end of its picture.
        views: Further vectors of parts of these pictures.
        pending: Content ids that the next run will try to embed.
        quarantined: Number of content ids that could not be embedded, by reason.
        unreadable: Number of files and directories that could not be read.
        not_looked_at: Number of other files by extension, the most frequent first; "" for names
            without one.
        crawled_at: When the source was last looked at; None before the first time.
    """

    name: str
    path: AnyPlace
    reachable: bool
    files: int
    images: int
    companions: dict[str, int]
    bytes: int
    embedded: int
    damaged: int
    views: int
    pending: int
    quarantined: dict[str, int]
    unreadable: int
    not_looked_at: dict[str, int]
    crawled_at: datetime | None


# Taken without a look into its type, whose parts would get into the JSON schema of the web's API.
_AS_IT_IS = GetPydanticSchema(lambda source, handler: core_schema.any_schema())


def _build_name(build: Path | None) -> str | None:
    return build.name if build else None


def _without_files(index: BuildInfo | PublishedInfo | None) -> dict[str, Any] | None:
    return index.model_dump(mode="json", exclude={"files"}) if index else None


class LibraryStatus(_Model):
    """Everything that `retrieval status` shows; its JSON is what `--json` prints.

    Attributes:
        home: Directory of the tables and builds.
        model: The model of the settings.
        languages: In which that model understands queries; None if that is not known.
        build: Directory of the current build; its name in JSON.
        index: The facts about the current build.
        recall_at_10: Share of the true ten nearest items that a query finds.
        precision: In which number format pictures are encoded, and why.
        problem: Why the build cannot be used, or does not fit the settings.
        sources: Of the settings.
        facts: When and with what the pictures of these sources were taken.
        towns: Pictures of the index at its most frequent towns, such as "Lisbon, PT".
        countries: Pictures of the index in its most frequent countries (ISO 3166-1 alpha-2).
        albums: Pictures of each album, those that left the index included.
        labels: Pictures that each word of `retrieval label` marks.
    """

    home: AnyPlace
    model: str
    languages: str | None
    precision: str
    build: Annotated[Path | None, PlainSerializer(_build_name, return_type=str | None)]
    index: Annotated[
        BuildInfo | PublishedInfo | None,
        _AS_IT_IS,
        PlainSerializer(_without_files, return_type=dict[str, Any] | None),
    ]
    recall_at_10: float | None
    problem: str | None
    sources: tuple[SourceStatus, ...]
    facts: FactsSummary
    towns: Mapping[str, int]
    countries: Mapping[str, int]
    albums: Mapping[str, int]
    labels: Mapping[str, int]


def read_status(settings: Settings, space: VectorSpace) -> LibraryStatus:
    """Read the state of every source in `space` and of the current build.

    Raises:
        StoreError: A table is damaged.
    """
    store = Store(settings.home)
    # First, since it refuses a directory that is no home.
    build = store.current_build()
    published, away = None, None
    if settings.has_engine:
        from retrieval_pipeline.pipeline.engine import answering

        try:
            published = answering(settings)
        except EngineError as error:
            away = str(error)
        build = None if published is None else Path(published.info.build)
    embedded, damaged = embedded_ids(store, space), damaged_ids(store, space)
    views = stored_views(store, space)
    sources = tuple(
        _source_status(store, space, source, embedded, damaged, views)
        for source in settings.sources
    )
    tables = [read_facts(store, source.name) for source in settings.sources]
    tables.append(FACTS.empty_table())
    info: BuildInfo | PublishedInfo | None = None
    problem = None
    towns: dict[str, int] = {}
    countries: dict[str, int] = {}
    if away is not None:
        problem = away
    elif build is None:
        problem = "nothing is indexed yet: run `retrieval index`"
    else:
        try:
            if published is not None:
                from retrieval_pipeline.pipeline.engine import published_facts

                info, known = published.info, published_facts(settings, published)
            else:
                info = read_info(build)
                known = facts_of(build, info)
            if known is not None:
                towns, countries = _places(known)
        except BuildError as error:
            problem = str(error)
        else:
            if info.space != space:
                problem = (
                    f"the index answers with {info.model}; the settings now name {space.model}: "
                    "`retrieval index` makes the change"
                )
    return LibraryStatus(
        home=settings.home,
        model=space.model,
        languages=languages_of(space.model),
        precision=precision_line(settings),
        build=build,
        index=info,
        recall_at_10=info.recall_at_10 if info else None,
        problem=problem,
        sources=sources,
        facts=summary_of(pa.concat_tables(tables)),
        towns=towns,
        countries=countries,
        albums={name: len(read_album(store, name)) for name in album_names(store)},
        labels={} if (labels := read_labels(store)) is None else labels.counts,
    )


def _places(facts: pa.Table) -> tuple[dict[str, int], dict[str, int]]:
    """Return how many rows of a table of facts are at the most frequent towns, and countries."""
    town, country = (facts[name].cast(pa.string()) for name in ("place", "country"))
    return (
        most_frequent(pc.binary_join_element_wise(town, country, ", ")),
        most_frequent(country),
    )


def _source_status(
    store: Store,
    space: VectorSpace,
    source: Source,
    embedded: set[str],
    damaged: set[str],
    views: Mapping[str, set[View]],
) -> SourceStatus:
    manifest = read_manifest(store, source.name)
    grouped = read_grouped_files(store, space, source.name)
    files = grouped.files
    kinds = Counter(each.kind.value for many in grouped.companions.of.values() for each in many)
    contents = set(files["content_id"].to_pylist())
    statuses = Counter(manifest["status"].to_pylist())
    large = manifest.filter(pc.equal(manifest["status"], Status.TOO_LARGE.value))
    quarantine = read_quarantine(store, space, source.name).to_pylist()
    # An embedded image whose views failed can be found.
    failed = contents - embedded
    reasons = Counter(row["reason"] for row in quarantine if row["content_id"] in failed)
    reasons += Counter({Reason.TOO_LARGE.value: len(large)})
    path = store.manifest(source.name)
    done = len(contents & embedded)
    return SourceStatus(
        name=source.name,
        path=source.path,
        reachable=source.path.is_dir(),
        files=len(files) + len(large),
        images=len(contents) + len(large),
        companions=dict(kinds.most_common()),
        # Sparse files can be so large that the sum of two exceeds the 64 bits of Arrow's sum.
        bytes=sum(files["size"].to_pylist()) + sum(large["size"].to_pylist()),
        embedded=done,
        damaged=len(contents & damaged),
        views=sum(len(found) for content, found in views.items() if content in contents),
        pending=len(contents) + len(large) - done - reasons.total(),
        quarantined=dict(reasons.most_common()),
        unreadable=statuses[Status.UNREADABLE] + statuses[Status.CHANGING],
        not_looked_at=dict(Counter(read_not_looked_at(store, source.name)).most_common()),
        crawled_at=datetime.fromtimestamp(path.stat().st_mtime, UTC) if path.exists() else None,
    )


def search_line(info: BuildInfo | PublishedInfo) -> str:
    """Say how an index is searched, what that finds, and on what it was tried."""
    if isinstance(info, PublishedInfo):
        return (
            f"by an engine: {info.items + info.views:,} rows, {info.index_type}, "
            f"shards {info.shards}, recall@10 {info.recall_at_10:.3f}"
        )
    calibration = info.calibration
    line = f"{calibration.plan}, recall@10 {calibration.recall_at_10:.3f}"
    if calibration.plan.kind == "codes":
        line = f"{line} (where many queries are asked, with faiss; else the projected scan)"
    if not calibration.image_queries:
        return line
    chosen = next(each for each in calibration.measured if each.plan == calibration.plan)
    tried = f"{calibration.image_queries} pictures, {calibration.text_queries} texts"
    return f"{line}, {chosen.p50_ms:.1f} ms (measured with {tried})"


def status_json(status: LibraryStatus) -> str:
    """Return the JSON of `retrieval status --json`."""
    return json.dumps(status.model_dump(), indent=2, default=datetime.isoformat)
