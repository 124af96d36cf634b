"""Recommenders in Dagster: the stored votes, what was learned from them, and a job that ranks."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
from pydantic import Field

from retrieval_pipeline.errors import RecommendError
from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.orchestration.automation import ON_NEW_DATA
from retrieval_pipeline.orchestration.events import Events, Made, explained, materialised
from retrieval_pipeline.orchestration.flow import QUICK, Flow
from retrieval_pipeline.orchestration.previews import shown_image
from retrieval_pipeline.paths import printable, to_text
from retrieval_pipeline.recommend.recommender import Candidate, Recommender
from retrieval_pipeline.recommend.votes import read_judgements, require_recommender
from retrieval_pipeline.rendering.contact_sheet import contact_sheet
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.store import Store

# Pictures on the sheet of the best: more would be too small to judge the taste by.
SHEET_PICTURES = 24

# Named, so that a table without rows has them, too.
RANKING_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("rank", "int"),
        dg.TableColumn("score", "float"),
        dg.TableColumn("source"),
        dg.TableColumn("path"),
    ]
)


def build_recommender_assets(
    flow: Flow, by_name: dg.PartitionsDefinition[str]
) -> Sequence[dg.AssetsDefinition]:
    """Return the assets with a partition for each recommender.

    People cast the votes through the command line and the web page; the sensor that watches tells
    Dagster of them. Their data version and that of the index decide what is stale.
    """
    votes = flow.key("judgements")
    index = flow.key("retrieval_index")

    @dg.multi_observable_source_asset(  # type: ignore[untyped-decorator]
        name=votes.to_python_identifier(),
        specs=[
            dg.AssetSpec(
                votes,
                description="The yes/no votes of each recommender, which people cast.",
                group_name=flow.group,
                owners=list(flow.owners),
                tags=dict(flow.tags),
                kinds={"parquet"},
            )
        ],
        partitions_def=by_name,
        required_resource_keys=flow.resources,
    )
    def judgements(context: dg.AssetExecutionContext) -> dg.ObserveResult:
        """Note which votes there are."""
        table = flow.library(context).store.judgements(context.partition_key)
        return dg.ObserveResult(data_version=dg.DataVersion(content_id_of_file(table)))

    @dg.asset(
        **flow.options("recommender"),
        deps=[votes, index],
        partitions_def=by_name,
        kinds={"scikitlearn"},
        code_version="1",
        automation_condition=flow.when(ON_NEW_DATA),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def recommender(context: dg.AssetExecutionContext) -> Events:
        """A taste learned from the votes: an SVM, how well it predicts them, and what it likes."""
        library = flow.library(context)
        store = library.store
        made: dict[str, Made] = {}
        with explained(context):
            searcher = Searcher.open(library.settings)
            build = searcher.index.info.inputs
            for name in context.partition_keys:
                require_recommender(store, name)
                version = content_id_of_file(store.judgements(name))
                made[name] = Made(
                    f"{version}-{build}",
                    _recommender_metadata(searcher, store, name),
                    {votes: version, index: build},
                )
        yield from materialised(context, made)

    return [judgements, recommender]


class RecommendConfig(dg.Config):
    """Which recommender, and how many pictures."""

    name: str = Field(description="Name of the recommender, as given to `retrieval recommend`")
    k: int = Field(default=24, description="Number of pictures, at least 1")


def build_recommend_job(flow: Flow, names: Sequence[str]) -> dg.JobDefinition:
    """Return the job that ranks the pictures for a recommender; the Launchpad begins with one."""
    first = {"ops": {flow.named("recommend"): {"config": {"name": names[0]}}}} if names else {}

    @dg.op(name=flow.named("recommend"), required_resource_keys=flow.resources)
    def recommend(context: dg.OpExecutionContext, config: RecommendConfig) -> None:
        """Rank the pictures that nobody voted on yet."""
        library = flow.library(context)
        with explained(context):
            require_recommender(library.store, config.name)
            recommender = Recommender(Searcher.open(library.settings), config.name)
            best = recommender.ranking(config.k)
        context.add_output_metadata(
            {
                "ranking": _table(best),
                "pictures": _sheet(best, Limits.of(library.settings.images)),
                "votes": recommender.votes_text,
                "model": recommender.index.info.model,
                "build": recommender.index.name,
            }
        )

    @dg.job(
        name=flow.named("recommend_job"),
        tags=QUICK,
        config=first or None,  # type: ignore[arg-type]
        executor_def=dg.in_process_executor,
        description="Show what a recommender would like best.",
    )
    def recommend_job() -> None:
        recommend()

    return recommend_job


def _recommender_metadata(searcher: Searcher, store: Store, name: str) -> dict[str, Any]:
    recommender = Recommender(searcher, name)
    metadata: dict[str, Any] = {
        "votes": len(read_judgements(store, name)),
        "liked": recommender.likes,
        "not_liked": recommender.dislikes,
        "not_in_the_index": recommender.gone,
        "model": searcher.index.info.model,
        "build": searcher.index.name,
        "table": dg.MetadataValue.path(str(store.judgements(name))),
    }
    try:
        best = recommender.ranking(SHEET_PICTURES)
    except RecommendError as error:
        # Too few votes are nothing that failed: the next ones make it follow.
        return {**metadata, "no_ranking": str(error)}
    if quality := recommender.quality():
        metadata["cross_validated_accuracy"] = round(quality.accuracy, 4)
        metadata["cross_validated_average_precision"] = round(quality.average_precision, 4)
    metadata["best"] = _sheet(best, Limits.of(searcher.settings.images))
    return metadata


def _table(ranking: Sequence[Candidate]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "rank": rank,
                    "score": round(picture.score or 0.0, 4),
                    "source": picture.location.source,
                    "path": printable(to_text(str(picture.path))),
                }
            )
            for rank, picture in enumerate(ranking, 1)
        ],
        RANKING_COLUMNS,
    )


def _sheet(ranking: Sequence[Candidate], limits: Limits) -> dg.MarkdownMetadataValue:
    captions = [f"{each.score:.2f}" for each in ranking]
    jobs = [Job(each.path, each.content_id) for each in ranking]
    return shown_image(contact_sheet(jobs, limits, captions), "image/png")
