"""Asset checks: what must hold of tables, index and map, and what people should have a look at.

Those of the runs themselves are made before a file is replaced: a run whose blocking check fails
publishes nothing. They speak of the sources of that run; `is_fresh` looks at all of them.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import SourceError
from retrieval_pipeline.index.build import Check
from retrieval_pipeline.index.items import as_matrix
from retrieval_pipeline.ingest.embed import EmbedReport
from retrieval_pipeline.latent_map.coordinates import MapInfo
from retrieval_pipeline.orchestration.resources import LibraryResource
from retrieval_pipeline.storage.parts import PICTURES, VIEWS
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_table
from retrieval_pipeline.vectors import VectorSpace, check_vectors

# Often enough for an age in hours; each time is a run in the list.
_IS_DUE: dg.AutomationCondition[dg.AssetCheckKey] = dg.AutomationCondition.cron_tick_passed(
    "0 */6 * * *"
)

SOURCE_IS_WHOLE = dg.AssetCheckSpec(
    "source_is_whole",
    asset="file_manifest",
    blocking=True,
    description="The directory is there, can be listed, and has not lost most of its files.",
)
VECTORS_ARE_UNIT = dg.AssetCheckSpec(
    "vectors_are_unit",
    asset="image_embeddings",
    blocking=True,
    description="What was stored is finite and of unit length, read back from the disk.",
)
FEW_ARE_QUARANTINED = dg.AssetCheckSpec(
    "few_are_quarantined",
    asset="image_embeddings",
    description="No more images than `checks.max_quarantined` of a source cannot be used.",
)
ROWS_AGREE = dg.AssetCheckSpec(
    "rows_agree",
    asset="retrieval_index",
    blocking=True,
    description="The index holds each embedded image of the manifests once, with all its files.",
)
RECALL_IS_ENOUGH = dg.AssetCheckSpec(
    "recall_is_enough",
    asset="retrieval_index",
    blocking=True,
    description="A new index finds `index.recall` of the true ten nearest, with fresh queries.",
)
MAP_IS_STEADY = dg.AssetCheckSpec(
    "map_is_steady",
    asset="latent_map",
    description="Images moved by no more than `checks.max_drift` of the former map's size.",
)


def whole_sources(seen: Sequence[str], failed: Mapping[str, SourceError]) -> dg.AssetCheckResult:
    """Judge a crawl of these sources."""
    return dg.AssetCheckResult(
        check_name=SOURCE_IS_WHOLE.name,
        passed=not failed,
        metadata={"whole": list(seen), **{name: str(error) for name, error in failed.items()}},
    )


def stored_vectors(parts: Sequence[Path], space: VectorSpace) -> int:
    """Read embedding parts and parts of views back, and return how many vectors they hold.

    Raises:
        StoreError: A part is damaged.
        VectorError: A vector is not finite or not of unit length.
    """
    rows = 0
    for part in parts:
        schema = VIEWS.schema if VIEWS.names.fullmatch(part.name) else PICTURES.schema
        column = read_table(part, schema(space.dim), ["embedding"])["embedding"]
        rows += len(check_vectors(as_matrix(column, space.dim), space.dim, f"{part}: vector"))
    return rows


def unit_vectors(passed: bool, found: str) -> dg.AssetCheckResult:
    """Say what was found of the vectors that a run has stored."""
    return dg.AssetCheckResult(
        check_name=VECTORS_ARE_UNIT.name, passed=passed, metadata={"found": found}
    )


def few_quarantined(settings: Settings, reports: Sequence[EmbedReport]) -> dg.AssetCheckResult:
    """Judge how many images of each source cannot be used."""
    shares = {
        report.source: report.quarantined / max(report.files - report.duplicates, 1)
        for report in reports
    }
    return dg.AssetCheckResult(
        check_name=FEW_ARE_QUARANTINED.name,
        passed=max(shares.values(), default=0.0) <= settings.checks.max_quarantined,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={source: round(share, 4) for source, share in shares.items()},
    )


def build_checks(checks: Sequence[Check]) -> Iterator[dg.AssetCheckResult]:
    """Yield what was found when a build was made."""
    made = {check.name: check for check in checks}
    for spec in (ROWS_AGREE, RECALL_IS_ENOUGH):
        check = made.get(spec.name)
        yield dg.AssetCheckResult(
            check_name=spec.name,
            passed=check is not None and check.passed,
            severity=dg.AssetCheckSeverity.ERROR if check else dg.AssetCheckSeverity.WARN,
            metadata={"found": check.found if check else "not checked when it was built"},
        )


def steady_map(settings: Settings, info: MapInfo | None) -> dg.AssetCheckResult:
    """Judge how far images have moved since the map before."""
    drift = info.drift if info else None
    return dg.AssetCheckResult(
        check_name=MAP_IS_STEADY.name,
        passed=drift is None or drift <= settings.checks.max_drift,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"drift": dg.MetadataValue.null() if drift is None else drift},
    )


def crawl_ages(store: Store, sources: Sequence[str], now: datetime) -> dict[str, timedelta | None]:
    """Return how long ago each source was last looked at; None if it never was."""
    ages: dict[str, timedelta | None] = {}
    for source in sources:
        table = store.manifest(source)
        seen = datetime.fromtimestamp(table.stat().st_mtime, UTC) if table.exists() else None
        ages[source] = now - seen if seen else None
    return ages


@dg.asset_check(
    asset="file_manifest",
    automation_condition=_IS_DUE,
    description="Each source was looked at within `checks.max_age_hours`.",
)
def is_fresh(library: LibraryResource) -> dg.AssetCheckResult:
    """Judge when each source of the settings was last looked at, by whomever."""
    settings = library.settings
    oldest = timedelta(hours=settings.checks.max_age_hours)
    ages = crawl_ages(library.store, settings.source_names, datetime.now(UTC))
    return dg.AssetCheckResult(
        passed=all(age is not None and age <= oldest for age in ages.values()),
        metadata={
            "hours_since_the_last_look": {
                source: None if age is None else round(age / timedelta(hours=1), 1)
                for source, age in ages.items()
            }
        },
    )
