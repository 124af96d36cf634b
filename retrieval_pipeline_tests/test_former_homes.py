"""Homes that earlier versions made open, answer, verify and go on."""

import shutil
import tarfile
from pathlib import Path

import pytest

from retrieval_pipeline import Query, Searcher, Settings, index_sources, load_settings
from retrieval_pipeline.encoders.from_settings import describe_encoder
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.index.retention import retire_builds
from retrieval_pipeline.ingest import quarantine
from retrieval_pipeline.maintenance.verify import check_builds_here, verify
from retrieval_pipeline.pipeline import run
from retrieval_pipeline.recommend.votes import read_judgements
from retrieval_pipeline.storage.atomic import discard
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_quarantine
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline_tests.support.former_builds import make_former
from synthetic.tables import clustered, write_manifest, write_part

# Five small photographs, a copy of one and a file that is no picture, indexed by the version in the
# name with the offline model, and two votes. The map was left out: it is drawn anew.
HOMES = sorted((Path(__file__).parent / "data").glob("home-*.tar.xz"))


@pytest.fixture(params=HOMES, ids=lambda path: path.name)
def former(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """A home of an earlier version, with its pictures and settings."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    return load_settings(tmp_path / "retrieval.toml")


def test_it_answers_as_it_did(former: Settings) -> None:
    hits = Searcher.open(former).search(Query(text="a cat"), k=5)
    assert [hit.path.name for hit in hits] == [
        f"{name}.jpg" for name in ("cat", "flower", "rocket", "temple", "coffee")
    ]
    assert hits[0].score == pytest.approx(0.8, abs=0.001)
    assert [place.path for place in hits[0].other_locations] == ["copy.jpg"]


def test_it_verifies(former: Settings) -> None:
    findings = list(verify(Store(former.home)))
    assert len(findings) == 6
    assert [finding for finding in findings if finding.problem] == []


def test_it_is_indexed_again_without_embedding_anything_again(
    former: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_model(*_: object) -> None:
        raise AssertionError("a model was loaded")

    store, space = Store(former.home), describe_encoder(former).space
    tried_with = read_quarantine(store, space, "pictures")["tried_with"][0].as_py()
    with monkeypatch.context() as patch:
        # Another version of this program would try the broken file again.
        patch.setattr(quarantine, "software", lambda: tried_with)
        patch.setattr(run, "load_settings_encoder", no_model)
        report = index_sources(former)
    (embedded,) = report.embeddings
    assert (embedded.known, embedded.embedded, embedded.quarantined) == (5, 0, 1)
    (manifest,) = report.manifests
    assert (manifest.files, manifest.unchanged) == (7, 7)
    # Its facts come from headers alone, once for each content, and get into the index.
    (facts,) = report.facts
    assert (facts.files, facts.headers_read) == (7, 6)
    assert open_current(store).facts is not None
    test_it_answers_as_it_did(former)


def test_it_moves_to_todays_classifier_only_when_the_settings_say_so(former: Settings) -> None:
    former_space = describe_encoder(former).space
    assert "lite0" in former_space.revision
    moved = former.model_copy(update={"revision": "lite2"})
    space = describe_encoder(moved).space
    assert "lite2" in space.revision
    assert describe_encoder(former).space == former_space
    # As soon as anything is embedded, the line is no longer needed: it does not move back.
    Store(former.home).embeddings(space).mkdir()
    assert describe_encoder(former).space == space


def test_it_gets_its_marker_and_keeps_what_others_put_into_it(former: Settings) -> None:
    home = Store(former.home).home
    assert not (home / "retrieval-home.json").exists()
    (home / "notes.txt").write_text("mine")
    with Store(home).locked():
        assert (home / "retrieval-home.json").exists()
    assert (home / "notes.txt").read_text() == "mine"


def test_a_new_picture_joins_the_old_ones(former: Settings, sample_photos: dict[str, Path]) -> None:
    (source,) = former.sources
    shutil.copy(sample_photos["motorcycle"], Path(str(source.path)) / "motorcycle.png")
    (embedded,) = index_sources(former).embeddings
    assert (embedded.known, embedded.embedded) == (5, 1)
    assert len(Searcher.open(former).corpus) == 6


TREES = {"kind": "trees", "candidates": 100, "search_k": 1_000}


@pytest.mark.parametrize("plan", [TREES, {"kind": "scan"}])
def test_an_index_of_one_set_of_files_with_trees_answers_and_the_next_run_makes_segments(
    tmp_path: Path, plan: dict[str, object]
) -> None:
    store, space = Store(tmp_path), VectorSpace("test/model", "r1", 160, "p")
    names, vectors = [f"n{number:03d}" for number in range(300)], clustered(300, 160)
    write_manifest(store, "a", {f"{name}.jpg": name for name in names})
    write_part(store, space, "a", names, vectors)
    made = build_index(store, space, ["a"], precision="float32").build
    today = open_current(store)
    path = make_former(store, today, plan)
    expected = [today.best(vector, 10)[0].tolist() for vector in vectors[::50]]
    discard(made)
    retire_builds(store)
    assert store.all_segments() == []
    former = open_current(store)
    assert former.path == path
    assert former.plan.kind == ("scan" if plan["kind"] == "scan" else "projected")
    assert [former.best(vector, 10)[0].tolist() for vector in vectors[::50]] == expected
    assert [finding.problem for finding in check_builds_here([path])] == [None]
    write_manifest(store, "a", {f"moved/{name}.jpg": name for name in names})
    report = build_index(store, space, ["a"], precision="float32")
    assert len(report.info.segments) == 1
    new = open_current(store)
    assert [new.best(vector, 10)[0].tolist() for vector in vectors[::50]] == expected


def test_its_votes_count(former: Settings) -> None:
    assert [vote.liked for vote in read_judgements(Store(former.home), "pets")] == [True, False]
