"""When a build becomes the current one, when it does not, and how people go back."""

from pathlib import Path

import pytest

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.index import inputs, search_structures
from retrieval_pipeline.index.autotune import Calibration
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.index.build_info import read_info
from retrieval_pipeline.index.builder import BuildReport, RefusedBuildError
from retrieval_pipeline.index.knn import Plan
from retrieval_pipeline.pipeline import validation as acceptance
from retrieval_pipeline.pipeline.publish import update_index, use_build
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline_tests.support.encoders import VocabularyEncoder
from retrieval_pipeline_tests.support.library import settings_of
from synthetic.tables import random_vectors, write_manifest, write_part

pytestmark = pytest.mark.slow

BLUE = VectorSpace("blue", "r1", 16, "p")
GREEN = VectorSpace("green", "r1", 24, "p")
NAMES = [f"n{number}" for number in range(40)]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Two sources of twenty pictures each, embedded by the blue model."""
    settings = settings_of(tmp_path / "home", a=tmp_path / "a", b=tmp_path / "b")
    store = Store(settings.home)
    write_manifest(store, "a", {f"{name}.jpg": name for name in NAMES[:20]})
    write_manifest(store, "b", {f"{name}.jpg": name for name in NAMES[20:]})
    write_part(store, BLUE, "a", NAMES[:20], random_vectors(20, 16, seed=1))
    write_part(store, BLUE, "b", NAMES[20:], random_vectors(20, 16, seed=2))
    return settings


def update(settings: Settings, space: VectorSpace) -> BuildReport:
    return update_index(settings, space, lambda: VocabularyEncoder(space.dim))  # type: ignore[arg-type,return-value]


def test_a_build_says_which_checks_it_passed(settings: Settings) -> None:
    report = update(settings, BLUE)
    assert report.published
    checks = {check.name: check for check in read_info(report.build).checks}
    assert checks["rows_agree"].found == (
        "the index holds 40 images in 40 files, the tables 40 embedded images in 40 files"
    )
    assert checks["recall_is_enough"].passed
    open_current(Store(settings.home))


def test_a_build_that_lost_rows_is_not_published(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = update(settings, BLUE)
    store = Store(settings.home)
    write_manifest(store, "b", {f"{name}.jpg": name for name in NAMES[20:39]})
    join = inputs.join
    monkeypatch.setattr(inputs, "join", lambda store, space, sources: join(store, space, ["a"]))
    with pytest.raises(RefusedBuildError, match="holds 20 images in 20 files, the tables 39"):
        update(settings, BLUE)
    assert store.current_build() == before.build
    assert store.all_builds() == [before.build]


def test_a_build_that_finds_too_little_is_not_published(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = update(settings, BLUE)
    store = Store(settings.home)
    names = [f"m{number}" for number in range(3_000)]
    write_manifest(store, "b", {f"{name}.jpg": name for name in names})
    write_part(store, BLUE, "b", names, random_vectors(len(names), 16, seed=3))

    def flatter(*_: object) -> Calibration:
        plan = Plan(kind="trees", candidates=20, search_k=1)
        return Calibration(target=0.99, plan=plan, recall_at_10=1.0)

    monkeypatch.setattr(search_structures, "choose_plan", flatter)
    with pytest.raises(RefusedBuildError, match=r"recall@10 is 0\.\d+ \(with 400 fresh queries"):
        update(settings, BLUE)
    assert store.current_build() == before.build
    monkeypatch.undo()
    assert update(settings, BLUE).published


def test_a_new_model_takes_over_when_it_has_embedded_every_source(settings: Settings) -> None:
    store = Store(settings.home)
    blue = update(settings, BLUE)
    write_part(store, GREEN, "a", NAMES[:20], random_vectors(20, 24, seed=4))
    waiting = update(settings, GREEN)
    assert (waiting.build, waiting.published) == (blue.build, False)
    assert waiting.kept == "before green can take over, it has images to embed: 20 of b"
    assert open_current(store).info.model == "blue"
    write_part(store, GREEN, "b", NAMES[20:], random_vectors(20, 24, seed=5))
    green = update(settings, GREEN)
    assert green.published
    assert open_current(store).info.model == "green"


def test_going_back_to_a_model_publishes_its_build_again(settings: Settings) -> None:
    store = Store(settings.home)
    blue = update(settings, BLUE)
    write_part(store, GREEN, "a", NAMES, random_vectors(40, 24, seed=4))
    update(settings, GREEN)
    again = update(settings, BLUE)
    assert (again.build, again.published) == (blue.build, True)
    assert store.current_build() == blue.build
    assert len(store.builds(BLUE)) == 1


def test_a_file_that_is_always_left_for_the_next_run_does_not_put_off_a_model(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:

    update(settings, BLUE)
    write_part(Store(settings.home), GREEN, "a", NAMES[:39], random_vectors(39, 24, seed=4))
    assert not update(settings, GREEN).published
    monkeypatch.setattr(acceptance, "MAY_BE_PENDING", 1 / 40)
    assert update(settings, GREEN).published


def test_people_go_back_to_a_build_and_it_stays_until_they_let_go(settings: Settings) -> None:
    store = Store(settings.home)
    first = update(settings, BLUE)
    write_manifest(store, "b", {f"{name}.jpg": name for name in NAMES[20:30]})
    second = update(settings, BLUE)
    assert second.published
    assert use_build(settings, first.build.name).info.items == 40
    assert store.current_build() == first.build
    held = update(settings, BLUE)
    assert (held.build, held.published) == (first.build, False)
    assert "`retrieval use --latest`" in held.kept
    store.release()
    assert update(settings, BLUE).build == second.build
    assert store.current_build() == second.build


def test_a_build_that_is_not_there_or_damaged_cannot_be_used(settings: Settings) -> None:
    report = update(settings, BLUE)
    with pytest.raises(BuildError, match=report.build.name):
        use_build(settings, "20200101")
    (segment,) = Store(settings.home).all_segments()
    vectors = segment / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-1])
    with pytest.raises(BuildError, match="not as it was written"):
        use_build(settings, report.build.name)
    assert not Store(settings.home).held_file.exists()


def test_a_damaged_build_is_not_held(settings: Settings) -> None:
    report = update(settings, BLUE)
    use_build(settings, report.build.name)
    (report.build / "build.json").write_text("{")
    assert update(settings, BLUE).published
    assert not Store(settings.home).held_file.exists()


def test_a_damaged_pointer_is_replaced(settings: Settings) -> None:
    report = update(settings, BLUE)
    store = Store(settings.home)
    store.current_file.write_text("nonsense")
    assert update(settings, BLUE).build == report.build
    assert store.current_build() == report.build


def test_coverage_counts_each_image_once(settings: Settings) -> None:
    store = Store(settings.home)
    write_manifest(store, "a", {"x.jpg": "n0", "y.jpg": "n0", "z.jpg": "new"})
    coverage = acceptance.read_coverage(store, BLUE, ["a", "b"])
    assert (coverage.images, coverage.embedded, coverage.files) == (22, 21, 22)
    assert coverage.pending == {"a": 1, "b": 0}
