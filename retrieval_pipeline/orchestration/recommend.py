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
from retrieval_pipeline.orchestration.previews import shown_image
from retrieval_pipeline.orchestration.resources import LibraryResource
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
    by_name: dg.PartitionsDefinition[str],
) -> Sequence[dg.AssetsDefinition | dg.SourceAsset]:
    """Return the assets with a partition for each recommender.

    The votes are a source that is observed, because people write it through the command line and
    the web page. Their data version and that of the index decide what is stale.
    """

    @dg.observable_source_asset(partitions_def=by_name, group_name="retrieval")
    def judgements(library: LibraryResource) -> dg.DataVersionsByPartition:
        """The yes/no votes of each recommender."""
        versions = {}
        for name in by_name.get_partition_keys():
            table = library.store.judgements(name)
            if table.exists():
                versions[name] = content_id_of_file(table)
        return dg.DataVersionsByPartition(versions)

    @dg.asset(
        deps=[judgements, dg.AssetKey("retrieval_index")],
        partitions_def=by_name,
        group_name="retrieval",
        kinds={"scikitlearn"},
        code_version="1",
        automation_condition=ON_NEW_DATA,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def recommender(context: dg.AssetExecutionContext, library: LibraryResource) -> Events:
        """A taste learned from the votes: an SVM, how well it predicts them, and what it likes."""
        store = library.store
        made: dict[str, Made] = {}
        with explained(context):
            searcher = Searcher.open(library.settings)
            inputs = {"retrieval_index": searcher.build.info.inputs}
            for name in context.partition_keys:
                require_recommender(store, name)
                votes = content_id_of_file(store.judgements(name))
                made[name] = Made(
                    f"{votes}-{searcher.build.info.inputs}",
                    _recommender_metadata(searcher, store, name),
                    {"judgements": votes, **inputs},
                )
        yield from materialised(context, made)

    return [judgements, recommender]


class RecommendConfig(dg.Config):
    """Which recommender, and how many pictures."""

    name: str = Field(description="Name of the recommender, as given to `retrieval recommend`")
    k: int = Field(default=24, description="Number of pictures, at least 1")


@dg.op
def recommend(
    context: dg.OpExecutionContext, config: RecommendConfig, library: LibraryResource
) -> None:
    """Rank the pictures that nobody voted on yet."""
    with explained(context):
        require_recommender(library.store, config.name)
        recommender = Recommender(Searcher.open(library.settings), config.name)
        best = recommender.ranking(config.k)
    context.add_output_metadata(
        {
            "ranking": _table(best),
            "pictures": _sheet(best, Limits.of(library.settings.images)),
            "votes": recommender.votes_text,
            "model": recommender.build.info.model,
            "build": recommender.build.path.name,
        }
    )


@dg.job(executor_def=dg.in_process_executor)
def recommend_job() -> None:
    """Ask a recommender; its ranking is in the output's metadata."""
    recommend()


def _recommender_metadata(searcher: Searcher, store: Store, name: str) -> dict[str, Any]:
    recommender = Recommender(searcher, name)
    metadata: dict[str, Any] = {
        "votes": len(read_judgements(store, name)),
        "liked": recommender.likes,
        "not_liked": recommender.dislikes,
        "not_in_the_index": recommender.gone,
        "model": searcher.build.info.model,
        "build": searcher.build.path.name,
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
