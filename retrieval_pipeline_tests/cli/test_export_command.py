"""`retrieval export`: files that hold what is known of pictures, and targets that are refused."""

import csv
import json
import shutil
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from retrieval_pipeline.cli.commands.export import export
from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.settings import LabelSettings
from retrieval_pipeline.errors import RetrievalError
from retrieval_pipeline.export import files
from retrieval_pipeline.export.table import COLUMNS, PictureRows, picture_table, select
from retrieval_pipeline.facts.embedded import embedded_facts
from retrieval_pipeline.progress import Quiet
from retrieval_pipeline.recommend.votes import add_judgements
from retrieval_pipeline.search.labels import LabelsInfo
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.albums import add_to_album
from retrieval_pipeline.storage.schemas import LABELS
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import write_table
from retrieval_pipeline_tests.support.commands import extract_home
from synthetic.tables import content


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_home(tmp_path_factory.mktemp("export") / "library")


@pytest.fixture(scope="module")
def searcher(library: Path) -> Searcher:
    """Five pictures, of which cat.jpg has a vote, an album and two labels."""
    searcher = Searcher.open(load_settings(library / "retrieval.toml"))
    store, build = Store(searcher.settings.home), searcher.corpus
    ids = {hit.path.name: hit.content_id for hit in searcher.search(Query(sort="name"))}
    cat, rocket = ids["cat.jpg"], ids["rocket.jpg"]
    add_judgements(store, "pets", [(rocket, True), (cat, True), (rocket, False)])
    add_to_album(store, "all sorts", {cat: None, content("gone"): None})
    asked = LabelSettings(words=("a & b", "pet"))
    info = LabelsInfo(asked=asked, build=build.path.name, space=build.info.space.key)
    rows = [
        {"content_id": rocket, "word": "a & b", "relevance": 0.5},
        {"content_id": cat, "word": "a & b", "relevance": 0.75},
        {"content_id": content("gone"), "word": "pet", "relevance": 1.0},
        {"content_id": cat, "word": "pet", "relevance": 1.0},
    ]
    table = pa.Table.from_pylist(rows, schema=LABELS)
    write_table(store.labels, table, more={b"labels": info.model_dump_json().encode()})
    return searcher


def rows_of(searcher: Searcher, **query: object) -> PictureRows:
    return PictureRows(searcher, select(searcher, Query.of(query)))


def run(*arguments: object) -> None:
    export.main([str(each) for each in arguments], standalone_mode=False)


def test_a_table_holds_all_that_is_known_and_describes_its_columns(
    searcher: Searcher, library: Path, tmp_path: Path
) -> None:
    files.write_parquet(rows_of(searcher), tmp_path / "all.parquet", Quiet())
    table = pq.read_table(tmp_path / "all.parquet")
    assert table.equals(picture_table(searcher))
    assert {name: table.schema.field(name).metadata[b"description"] for name in COLUMNS} == {
        name: text.encode() for name, text in COLUMNS.items()
    }
    assert json.loads(table.schema.metadata[b"retrieval"])["model"] == "offline"
    rows = {Path(row["path"]).name: row for row in table.to_pylist()}
    cat = rows["cat.jpg"]
    assert cat["path"] == str(library / "pictures" / "cat.jpg")
    assert [Path(path).name for path in cat["copies"]] == ["cat.jpg", "copy.jpg"]
    assert (cat["labels"], cat["label_relevance"]) == (["a & b", "pet"], [0.75, 1.0])
    assert (cat["albums"], cat["liked_by"], cat["disliked_by"]) == (["all sorts"], ["pets"], [])
    assert rows["rocket.jpg"]["disliked_by"] == ["pets"]
    assert (cat["rank"], cat["relevance"]) == (None, None)
    number = searcher.corpus.number_of(cat["content_id"])
    assert number is not None
    stored = searcher.corpus.vectors(np.array([number]))[0]
    assert np.array_equal(np.array(cat["embedding"], np.float32), stored)


def test_a_selection_is_that_of_the_query(searcher: Searcher) -> None:
    like = select(searcher, Query(images=(searcher.search(Query(sort="name"))[0].path,)), 2)
    table = picture_table(searcher, like.query, 2, vectors=False)
    assert "embedding" not in table.schema.names
    assert table["rank"].to_pylist() == [1, 2]
    assert Path(table["path"][0].as_py()).name == "cat.jpg"
    assert len(picture_table(searcher, Query(labels=("pet",)))) == 1
    assert len(picture_table(searcher, Query(labels=("pet",), albums=("all sorts",)))) == 1
    assert len(picture_table(searcher, Query(paths=("nothing",)))) == 0


def test_a_lance_dataset_has_the_same_rows(
    library: Path, searcher: Searcher, tmp_path: Path
) -> None:
    lance = pytest.importorskip("lance", reason='the extra "lance" is not installed')
    run("--config", library / "retrieval.toml", tmp_path / "all.lance")
    assert lance.dataset(str(tmp_path / "all.lance")).to_table() == picture_table(searcher)


def test_without_lance_one_line_says_what_to_do(
    searcher: Searcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lance", None)
    with pytest.raises(RetrievalError, match=r'pip install "retrieval-pipeline\[lance\]"'):
        files.write_lance(rows_of(searcher), tmp_path / "all.lance", Quiet())
    assert list(tmp_path.iterdir()) == []


def test_numpy_and_csv_have_the_same_rows(searcher: Searcher, tmp_path: Path) -> None:
    files.write_numpy(rows_of(searcher), tmp_path / "out", Quiet())
    table = picture_table(searcher)
    vectors = np.load(tmp_path / "out" / "vectors.npy")
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors, np.array(table["embedding"].to_pylist(), np.float32))
    rows = list(csv.DictReader((tmp_path / "out" / "pictures.csv").open()))
    assert [row["path"] for row in rows] == table["path"].to_pylist()
    assert [json.loads(row["albums"]) for row in rows] == table["albums"].to_pylist()
    with pytest.raises(RetrievalError, match="is not empty"):
        files.write_numpy(rows_of(searcher), tmp_path / "out", Quiet())


@pytest.mark.slow
def test_a_tar_has_small_pictures_and_leaves_out_what_is_gone(
    library: Path, searcher: Searcher, tmp_path: Path
) -> None:
    (library / "pictures" / "rocket.jpg").rename(tmp_path / "rocket.jpg")
    run("--config", library / "retrieval.toml", tmp_path / "t.tar", "--size", 64)
    shutil.move(tmp_path / "rocket.jpg", library / "pictures" / "rocket.jpg")
    with tarfile.open(tmp_path / "t.tar") as tar:
        members = {name: tar.extractfile(name) for name in tar.getnames()}
        assert len(members) == 3 * 4
        cat = picture_table(searcher, Query(labels=("pet",)))["content_id"][0].as_py()
        small = Image.open(BytesIO(members[f"{cat}.jpg"].read()))  # type: ignore[union-attr]
        assert max(small.size) == 64
        assert json.load(members[f"{cat}.json"])["labels"] == ["a & b", "pet"]  # type: ignore[arg-type]


def test_labels_become_sidecars_that_this_program_reads(searcher: Searcher, tmp_path: Path) -> None:
    assert files.write_xmp(rows_of(searcher), tmp_path / "x", Quiet()) == 2
    found = sorted(
        path.relative_to(tmp_path).as_posix() for path in (tmp_path / "x").rglob("*.xmp")
    )
    assert found == ["x/pictures/cat.jpg.xmp", "x/pictures/rocket.jpg.xmp"]
    image = Image.new("RGB", (8, 8))
    image.info["xmp"] = (tmp_path / found[0]).read_bytes()
    assert [*embedded_facts(image).keywords] == ["a & b", "pet"]


def test_pictures_without_labels_have_no_sidecars_and_the_way_to_labels_is_told(
    searcher: Searcher, library: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = ("--config", library / "retrieval.toml")
    run(*config, tmp_path / "x", "--as", "xmp", "--path", "nothing")
    assert "`retrieval label WORDS`" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("target", "options", "why"),
    [
        ("pictures/all.parquet", (), 'lies in the source "pictures"'),
        ("home/x", ("--as", "xmp"), "lies in the home"),
        ("/proc/all.parquet", (), "cannot be written"),
        (f"{'x' * 250}.parquet", (), "File name too long"),
        ("retrieval.toml", ("--as", "parquet"), "exists: name another file, or add --overwrite"),
        ("new.parquet", ("--album", "nope"), 'there is no album "nope"'),
    ],
)
def test_a_target_that_cannot_take_it_is_one_line_and_nothing_is_left(
    library: Path, monkeypatch: pytest.MonkeyPatch, target: str, options: tuple[str, ...], why: str
) -> None:
    monkeypatch.chdir(library)
    before = sorted(library.rglob("*"))
    with pytest.raises(RetrievalError, match=why) as refused:
        run(target, *options)
    assert len(refused.value.args) == 1
    assert sorted(library.rglob("*")) == before


def test_a_full_disk_leaves_nothing_under_the_name(
    searcher: Searcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(28, "No space left on device")
    monkeypatch.setattr(PictureRows, "batches", lambda _: (_ for _ in ()).throw(full))
    for write in (files.write_parquet, files.write_numpy, files.write_xmp):
        with pytest.raises(RetrievalError, match="no space left"):
            write(rows_of(searcher), tmp_path / "out", Quiet())
        assert list(tmp_path.iterdir()) == []
