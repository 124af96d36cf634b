"""May another model take over? It must answer the labelled queries of the settings as well.

Whether a build is complete and finds enough is checked in `validation`.
"""

from collections.abc import Callable

from retrieval_pipeline.config.settings import EvaluationSettings
from retrieval_pipeline.errors import BuildError, EncoderError, EvaluationError
from retrieval_pipeline.evaluation.evaluate import difference, evaluate
from retrieval_pipeline.evaluation.labels import settings_queries
from retrieval_pipeline.index.build_info import Check
from retrieval_pipeline.progress import Progress
from retrieval_pipeline.search.searcher import Searcher

NAME = "answers_as_well"


def check_answers(
    labels: EvaluationSettings,
    new: Searcher,
    current: Callable[[], Searcher],
    *,
    progress: Progress | None = None,
) -> list[Check]:
    """Compare an index of another model with the current one, by labelled queries.

    It fails if the metric of `labels` is lower by more than the tolerance and the 95 % interval of
    the difference, query by query, holds no 0: what a few queries say may be chance. It passes if
    the current index cannot be asked, since nobody is answered by it.

    Args:
        labels: The queries, the metric and the tolerance.
        new: Of another vector space than the current index.
        current: Opens the current index.
        progress: Told about queries.

    Raises:
        EncoderError: The new model cannot be had.
        EngineError: The engine does not answer.
        EvaluationError: The labelled queries cannot be read, or have no answer in the new index.
    """
    queries = settings_queries(labels, new.corpus)
    after_change = evaluate(new, queries, progress=progress)
    try:
        before_change = evaluate(current(), queries, progress=progress)
    except (BuildError, EncoderError, EvaluationError) as error:
        return [_check(f"the current index cannot be asked labelled queries: {error}")]
    found = difference(before_change, after_change)
    if found is None:
        return [_check("no labelled query has answers in both indexes")]
    before, after = found.means[labels.metric]
    change = found.metrics[labels.metric]
    worse = before - after > labels.tolerance and change.high < 0
    figures = (
        f"{labels.metric} is {after:.3f} with {after_change.model} "
        f"and {before:.3f} with {before_change.model} "
        f"({found.queries:,} labelled queries; difference {change.low:+.3f} to {change.high:+.3f})"
    )
    way_out = (
        f": lower by more than `tolerance` = {labels.tolerance} of [evaluation] in the settings "
        "permits (raise it, or leave out [evaluation], to change the model all the same)"
    )
    return [_check(figures + (way_out if worse else ""), passed=not worse)]


def _check(found: str, *, passed: bool = True) -> Check:
    return Check(name=NAME, passed=passed, found=found)
