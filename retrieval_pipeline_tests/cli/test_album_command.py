"""`retrieval album`, and albums as filters and examples of a query."""

import json
from pathlib import Path

import pytest

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.search.albums import representatives
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.albums import add_to_album, delete_album, read_album
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline_tests.support.commands import assert_one_line, extract_home, retrieval
from synthetic.tables import content, random_vectors

BY_NAME = ("query", "--sort", "name", "--paths")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_home(tmp_path_factory.mktemp("albums") / "library")


def names(output: str) -> list[str]:
    return sorted(Path(line).name for line in output.splitlines())


@pytest.mark.slow
def test_pictures_go_in_by_every_name_and_come_out_as_paths(library: Path, tmp_path: Path) -> None:
    hit = json.loads(retrieval(library, *BY_NAME[:3], "-n", "1", "--jsonl").stdout)
    (tmp_path / "elsewhere.jpg").write_bytes((library / "pictures" / "rocket.jpg").read_bytes())
    for name in (
        hit["content_id"],
        "coffee.jpg",
        "pictures/flower.jpg",
        tmp_path / "elsewhere.jpg",
    ):
        done = retrieval(library, "album", "all sorts", "add", str(name))
        assert "1 added" in done.stderr, done.stderr
    done = retrieval(library, "album", "all sorts", "export")
    four = ["cat.jpg", "coffee.jpg", "flower.jpg", "rocket.jpg"]
    assert names(done.stdout) == four
    again = retrieval(library, "album", "all sorts", "add", input=done.stdout)
    assert "0 added, 4 were in it; 4 in the album" in again.stderr
    # What is on disk no more still goes out, by the path of the index.
    (library / "pictures" / "coffee.jpg").rename(library / "gone.jpg")
    paths = f"pictures/flower.jpg\0{library}/pictures/coffee.jpg\0"
    done = retrieval(library, "album", "all sorts", "remove", "-0", input=paths)
    (library / "gone.jpg").rename(library / "pictures" / "coffee.jpg")
    assert "2 removed; 2 in the album" in done.stderr
    done = retrieval(library, "album", "all sorts", "export", "--copy-to", str(tmp_path / "out"))
    assert len([*(tmp_path / "out").iterdir()]) == 2


def test_an_album_gets_another_name(library: Path) -> None:
    store = Store(library / "home")
    add_to_album(store, "2019", {content("one"): None})
    assert (
        'now named "last summer"'
        in retrieval(library, "album", "2019", "rename", "last summer").stderr
    )
    assert [picture.content_id for picture in read_album(store, "last summer")] == [content("one")]
    assert_one_line(retrieval(library, "album", "2019", "rename", "x"), 'there is no album "2019"')
    delete_album(store, "last summer")


@pytest.mark.slow
def test_a_picture_that_left_the_index_stays_and_is_told(library: Path) -> None:
    store = Store(library / "home")
    add_to_album(store, "old", {content("gone"): "cam/gone.jpg"})
    retrieval(library, "album", "old", "add", "cat.jpg")
    done = retrieval(library, "album", "old")
    assert "cat.jpg" in done.stdout
    assert f"kept in the album: {content('gone')}, was cam/gone.jpg" in done.stderr
    retrieval(library, "album", "old", "remove", "cam/gone.jpg")
    assert len(read_album(store, "old")) == 1
    assert "     1  old\n" in retrieval(library, "album").stdout


def test_an_album_asks_for_more_of_its_kind_and_is_no_answer_to_itself(library: Path) -> None:
    settings = load_settings(library / "retrieval.toml")
    searcher = Searcher.open(settings)
    everything = searcher.search(Query(sort="name"))
    add_to_album(Store(settings.home), "two", {hit.content_id: None for hit in everything[:2]})
    hits = searcher.search(Query(like_albums=("two",)))
    assert {hit.content_id for hit in hits} == {hit.content_id for hit in everything[2:]}
    alone = searcher.query_vectors([Query(like=(everything[0].content_id,))])[0]
    add_to_album(Store(settings.home), "one", {everything[0].content_id: None})
    assert (searcher.query_vectors([Query(like_albums=("one",))])[0].wanted == alone.wanted).all()
    # The searcher is open all the time: it sees how albums change.
    assert len(searcher.search(Query(albums=("one", "two"), sort="name"))) == 2
    add_to_album(Store(settings.home), "one", {everything[4].content_id: None})
    assert len(searcher.search(Query(albums=("one", "two"), sort="name"))) == 3


def test_representatives_are_the_middles_of_clumps_by_their_shares() -> None:
    middles = random_vectors(3, 64, seed=1)
    clumps = [0] * 50 + [1] * 30 + [2] * 20
    vectors = middles[clumps] + 0.02 * random_vectors(100, 64, seed=2)
    vectors /= ((vectors**2).sum(axis=1) ** 0.5)[:, None]
    chosen, shares = representatives(vectors, 3)
    assert {clumps[number]: share for number, share in zip(chosen, shares, strict=True)} == {
        0: 0.5,
        1: 0.3,
        2: 0.2,
    }
    assert len(representatives(vectors[:2], 8)[0]) == 2


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("album", "x", "add", "nothing.jpg"), "nothing.jpg: no such file, path in a source"),
        (("album", "x", "add", "retrieval.toml"), "is not in the index"),
        (("album", "x", "add", "f" * 32), "is not in the index"),
        (("album", "x\n", "add", "cat.jpg"), "cannot name an album"),
        (("album", "nope"), 'there is no album "nope"'),
        (("query", "--sort", "name", "--album", "nope"), 'there is no album "nope"'),
        (("query", "--like-album", "nope"), 'there is no album "nope"'),
    ],
)
def test_a_mistake_is_one_line(library: Path, arguments: tuple[str, ...], why: str) -> None:
    assert_one_line(retrieval(library, *arguments), why)
