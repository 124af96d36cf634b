"""What looks outside Dagster for news: the directories, and the votes that people cast."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import dagster as dg
from blake3 import blake3
from pydantic import BaseModel, ValidationError

from retrieval_pipeline.config.settings import Settings, Source
from retrieval_pipeline.errors import RetrievalError, SourceError
from retrieval_pipeline.ingest.walk import Beside, walk
from retrieval_pipeline.orchestration.resources import LibraryResource
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.store import Store

if TYPE_CHECKING:
    from retrieval_pipeline.orchestration.jobs import AssetJob

# Dagster gives a sensor 60 seconds: no listing begins after the first, nor takes longer than the
# second. What was not looked at is looked at first next time.
LAST_START_SECONDS, LISTING_SECONDS = 15.0, 40.0


class Seen(BaseModel):
    """What a directory looked like, and how often that has changed."""

    listing: str
    changes: int


class Cursor(BaseModel):
    """What the sensor remembers between two looks.

    Attributes:
        sources: By name.
        votes: Data version of each recommender's table.
        last: The source that was looked at last.
    """

    sources: dict[str, Seen] = {}
    votes: dict[str, str] = {}
    last: str = ""


def listing_hash(source: Source, store: Store) -> str:
    """Hash the paths, sizes and times of a source's pictures and sidecars; no file is opened.

    Raises:
        SourceError: The directory cannot be listed, or takes too long.
    """
    started = time.monotonic()
    digest = blake3()
    beside = Beside()
    for row in chain(walk(source, store.home, beside), beside.companions):
        digest.update(f"{row.path}\0{row.size}\0{row.mtime_ns}\0{row.status}\n".encode())
        if time.monotonic() - started > LISTING_SECONDS:
            raise SourceError(
                f'source "{source.name}": listing {source.path} takes longer than '
                f"{LISTING_SECONDS:.0f} s: set `watch = false` for it; the schedule indexes it"
            )
    return digest.hexdigest(length=16)


@dataclass(frozen=True)
class Look:
    """What one look at the directories found.

    Attributes:
        changed: Sources that differ from the last look.
        problems: One line for each that could not be looked at.
        cursor: What to remember.
    """

    changed: list[str]
    problems: list[str]
    cursor: Cursor


def look_at_sources(sources: Sequence[Source], store: Store, cursor: Cursor) -> Look:
    """Compare the directories with what the cursor remembers.

    A directory that cannot be listed is a problem, never a change; one that was never seen is.
    When the time is up, the rest waits for the next look, which begins there.
    """
    started = time.monotonic()
    names = [source.name for source in sources]
    start = names.index(cursor.last) + 1 if cursor.last in names else 0
    seen = {name: each for name, each in cursor.sources.items() if name in names}
    changed, problems, last = [], [], cursor.last
    for source in [*sources[start:], *sources[:start]]:
        if time.monotonic() - started > LAST_START_SECONDS:
            break
        last = source.name
        former = seen.get(source.name)
        try:
            listing = listing_hash(source, store)
        except SourceError as error:
            problems.append(str(error))
            continue
        if former is None or former.listing != listing:
            changed.append(source.name)
            changes = former.changes + 1 if former else 1
            seen[source.name] = Seen(listing=listing, changes=changes)
    return Look(changed, problems, Cursor(sources=seen, votes=cursor.votes, last=last))


def new_votes(store: Store, names: Sequence[str], cursor: Cursor) -> dict[str, str]:
    """Return the data version of each recommender's table that changed since the last look."""
    versions = {
        name: content_id_of_file(store.judgements(name))
        for name in names
        if store.judgements(name).exists()
    }
    return {name: each for name, each in versions.items() if cursor.votes.get(name) != each}


def build_watch_sensor(
    settings: Settings,
    by_source: dg.PartitionsDefinition[str],
    by_recommender: dg.PartitionsDefinition[str],
    job: "AssetJob",
) -> dg.SensorDefinition:
    """Return the sensor that starts `job` for each directory that has changed."""

    @dg.sensor(
        job=job,
        name="watch",
        minimum_interval_seconds=settings.schedule.watch_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Looks at the directories, opening no file, and at the votes.",
    )
    def watch(context: dg.SensorEvaluationContext, library: LibraryResource) -> dg.SensorResult:
        # Settings that cannot be read fail the tick: they are not an empty list of sources.
        try:
            settings = library.settings
        except RetrievalError as error:
            raise dg.Failure(str(error)) from None
        known = set(by_source.get_partition_keys())
        sources = [each for each in settings.sources if each.watch and each.name in known]
        unknown = [each.name for each in settings.sources if each.name not in known]
        cursor = _read_cursor(context.cursor)
        look = look_at_sources(sources, library.store, cursor)
        problems = look.problems + [
            f'source "{name}" is new in the settings: reload the definitions' for name in unknown
        ]
        for problem in problems:
            context.log.warning(problem)
        votes = new_votes(library.store, by_recommender.get_partition_keys(), cursor)
        requests = [
            dg.RunRequest(
                run_key=f"{name}:{look.cursor.sources[name].changes}"
                f":{look.cursor.sources[name].listing}",
                partition_key=name,
            )
            for name in look.changed
        ]
        observed = [
            dg.AssetObservation(
                "judgements", partition=name, tags={"dagster/data_version": version}
            )
            for name, version in votes.items()
        ]
        remembered = look.cursor.model_copy(update={"votes": {**cursor.votes, **votes}})
        quiet = "; ".join(problems) or "nothing has changed"
        return dg.SensorResult(
            run_requests=requests,
            asset_events=observed,
            cursor=remembered.model_dump_json(),
            skip_reason=None if requests else dg.SkipReason(quiet),
        )

    return watch


def _read_cursor(text: str | None) -> Cursor:
    """Return what was remembered; a cursor of another version is as good as none."""
    try:
        return Cursor.model_validate_json(text or "{}")
    except ValidationError:
        return Cursor()
