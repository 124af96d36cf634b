from pathlib import Path

import pytest

from retrieval_pipeline.encoders.catalogue import (
    BALANCED,
    BEST,
    FAST,
    document,
    known_models,
    read_sources,
    suggest,
)
from retrieval_pipeline.encoders.load import OFFLINE, describe
from retrieval_pipeline.encoders.on_this_machine import Speed

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"


def test_the_document_is_that_of_the_table() -> None:
    """Write it anew with `python -m retrieval_pipeline.encoders.catalogue > docs/models.md`."""
    assert DOCUMENT.read_text(encoding="utf-8") == document()


def test_every_figure_has_a_source_and_every_suggestion_a_row() -> None:
    models = {each.name: each for each in known_models()}
    assert len(models) >= 12
    assert {OFFLINE, BALANCED, BEST, FAST} <= models.keys()
    for each in models.values():
        assert each.sources or (each.coco, each.flickr, each.xm3600) == (None, None, None)
    used = {source for each in models.values() for source in each.sources}
    assert read_sources().keys() <= used


def test_the_row_of_the_offline_model_says_what_the_model_is() -> None:
    described = describe(OFFLINE)
    (row,) = (each for each in known_models() if each.name == OFFLINE)
    assert (row.dim, (row.edge, row.edge)) == (described.space.dim, described.transform.crop)


@pytest.mark.parametrize(
    ("gpu", "cached", "hub", "model", "why"),
    [
        (True, [], True, BEST, "there is a GPU here"),
        (True, [OFFLINE], False, OFFLINE, "no model hub can be reached"),
        (False, [OFFLINE], True, BALANCED, "there is no GPU here"),
        (False, [OFFLINE, BALANCED], False, BALANCED, "there is no GPU here"),
        (False, [OFFLINE, FAST], False, FAST, "this one is in the cache"),
        (False, [], False, OFFLINE, "no model hub can be reached"),
    ],
)
def test_the_model_that_suits_a_machine(
    gpu: bool, cached: list[str], hub: bool, model: str, why: str
) -> None:
    choice = suggest(gpu=gpu, cached=cached, hub=hub)
    assert choice.model == model
    assert why in choice.reason
    assert len({model, *(name for name, _ in choice.others)}) == 3


def test_the_time_is_the_arithmetic_over_the_speed() -> None:
    row = next(each for each in known_models() if each.gflop == 8.8)
    assert Speed("cpu", 8.8e9).hours(row, 3600) == pytest.approx(1)
