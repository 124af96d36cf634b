"""May another model take over? It must answer the labelled queries of the settings as well.

Whether a build is complete and finds enough is checked in `validation`.
"""

from collections.abc import Callable
from pathlib import Path

from retrieval_pipeline.config.settings import EvaluationSettings, Settings
from retrieval_pipeline.encoders.base import Encoder
from retrieval_pipeline.errors import BuildError, EncoderError, EvaluationError
from retrieval_pipeline.evaluation.evaluate import difference, evaluate
from retrieval_pipeline.evaluation.labels import settings_queries
from retrieval_pipeline.index.build import Build
from retrieval_pipeline.index.build_info import Check
from retrieval_pipeline.progress import Progress
from retrieval_pipeline.search.embedded_index import EmbeddedIndex
from retrieval_pipeline.search.searcher import Searcher

NAME = "answers_as_well"


def check_answers(
    settings: Settings,
    labels: EvaluationSettings,
    current: Path,
    load: Callable[[], Encoder],
    build: Build,
    *,
    progress: Progress | None = None,
) -> list[Check]:
    """Compare a build of another model with the current one, by labelled queries.

    It fails if the metric of `labels` is lower by more than the tolerance and the 95 % interval of
    the difference, query by query, holds no 0: what a few queries say may be chance. It passes if
    the current build cannot be asked, since nobody is answered by it.

    Args:
        settings: Say where pictures are, and the device of the model of the current build.
        labels: The queries, the metric and the tolerance.
        current: Directory of the current build.
        load: Loads the model of `build`.
        build: Of another vector space than the current one.
        progress: Told about queries.

    Raises:
        EncoderError: The model of `build` cannot be had.
        EvaluationError: The labelled queries cannot be read, or have no answer in `build`.
    """
    queries = settings_queries(labels, build)
    new = evaluate(Searcher(settings, EmbeddedIndex(build), load()), queries, progress=progress)
    try:
        old = evaluate(
            Searcher(settings, EmbeddedIndex(Build.open(current))), queries, progress=progress
        )
    except (BuildError, EncoderError, EvaluationError) as error:
        return [_check(f"the current index cannot be asked labelled queries: {error}")]
    found = difference(old, new)
    if found is None:
        return [_check("no labelled query has answers in both indexes")]
    before, after = found.means[labels.metric]
    change = found.metrics[labels.metric]
    worse = before - after > labels.tolerance and change.high < 0
    figures = (
        f"{labels.metric} is {after:.3f} with {new.model} and {before:.3f} with {old.model} "
        f"({found.queries:,} labelled queries; difference {change.low:+.3f} to {change.high:+.3f})"
    )
    way_out = (
        f": lower by more than `tolerance` = {labels.tolerance} of [evaluation] in the settings "
        "permits (raise it, or leave out [evaluation], to change the model all the same)"
    )
    return [_check(figures + (way_out if worse else ""), passed=not worse)]


def _check(found: str, *, passed: bool = True) -> Check:
    return Check(name=NAME, passed=passed, found=found)
