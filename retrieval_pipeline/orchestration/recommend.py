"""Recommenders in Dagster: the stored votes, what was learned from them, and a job that ranks."""

from collections.abc import Sequence

import dagster as dg
from pydantic import Field

from retrieval_pipeline.content import content_id_of_file
from retrieval_pipeline.errors import RetrievalError
from retrieval_pipeline.images import Limits
from retrieval_pipeline.judgements import read_judgements, require_recommender
from retrieval_pipeline.orchestration.assets import failure
from retrieval_pipeline.orchestration.previews import picture
from retrieval_pipeline.orchestration.resources import Library
from retrieval_pipeline.paths import printable, to_text
from retrieval_pipeline.recommend import Picture, Session
from retrieval_pipeline.search import Searcher
from retrieval_pipeline.views.contact_sheet import contact_sheet

# Pictures on the sheet of the best: more would be too small to judge the taste by.
SHEET_PICTURES = 24


def build_recommender_assets(
    by_name: dg.PartitionsDefinition[str],
) -> Sequence[dg.AssetsDefinition | dg.SourceAsset]:
    """Return the assets with a partition for each recommender.

    The votes are a source that is observed, because people write it through the command line and
    the web page. Their data version and that of the index decide what is stale.
    """

    @dg.observable_source_asset(partitions_def=by_name, group_name="retrieval")
    def judgements(library: Library) -> dg.DataVersionsByPartition:
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
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def recommender(context: dg.AssetExecutionContext, library: Library) -> None:
        """A taste learned from the votes: an SVM, how well it predicts them, and what it likes."""
        settings = library.settings
        limits = Limits.of(settings.images)
        searcher = _searcher(library)
        failed: list[str] = []
        for name in context.partition_keys:
            try:
                require_recommender(library.store, name)
                session = Session(searcher, name)
                best = session.ranking(SHEET_PICTURES)
            except RetrievalError as error:
                failed.append(str(error))
                continue
            quality = session.quality()
            measured = (
                {
                    "cross_validated_accuracy": round(quality.accuracy, 4),
                    "cross_validated_average_precision": round(quality.average_precision, 4),
                }
                if quality
                else {}
            )
            context.add_asset_metadata(
                {
                    **measured,
                    "votes": len(read_judgements(library.store, name)),
                    "liked": session.likes,
                    "not_liked": session.dislikes,
                    "not_in_the_index": session.gone,
                    "model": searcher.build.info.model,
                    "build": searcher.build.path.name,
                    "best": _sheet(best, limits),
                    "table": dg.MetadataValue.path(str(library.store.judgements(name))),
                },
                partition_key=name,
            )
        if failed:
            raise dg.Failure(description="\n".join(failed), allow_retries=False)

    return [judgements, recommender]


class RecommendConfig(dg.Config):
    """Which recommender, and how many pictures."""

    name: str = Field(description="Name of the recommender, as given to `retrieval recommend`")
    k: int = Field(default=24, ge=1, description="Number of pictures")


@dg.op
def recommend(context: dg.OpExecutionContext, config: RecommendConfig, library: Library) -> None:
    """Rank the pictures that nobody voted on yet."""
    try:
        require_recommender(library.store, config.name)
        session = Session(_searcher(library), config.name)
        best = session.ranking(config.k)
    except RetrievalError as error:
        raise failure(error) from None
    context.add_output_metadata(
        {
            "ranking": _table(best),
            "pictures": _sheet(best, Limits.of(library.settings.images)),
            "votes": session.votes_text,
            "model": session.build.info.model,
            "build": session.build.path.name,
        }
    )


@dg.job(executor_def=dg.in_process_executor)
def recommend_job() -> None:
    """Ask a recommender; its ranking is in the output's metadata."""
    recommend()


def _searcher(library: Library) -> Searcher:
    try:
        return Searcher.open(library.settings)
    except RetrievalError as error:
        raise failure(error) from None


def _table(ranking: Sequence[Picture]) -> dg.TableMetadataValue:
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
        ]
    )


def _sheet(ranking: Sequence[Picture], limits: Limits) -> dg.MarkdownMetadataValue:
    captions = [f"{each.score:.2f}" for each in ranking]
    return picture(contact_sheet([each.path for each in ranking], limits, captions), "image/png")
