"""What looks outside Dagster for news: the directories, the settings, and the votes of people.

All that has changed becomes one run; none is asked for while another is on its way. A run that
failed is asked for again, after waits that grow.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field

import dagster as dg
from blake3 import blake3
from pydantic import BaseModel, ValidationError

from retrieval_pipeline.config.settings import Settings, Source
from retrieval_pipeline.errors import RetrievalError, SourceError
from retrieval_pipeline.ingest.manifest import FileRow
from retrieval_pipeline.ingest.walk import Beside, walk
from retrieval_pipeline.orchestration.checks import whole_source
from retrieval_pipeline.orchestration.flow import BACKGROUND, Flow
from retrieval_pipeline.orchestration.reindex import REFUSED_TAG, request
from retrieval_pipeline.paths import printable
from retrieval_pipeline.recommend.votes import recommender_names
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.remote import Remote
from retrieval_pipeline.storage.store import Store

# Dagster gives a sensor 60 seconds: no listing begins after the first, nor takes longer than the
# second. What was not looked at is looked at first next time.
LAST_START_SECONDS, LISTING_SECONDS = 15.0, 40.0
# After a run that failed: the wait before the next try, doubled each time, and the longest wait.
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 60.0, 3600.0
# Observations that one look reads; the rest waits for the next.
MOST_TOLD = 10_000


class Asked(BaseModel):
    """The last run that the sensor has asked for.

    Attributes:
        number: Counts the runs, so that each has a key of its own.
        sources: What it was to look at; empty means all sources.
        tries: How often the same was asked for.
        open: False once it is known how the run ended.
    """

    number: int = 0
    sources: list[str] = []
    tries: int = 1
    open: bool = False


class Listing(BaseModel):
    """A directory that is being listed, or was; a long one goes on in the next look.

    Attributes:
        digest: Of the paths, sizes and times of its pictures and sidecars so far, in hexadecimal.
            It does not depend on where the looks ended.
        after: Path of the last picture that was listed, at which the next look goes on.
    """

    digest: str = ""
    after: str = ""


class Cursor(BaseModel):
    """What the sensor remembers between two looks.

    Attributes:
        listings: What the directory of each source looked like when a run was asked for, by name.
        away: Sources that could not be listed the last time.
        settings: What the settings asked of an index: sources, model and the like.
        asked: The last run.
        votes: Data version of each recommender's table.
        begun: Listings that take several looks.
        last: The source that was looked at last.
        told: Number of the last observation of manifests that was read.
    """

    listings: dict[str, str] = {}
    begun: dict[str, Listing] = {}
    away: set[str] = set()
    told: int = 0
    settings: str = ""
    asked: Asked = Asked()
    votes: dict[str, str] = {}
    last: str = ""


def listed(source: Source, store: Store, begun: Listing) -> tuple[Listing, bool]:
    """List a source's pictures and sidecars from where the last look ended; open no file.

    Returns:
        What is listed now, and whether that is all.

    Raises:
        SourceError: The directory cannot be listed, or a part of it that cannot be divided takes
            too long.
    """
    started = time.monotonic()
    digest, beside = bytes.fromhex(begun.digest), Beside()

    def add(rows: Iterable[FileRow]) -> None:
        nonlocal digest
        for row in rows:
            told = f"{row.path}\0{row.size}\0{row.mtime_ns}\0{row.status}\n".encode()
            digest = blake3(digest + told).digest(length=16)

    first = ""
    for row in walk(source, store.home, beside, begun.after):
        add([*beside.companions, row])
        beside.companions.clear()
        if time.monotonic() - started > LISTING_SECONDS:
            if isinstance(source.path, Remote) or not first:
                raise SourceError(
                    f'source "{source.name}": listing {source.path} takes longer than '
                    f"{LISTING_SECONDS:.0f} s: set `watch = false` for it; the schedule indexes it"
                )
            return Listing(digest=digest.hex(), after=row.path), False
        first = first or row.path
    add(beside.companions)
    return Listing(digest=digest.hex()), True


@dataclass
class Look:
    """What one look at the directories found.

    Attributes:
        listings: What each directory that could be listed looks like, by the source's name.
        begun: Those that will be listed further in the next looks.
        problems: One line for each that could not be, by the source's name.
        last: The source that was looked at last.
    """

    listings: dict[str, str] = field(default_factory=dict)
    begun: dict[str, Listing] = field(default_factory=dict)
    problems: dict[str, SourceError] = field(default_factory=dict)
    last: str = ""


def look_at_sources(
    sources: Sequence[Source], store: Store, last: str, begun: Mapping[str, Listing]
) -> Look:
    """List the directories of these sources, beginning after the one that was the last before.

    When the time is up, the rest waits for the next look, which begins there. `begun` are the
    listings that former looks did not end.
    """
    started = time.monotonic()
    names = [source.name for source in sources]
    start = names.index(last) + 1 if last in names else 0
    look = Look(begun={name: each for name, each in begun.items() if name in names}, last=last)
    for source in [*sources[start:], *sources[:start]]:
        if time.monotonic() - started > LAST_START_SECONDS:
            break
        look.last = source.name
        if source.queue:
            # Looked at once, and again if another queue tells of it.
            look.listings[source.name] = source.queue
            continue
        try:
            listing, is_all = listed(source, store, look.begun.pop(source.name, Listing()))
        except SourceError as error:
            look.problems[source.name] = error
            continue
        if is_all:
            look.listings[source.name] = listing.digest
        else:
            look.begun[source.name] = listing
    return look


def wanted(settings: Settings) -> str:
    """Hash what the settings ask of an index: with another, all sources are looked at again."""
    model = (settings.model, settings.revision, settings.precision)
    asked = json.dumps([settings.source_names, model, settings.index.model_dump(mode="json")])
    return blake3(asked.encode()).hexdigest(length=16)


def new_votes(store: Store, names: Sequence[str], cursor: Cursor) -> dict[str, str]:
    """Return the data version of each recommender's table that changed since the last look."""
    versions = {
        name: content_id_of_file(store.judgements(name))
        for name in names
        if store.judgements(name).exists()
    }
    return {name: each for name, each in versions.items() if cursor.votes.get(name) != each}


@dataclass(frozen=True)
class Told:
    """What others have told since the last look: a webhook, or a program that hears of changes.

    They report an observation of the manifest of a source, as Dagster's web server takes it
    (docs.dagster.io, "External assets REST API").

    Attributes:
        sources: Names of the sources, also of some that are not in the settings.
        everything: True if an observation names no source.
        last: Number of the last observation.
    """

    sources: Set[str]
    everything: bool
    last: int


def what_was_told(instance: dg.DagsterInstance, manifests: dg.AssetKey, after: int) -> Told:
    """Return what observations of these manifests tell that came after the one of that number."""
    wanted = dg.AssetRecordsFilter(manifests, after_storage_id=after)
    records = instance.fetch_observations(wanted, limit=MOST_TOLD, ascending=True).records
    partitions = {each.partition_key for each in records}
    last = records[-1].storage_id if records else after
    return Told({name for name in partitions if name}, None in partitions, last)


def last_run(instance: dg.DagsterInstance, key: str) -> dg.RunRecord | None:
    """Return the run that was asked for with a run key, or the last try to repeat it."""
    records = instance.get_run_records(dg.RunsFilter(tags={"dagster/run_key": key}), limit=1)
    return records[0] if records else None


def build_watch_sensor(
    flow: Flow,
    settings: Settings,
    by_source: dg.PartitionsDefinition[str],
    by_query: dg.PartitionsDefinition[str],
    by_recommender: dg.PartitionsDefinition[str],
    job: dg.JobDefinition,
) -> dg.SensorDefinition:
    """Return the sensor that starts one run of `job` over all directories that have changed."""

    @dg.sensor(
        job=job,
        name=flow.named("watch"),
        minimum_interval_seconds=settings.schedule.watch_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        required_resource_keys=flow.resources,
        description="Looks at the directories, opening no file, at the settings and the votes.",
    )
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        # Settings that cannot be read fail the tick: they are not an empty list of sources.
        library = flow.library(context)
        try:
            settings = library.settings
        except RetrievalError as error:
            raise dg.Failure(str(error)) from None
        store = Store(settings.home)
        cursor = _read_cursor(context.cursor)
        look = look_at_sources(
            [each for each in settings.sources if each.watch], store, cursor.last, cursor.begun
        )
        # A directory that was away is looked at when it is back, whatever was remembered of it.
        known = {
            name: listing
            for name, listing in cursor.listings.items()
            if name in settings.source_names and name not in look.problems
        }
        told = what_was_told(context.instance, flow.key("file_manifest"), cursor.told)
        listed = {name for name, each in look.listings.items() if known.get(name) != each}
        changed = sorted(listed | (told.sources & set(settings.source_names)))
        edited = cursor.settings not in ("", wanted(settings))
        everything = (edited or told.everything) and bool(settings.sources)
        plan = _plan(context.instance, flow, cursor.asked, changed, everything=everything)
        if plan.requests:
            known |= {name: look.listings[name] for name in listed}
        votes = new_votes(store, recommender_names(store), cursor)
        notes = [*map(str, look.problems.values())]
        notes += [
            f'source "{name}": listed as far as {printable(each.after)}'
            for name, each in look.begun.items()
        ]
        notes += _unknown("source", settings.source_names, by_source)
        notes += _unknown("saved query", [each.name for each in settings.saved_queries], by_query)
        notes += _unknown("recommender", recommender_names(store), by_recommender)
        for note in [*notes, *plan.notes]:
            context.log.warning(note)
        remembered = Cursor(
            listings=known,
            away=(cursor.away - look.listings.keys()) | look.problems.keys(),
            settings=wanted(settings) if plan.requests or not cursor.settings else cursor.settings,
            asked=plan.asked,
            votes={**cursor.votes, **votes},
            begun=look.begun,
            last=look.last,
            told=told.last if plan.requests or not changed else cursor.told,
        )
        quiet = "; ".join([*notes, *plan.notes]) or "nothing has changed"
        return dg.SensorResult(
            run_requests=plan.requests,
            asset_events=[*_checks(flow, cursor, look), *_cast(flow, votes)],
            cursor=remembered.model_dump_json(),
            skip_reason=None if plan.requests else dg.SkipReason(quiet),
        )

    return watch


@dataclass(frozen=True)
class _Plan:
    requests: list[dg.RunRequest]
    asked: Asked
    notes: list[str]


def _plan(
    instance: dg.DagsterInstance,
    flow: Flow,
    asked: Asked,
    changed: Sequence[str],
    *,
    everything: bool,
) -> _Plan:
    """Decide whether to ask for a run now, and over which sources; `everything` means all."""
    again: list[str] | None = None
    if asked.open and (record := last_run(instance, _run_key(flow, asked.number))):
        run = record.dagster_run
        if not run.is_finished:
            return _Plan([], asked, [f"run {run.run_id[:8]} is on its way"])
        # What sources were refused for, only people can mend: `source_is_whole` tells them.
        if run.status is dg.DagsterRunStatus.FAILURE and REFUSED_TAG not in run.tags:
            wait = min(FIRST_WAIT_SECONDS * 2 ** (asked.tries - 1), LONGEST_WAIT_SECONDS)
            left = (record.end_time or 0.0) + wait - time.time()
            if left > 0:
                note = f"run {run.run_id[:8]} failed: its sources are tried again in {left:.0f} s"
                return _Plan([], asked, [note])
            again = asked.sources
    if again is None and not changed and not everything:
        return _Plan([], asked.model_copy(update={"open": False}), [])
    sources = [] if everything or again == [] else sorted({*changed, *(again or ())})
    now = Asked(
        number=asked.number + 1,
        sources=sources,
        tries=1 if again is None else asked.tries + 1,
        open=True,
    )
    key = _run_key(flow, now.number)
    return _Plan([request(sources, flow, run_key=key, tags=BACKGROUND)], now, [])


def _run_key(flow: Flow, number: int) -> str:
    return f"{flow.named('watch')} {number}"


def _unknown(
    what: str, names: Sequence[str], partitions: dg.PartitionsDefinition[str]
) -> list[str]:
    """Say which names the definitions do not know yet: their pages show after a reload."""
    known = set(partitions.get_partition_keys())
    new = [name for name in names if name not in known]
    listed = ", ".join(new[:5]) + (f" and {len(new) - 5} more" if len(new) > 5 else "")
    return [f"new since the definitions were loaded, reload them: {what} {listed}"] if new else []


def _checks(flow: Flow, cursor: Cursor, look: Look) -> list[dg.AssetCheckEvaluation]:
    """Return the check of each source that went away since the last look.

    The run that looks at it when it is back says so.
    """
    return [
        whole_source(flow, name, error)
        for name, error in look.problems.items()
        if name not in cursor.away
    ]


def _cast(flow: Flow, votes: dict[str, str]) -> list[dg.AssetObservation]:
    """Return the event of each table of votes that people have added to."""
    return [
        dg.AssetObservation(
            flow.key("judgements"), partition=name, tags={"dagster/data_version": version}
        )
        for name, version in votes.items()
    ]


def _read_cursor(text: str | None) -> Cursor:
    """Return what was remembered; a cursor of another version is as good as none."""
    try:
        return Cursor.model_validate_json(text or "{}")
    except ValidationError:
        return Cursor()
