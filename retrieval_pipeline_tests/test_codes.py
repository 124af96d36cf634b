from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from retrieval_pipeline import codes
from retrieval_pipeline.calibrate import SMALL
from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.index import Build, build_index, open_current
from retrieval_pipeline.nearest import Plan
from retrieval_pipeline.store import Store
from retrieval_pipeline.vectors import Vectors, VectorSpace
from retrieval_pipeline_tests.library import (
    clustered,
    content,
    random_vectors,
    write_manifest,
    write_part,
)

COUNT = SMALL + 1_000
NEW = 60
SPACE = VectorSpace("test/model", "r1", 160, "p")
VECTORS = clustered(COUNT + NEW, SPACE.dim)
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


def index(store: Store, with_codes: bool = True) -> Build:
    report = build_index(
        store, SPACE, ["a"], recall=0.9, codes=with_codes, encode_texts=encode_words
    )
    assert report.published
    return open_current(store)


def found(build: Build, query: Vectors, plan: Plan) -> set[int]:
    truth = np.argsort(-build.scan(query))[:10]
    return set(truth.tolist()) & set(build.nearest.candidates(query, plan).tolist())


def test_codes_propose_the_true_neighbours(store: Store) -> None:
    build = index(store)
    build.nearest.load_codes()
    queries = [*clustered(50, SPACE.dim, seed=9), *encode_words(["word"] * 50)]
    recalls = [len(found(build, query, PLAN)) / 10 for query in queries]
    assert np.mean(recalls) > 0.95
    for query in queries:
        proposed = build.nearest.candidates(query, PLAN)
        assert len(set(proposed.tolist())) == PLAN.candidates
        assert (np.diff(proposed) > 0).all()


def test_codes_are_measured_beside_the_other_plans(store: Store) -> None:
    kinds = {each.plan.kind for each in index(store).info.calibration.measured}
    assert kinds == {"scan", "projected", "trees", "codes"}
    kinds = {each.plan.kind for each in index(store, False).info.calibration.measured}
    assert kinds == {"scan", "projected", "trees"}


def test_until_the_codes_are_loaded_the_scan_of_the_components_answers(store: Store) -> None:
    build = index(store)
    assert build.nearest.usable(PLAN) == Plan(kind="projected", candidates=200)
    build.nearest.load_codes()
    assert build.nearest.usable(PLAN) == PLAN


def test_an_index_with_codes_answers_where_faiss_is_not_installed(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = index(store)
    monkeypatch.setattr(codes, "can_use_codes", lambda: False)
    build.nearest.load_codes()
    plan = build.nearest.usable(PLAN)
    assert plan.kind == "projected"
    for query in VECTORS[:20]:
        assert len(found(build, query, plan)) >= 9


def test_codes_without_faiss_are_refused_with_the_way_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codes, "can_use_codes", lambda: False)
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
    assert "newcomers.annoy" in build.info.files
    build.nearest.load_codes()
    for number in range(COUNT, COUNT + NEW):
        item = build.number_of(content(name(number)))
        assert item in build.nearest.candidates(VECTORS[number], PLAN)


def test_damaged_codes_are_refused(store: Store) -> None:
    build = index(store)
    file = build.path / "codes.faiss"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data)
    with pytest.raises(BuildError, match=r"codes\.faiss: not as build\.json says"):
        Build.open(build.path, rehash=True)


def test_the_same_vectors_give_the_same_codes(store: Store, tmp_path: Path) -> None:
    for file in (tmp_path / "one", tmp_path / "other"):
        codes.write_codes(file, VECTORS[:, :128])
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
