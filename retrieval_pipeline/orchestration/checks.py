"""Asset checks: what must hold of tables, index and map, and what people should have a look at.

A check of an asset with partitions is one of each partition: what is wrong with one source is not
hidden by the success of another. `is_fresh` looks at all sources at once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import SourceError
from retrieval_pipeline.index.arrow import as_matrix
from retrieval_pipeline.index.build_info import Check
from retrieval_pipeline.ingest.embed import EmbedReport
from retrieval_pipeline.latent_map.coordinates import MapInfo
from retrieval_pipeline.orchestration.flow import Flow
from retrieval_pipeline.pipeline.comparison import NAME as ANSWERS
from retrieval_pipeline.storage.parts import PICTURES, VIEWS
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_table
from retrieval_pipeline.vectors import VectorSpace, check_vectors

# Often enough for an age in hours; each time is a run in the list.
_IS_DUE: dg.AutomationCondition[dg.AssetCheckKey] = dg.AutomationCondition.cron_tick_passed(
    "0 */6 * * *"
)


@dataclass(frozen=True)
class Rule:
    """A check that the run of an asset makes.

    Attributes:
        asset: Name of the asset.
        name: Name of the check.
        description: What holds if it passes.
        blocking: True if nothing may follow when it fails.
    """

    asset: str
    name: str
    description: str
    blocking: bool = False

    def spec(self, flow: Flow, by: dg.PartitionsDefinition[str] | None = None) -> dg.AssetCheckSpec:
        """Return what Dagster is told of the check, each partition's own if it has any."""
        return dg.AssetCheckSpec(
            self.name,
            asset=flow.key(self.asset),
            blocking=self.blocking,
            description=self.description,
            partitions_def=by,
        )

    def found(
        self,
        flow: Flow,
        passed: bool,
        metadata: Mapping[str, Any],
        partition: str | None = None,
    ) -> dg.AssetCheckEvaluation:
        """Return what a run has found; a check that blocks nothing fails as a warning."""
        severity = dg.AssetCheckSeverity.ERROR if self.blocking else dg.AssetCheckSeverity.WARN
        return dg.AssetCheckEvaluation(
            asset_key=flow.key(self.asset),
            check_name=self.name,
            passed=passed,
            metadata=metadata,
            severity=severity,
            blocking=self.blocking,
            partition=partition,
        )


SOURCE_IS_WHOLE = Rule(
    "file_manifest",
    "source_is_whole",
    "The directory is there, can be listed, and has not lost most of its files.",
    blocking=True,
)
VECTORS_ARE_UNIT = Rule(
    "image_embeddings",
    "vectors_are_unit",
    "What was stored is finite and of unit length, read back from the disk.",
    blocking=True,
)
FEW_ARE_QUARANTINED = Rule(
    "image_embeddings",
    "few_are_quarantined",
    "No more images than `checks.max_quarantined` of a source cannot be used.",
)
ROWS_AGREE = Rule(
    "retrieval_index",
    "rows_agree",
    "The index holds each embedded image of the manifests once, with all its files.",
    blocking=True,
)
RECALL_IS_ENOUGH = Rule(
    "retrieval_index",
    "recall_is_enough",
    "A new index finds `index.recall` of the true ten nearest, with fresh queries.",
    blocking=True,
)
ANSWERS_AS_WELL = Rule(
    "retrieval_index",
    ANSWERS,
    "A new model's metric is lower than the former's by no more than `evaluation.tolerance`.",
    blocking=True,
)
MAP_IS_STEADY = Rule(
    "latent_map",
    "map_is_steady",
    "Images moved by no more than `checks.max_drift` of the former map's size.",
)


def whole_source(
    flow: Flow, source: str, error: SourceError | None = None
) -> dg.AssetCheckEvaluation:
    """Say whether a source could be looked through."""
    why = {"why": str(error)} if error else {}
    return SOURCE_IS_WHOLE.found(flow, error is None, why, source)


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


def few_quarantined(flow: Flow, settings: Settings, report: EmbedReport) -> dg.AssetCheckEvaluation:
    """Judge how many images of a source cannot be used."""
    images = report.files - report.companions - report.duplicates
    share = report.quarantined / max(images, 1)
    return FEW_ARE_QUARANTINED.found(
        flow,
        share <= settings.checks.max_quarantined,
        {"share": round(share, 4), "images": report.quarantined},
        report.source,
    )


def build_checks(
    flow: Flow, settings: Settings, checks: Sequence[Check]
) -> Iterator[dg.AssetCheckEvaluation]:
    """Yield what was found when a build was made."""
    made = {check.name: check for check in checks}
    for rule in (ROWS_AGREE, RECALL_IS_ENOUGH):
        if check := made.get(rule.name):
            yield rule.found(flow, check.passed, {"found": check.found})
        else:
            unknown = {"found": "not checked when it was built"}
            yield replace(rule, blocking=False).found(flow, False, unknown)
    if settings.evaluation is not None:
        answers = made.get(ANSWERS)
        passed = answers is None or answers.passed
        why = "it did not take over from another model" if answers is None else answers.found
        yield ANSWERS_AS_WELL.found(flow, passed, {"found": why})


def steady_map(flow: Flow, settings: Settings, info: MapInfo | None) -> dg.AssetCheckEvaluation:
    """Judge how far images have moved since the map before."""
    drift = info.drift if info else None
    return MAP_IS_STEADY.found(
        flow,
        drift is None or drift <= settings.checks.max_drift,
        {"drift": dg.MetadataValue.null() if drift is None else drift},
    )


def crawl_ages(store: Store, sources: Sequence[str], now: datetime) -> dict[str, timedelta | None]:
    """Return how long ago each source was last looked at; None if it never was."""
    ages: dict[str, timedelta | None] = {}
    for source in sources:
        table = store.manifest(source)
        seen = datetime.fromtimestamp(table.stat().st_mtime, UTC) if table.exists() else None
        ages[source] = now - seen if seen else None
    return ages


def build_is_fresh(flow: Flow) -> dg.AssetChecksDefinition:
    """Return the check that looks at the age of all manifests."""

    @dg.asset_check(
        asset=flow.key("file_manifest"),
        automation_condition=flow.when(_IS_DUE),
        description="Each source was looked at within `checks.max_age_hours`.",
        required_resource_keys=flow.resources,
    )
    def is_fresh(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        library = flow.library(context)
        settings = library.settings
        oldest = timedelta(hours=settings.checks.max_age_hours)
        ages = crawl_ages(library.store, settings.source_names, datetime.now(UTC))
        late = {
            source: None if age is None else round(age / timedelta(hours=1), 1)
            for source, age in ages.items()
            if age is None or age > oldest
        }
        return dg.AssetCheckResult(
            passed=not late,
            metadata={
                "sources": len(ages),
                "late": len(late),
                "hours_since_the_last_look": late,
            },
        )

    return is_fresh
