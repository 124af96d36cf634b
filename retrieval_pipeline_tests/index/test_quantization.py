from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from annoy import AnnoyIndex

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.encoders import load as encoders
from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.index import autotune, knn, quantization, search_structures
from retrieval_pipeline.index.ann import Trees
from retrieval_pipeline.index.autotune import SCAN_ONLY_ITEMS, Calibration, Measurement
from retrieval_pipeline.index.build import Build, open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.index.knn import Plan, VectorIndex
from retrieval_pipeline.pipeline.validation import Coverage, check_build
from retrieval_pipeline.search.embedded_index import EmbeddedIndex
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Numbers, Vectors, VectorSpace
from retrieval_pipeline.web.snapshot import Snapshot
from retrieval_pipeline_tests.support.plans import segments_of
from synthetic.tables import clustered, content, random_vectors, write_manifest, write_part

pytestmark = pytest.mark.slow

COUNT = SCAN_ONLY_ITEMS + 1_000
NEW = 60
SPACE = VectorSpace("test/model", "r1", 160, "p")
VECTORS = clustered(COUNT + NEW, SPACE.dim)
WORDS = ["a photo", "a dog"]
PLAN = Plan(kind="codes", candidates=200, search_k=800)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    write_part(store, SPACE, "a", list(map(name, range(COUNT))), VECTORS[:COUNT])
    write_manifest(store, "a", {f"{number:05d}.jpg": name(number) for number in range(COUNT)})
    return store


def name(number: int) -> str:
    return f"n{number:05d}"


def encode_words(texts: Sequence[str]) -> Vectors:
    return random_vectors(len(texts), SPACE.dim, seed=5)


def index(store: Store, with_codes: bool | Literal["auto"] = True) -> Build:
    report = build_index(
        store, SPACE, ["a"], recall=0.9, codes=with_codes, encode_texts=encode_words
    )
    assert report.published
    return open_current(store)


def found(build: Build, query: Vectors, plan: Plan) -> set[int]:
    truth = np.argsort(-build.scan(query))[:10]
    return set(truth.tolist()) & set(proposed_by(build, query, plan).tolist())


def proposed_by(build: Build, query: Vectors, plan: Plan) -> Numbers:
    (proposed,) = build.vector_index.candidates(query[None], plan)
    return proposed


def load(build: Build, plan: Plan = PLAN) -> None:
    for part in build.vector_index.parts:
        part.plan = plan
    build.load_codes()


def test_codes_propose_the_true_neighbours(store: Store) -> None:
    build = index(store)
    load(build)
    queries = [*clustered(50, SPACE.dim, seed=9), *encode_words(["word"] * 50)]
    recalls = [len(found(build, query, PLAN)) / 10 for query in queries]
    assert np.mean(recalls) > 0.95
    for query in queries:
        proposed = proposed_by(build, query, PLAN)
        assert len(set(proposed.tolist())) == PLAN.candidates
        assert (np.diff(proposed) > 0).all()


def test_codes_are_measured_beside_the_other_plans(store: Store) -> None:
    calibration = index(store).info.calibration
    kinds = {each.plan.kind for each in calibration.measured}
    # Where codes win, trees are not even grown.
    more = set() if calibration.plan.kind == "codes" else {"trees"}
    assert kinds == {"scan", "projected", "codes"} | more
    kinds = {each.plan.kind for each in index(store, False).info.calibration.measured}
    assert kinds == {"scan", "projected", "trees"}


def test_until_the_codes_are_loaded_a_scan_of_the_reduced_vectors_answers(store: Store) -> None:
    build = index(store)
    for part in build.vector_index.parts:
        part.plan = PLAN
    assert build.plan == Plan(kind="projected", candidates=200)
    load(build)
    assert build.plan == PLAN


def test_an_index_with_codes_answers_where_faiss_is_not_installed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = index(store)
    monkeypatch.setattr(quantization, "can_use_codes", lambda: False)
    load(build)
    plan = build.plan
    assert plan.kind == "projected"
    for query in VECTORS[:20]:
        assert len(found(build, query, plan)) >= 9


def codes_of(build: Build) -> list[Path]:
    return [file for segment in segments_of(build) for file in segment.glob("codes.faiss")]


@pytest.fixture
def chosen(store: Store, monkeypatch: pytest.MonkeyPatch) -> Build:
    """An open index that is to be searched by its codes."""

    def choose(_: object, __: object, target: float, ___: object) -> Calibration:
        return Calibration(target=target, plan=PLAN, recall_at_10=1.0)

    monkeypatch.setattr(search_structures, "choose_plan", choose)
    return index(store)


def test_a_searcher_asks_the_codes_once_it_is_warm(
    store: Store, chosen: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher = Searcher(Settings(home=store.home), EmbeddedIndex(chosen))
    vectors = dict(zip(WORDS, encode_words(WORDS), strict=True))

    def encode(texts: Sequence[str]) -> Vectors:
        return np.array([vectors[text] for text in texts])

    monkeypatch.setattr(encoders, "load_text_encoder_of", lambda _: encode)
    query = Query(text=WORDS[0])
    cold = searcher.answer(query, k=5)
    assert cold.plan.startswith("projected scan")
    searcher.warm_up()
    warm = searcher.answer(query, k=5)
    assert warm.plan == "scan of codes (800 looked at twice), 200 candidates in exact order"
    assert [hit.content_id for hit in warm.hits] == [hit.content_id for hit in cold.hits]
    assert chosen.best(VECTORS[7], 1)[0].tolist() == [7]


def test_the_web_page_reads_the_codes_of_every_index_that_it_opens(
    store: Store, chosen: Build
) -> None:
    settings = Settings(home=store.home)
    first = Snapshot(Searcher.open(settings))
    first.warm_up()
    again = Snapshot(first.searcher.reopened(settings))
    assert again.searcher.corpus.plan.kind == "projected"
    again.warm_up()
    assert first.searcher.corpus.plan == again.searcher.corpus.plan == PLAN


def test_an_index_is_checked_by_its_codes(chosen: Build) -> None:
    coverage = Coverage(images=COUNT, files=COUNT, embedded=COUNT, quarantined=0, pending={})
    assert all(check.passed for check in check_build(chosen, coverage, 0.9))
    assert chosen.plan == PLAN


def test_codes_that_went_away_are_an_error_of_one_line(chosen: Build) -> None:
    (segment,) = segments_of(chosen)
    (segment / "codes.faiss").unlink()
    with pytest.raises(BuildError, match=r"codes\.faiss: faiss .* cannot read it: run"):
        chosen.load_codes()


def test_the_setting_makes_another_index(store: Store, chosen: Build) -> None:
    assert codes_of(chosen)
    assert not codes_of(index(store, with_codes=False))
    report = build_index(store, SPACE, ["a"], recall=0.9, codes=True, encode_texts=encode_words)
    assert (report.build, report.published) == (chosen.path, True)


def measured(_: object, __: object, plan: Plan) -> Measurement:
    recall = {"scan": 1.0, "projected": 0.999, "trees": 0.994, "codes": 0.996}[plan.kind]
    ms = {"scan": 20.0, "projected": 10.0, "trees": 1.0, "codes": 2.0}[plan.kind]
    return Measurement(plan=plan, recall_image=recall, recall_text=None, p50_ms=ms)


def test_where_codes_win_no_trees_are_grown(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "measure", measured)
    build = index(store)
    assert build.info.calibration.plan.kind == "codes"
    assert not any((segment / "vectors.annoy").exists() for segment in segments_of(build))


def test_a_plan_that_just_reaches_the_target_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autotune, "measure", measured)
    monkeypatch.setattr(knn, "read_codes", lambda _: None)
    vectors = [VECTORS[:COUNT]]
    trees = Trees(AnnoyIndex(SPACE.dim, "dot"))
    vector_index = VectorIndex(vectors, trees=trees, codes_file=Path("nowhere"))
    queries = autotune.make_sample_queries(vectors, None)
    reduced_scans = autotune.measure_reduced_scans(vector_index, queries, 0.99)
    calibration = autotune.choose_plan(vector_index, queries, 0.99, reduced_scans)
    assert calibration.plan.kind == "codes"


def test_codes_without_faiss_are_refused_with_the_way_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "can_use_codes", lambda: False)
    with pytest.raises(BuildError, match=r"needs faiss: pip install .*codes.*codes = false"):
        index(store)
    assert store.all_builds() == []


def test_the_next_index_has_codes_of_new_images_too(store: Store) -> None:
    index(store)
    files = {f"{number:05d}.jpg": name(number) for number in range(COUNT)}
    files |= {f"0/{number:05d}.jpg": name(number) for number in range(COUNT, COUNT + NEW)}
    write_part(store, SPACE, "a", list(map(name, range(COUNT, COUNT + NEW))), VECTORS[COUNT:])
    write_manifest(store, "a", files)
    build = index(store)
    assert len(build.info.segments) == 2
    load(build)
    for number in range(COUNT, COUNT + NEW):
        item = build.number_of(content(name(number)))
        assert item in proposed_by(build, VECTORS[number], PLAN)


def test_damaged_codes_are_refused(store: Store) -> None:
    build = index(store)
    (file,) = codes_of(build)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data)
    with pytest.raises(BuildError, match=r"codes\.faiss: not as it was written"):
        Build.open(build.path, rehash=True)


@pytest.mark.parametrize("installed", [True, False])
def test_large_segments_get_codes_by_themselves_where_faiss_is_installed(
    store: Store, monkeypatch: pytest.MonkeyPatch, installed: bool
) -> None:
    monkeypatch.setattr(quantization, "AUTO_ROWS", COUNT)
    monkeypatch.setattr(quantization, "can_use_codes", lambda: installed)
    build = index(store, "auto")
    assert bool(codes_of(build)) == installed
    # Another machine, that differs in this, makes no other segments of the same pictures.
    monkeypatch.setattr(quantization, "can_use_codes", lambda: not installed)
    write_manifest(store, "b", {"copy.jpg": name(0)})
    build_index(store, SPACE, ["a", "b"], recall=0.9, codes="auto", encode_texts=encode_words)
    assert segments_of(open_current(store)) == segments_of(build)
    monkeypatch.setattr(quantization, "AUTO_ROWS", COUNT + 1)
    assert not quantization.writes_codes("auto", COUNT)


def test_the_same_vectors_give_the_same_codes(store: Store, tmp_path: Path) -> None:
    for file in (tmp_path / "one", tmp_path / "other"):
        quantization.write_codes(file, VECTORS[:, :128])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
