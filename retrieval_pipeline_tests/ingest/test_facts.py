"""Facts of the files of a directory, with real decode workers and an encoder without a model."""

import json
import os
import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from retrieval_pipeline.config.settings import Source
from retrieval_pipeline.errors import Stopped
from retrieval_pipeline.facts.model import Origin, PictureFacts
from retrieval_pipeline.facts.table import FactsRow, from_table
from retrieval_pipeline.images import decode_pool
from retrieval_pipeline.ingest import facts as ingest_facts
from retrieval_pipeline.ingest.crawl import update_manifest
from retrieval_pipeline.ingest.embed import EmbedOptions, update_embeddings
from retrieval_pipeline.ingest.facts import FactsReport, update_facts
from retrieval_pipeline.storage.schemas import FACTS
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_facts
from retrieval_pipeline_tests.support.encoders import DESCRIPTION, MeanColour

TAKEN = "2019:08:12 14:32:10"


@dataclass
class Library:
    """A directory of pictures, and the tables made of it."""

    store: Store
    source: Source

    @property
    def root(self) -> Path:
        assert isinstance(self.source.path, Path)
        return self.source.path

    def add(self, name: str, taken: str | None = None, colour: int = 0, **tags: str) -> None:
        """Save a picture, maybe with EXIF; its content is different for each colour."""
        exif = Image.Exif()
        if taken:
            exif[0x0110] = "Model"  # a camera: its DateTime counts
            exif[0x0132] = taken
        file = self.root / name
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 10), (colour * 20, 50, 50)).save(file, exif=exif, quality=90)
        os.utime(file, (1_600_000_000, 1_600_000_000))

    def run(self, *, embed: bool = True, stop: threading.Event | None = None) -> FactsReport:
        update_manifest(self.store, self.source, max_shrink=1.0)
        if embed:
            options = EmbedOptions(workers=1)
            update_embeddings(self.store, self.source, DESCRIPTION, MeanColour, options)
        return update_facts(self.store, self.source, workers=1, stop=stop)

    @property
    def rows(self) -> dict[str, FactsRow]:
        return {row.path: row for row in from_table(read_facts(self.store, self.source.name))}

    def facts(self, path: str) -> PictureFacts:
        return self.rows[path].facts

    def dated(self) -> dict[str, tuple[str, str]]:
        """Path -> date and where it is from."""
        return {
            path: (f"{row.facts.taken_at:%Y-%m-%d %H:%M:%S}", str(row.facts.taken_from))
            for path, row in self.rows.items()
        }


@pytest.fixture
def library(tmp_path: Path) -> Library:
    (tmp_path / "pictures").mkdir()
    return Library(Store(tmp_path / "home"), Source(name="pictures", path=tmp_path / "pictures"))


def xmp_of(**properties: str) -> str:
    """An XMP sidecar with these properties, such as xmp_Rating."""
    attributes = " ".join(
        f'{name.replace("_", ":")}="{value}"' for name, value in properties.items()
    )
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
        ' xmlns:exif="http://ns.adobe.com/exif/1.0/"'
        f' xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" {attributes}/>'
        "</rdf:RDF></x:xmpmeta>"
    )


def no_workers(*_: object) -> None:
    raise AssertionError("a worker was started")


def test_new_pictures_have_facts_after_they_are_embedded_without_another_look(
    library: Library,
) -> None:
    library.add("a.jpg", TAKEN, 1)
    library.add("IMG_20180102_030405.jpg", None, 2)
    library.add("c.jpg", None, 3)
    (library.root / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    report = library.run()
    # The broken one alone was not read while it was embedded.
    assert (report.files, report.dated, report.headers_read) == (4, 2, 1)
    dated = library.dated()
    assert dated["a.jpg"] == ("2019-08-12 14:32:10", "exif")
    assert dated["IMG_20180102_030405.jpg"] == ("2018-01-02 03:04:05", "file_name")
    local = datetime.fromtimestamp(1_600_000_000)
    assert dated["c.jpg"] == (f"{local:%Y-%m-%d %H:%M:%S}", "file_time")
    assert library.facts("broken.jpg").problems == ("header: truncated",)


def test_what_is_unchanged_is_neither_read_nor_written_again(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.add("a.jpg", TAKEN)
    library.run()
    table = library.store.facts("pictures")
    before = table.stat().st_ino
    monkeypatch.setattr(decode_pool, "Worker", no_workers)
    assert not library.run().published
    assert table.stat().st_ino == before
    # A renamed file and a copy take what is known of their content.
    (library.root / "a.jpg").rename(library.root / "b.jpg")
    (library.root / "c.jpg").write_bytes((library.root / "b.jpg").read_bytes())
    report = library.run()
    assert (report.published, report.headers_read) == (True, 0)
    assert {at for at, _ in library.dated().values()} == {"2019-08-12 14:32:10"}
    assert set(library.rows) == {"b.jpg", "c.jpg"}


def test_a_home_without_facts_gets_them_from_headers_alone_and_goes_on_where_it_was_stopped(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        library.add(f"{number}.jpg", TAKEN, number)
    library.run()
    library.store.facts("pictures").unlink()
    monkeypatch.setattr(ingest_facts, "BATCH_FILES", 2)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped, match="finished files are kept"):
        library.run(embed=False, stop=stop)
    assert len(library.rows) == 2
    assert library.run(embed=False).headers_read == 4
    assert set(library.dated().values()) == {("2019-08-12 14:32:10", "exif")}


def test_a_sidecar_that_comes_changes_and_goes_is_noticed_and_wins_over_exif(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.add("a.jpg", TAKEN)
    library.run()
    sidecar = library.root / "a.jpg.xmp"
    sidecar.write_text(xmp_of(exif_DateTimeOriginal="2001-02-03T04:05:06", xmp_Rating="3"))
    assert library.run().headers_read == 0
    assert library.dated() == {"a.jpg": ("2001-02-03 04:05:06", "sidecar")}
    assert library.facts("a.jpg").rating == 3
    sidecar.write_text(xmp_of(exif_DateTimeOriginal="2019-08-12T14:32:10", xmp_Rating="5"))
    library.run()
    # A date that only repeats that of the file is no edit.
    assert library.dated() == {"a.jpg": ("2019-08-12 14:32:10", "exif")}
    assert library.facts("a.jpg").rating == 5
    sidecar.unlink()
    library.run()
    assert library.facts("a.jpg").rating is None


def test_two_files_of_one_content_have_the_facts_of_their_own_sidecars(library: Library) -> None:
    library.add("a.jpg", TAKEN)
    library.add("b.jpg", TAKEN)
    library.add("c.jpg", TAKEN)
    (library.root / "a.xmp").write_text(xmp_of(xmp_Rating="1"))
    (library.root / "b.xmp").write_text(xmp_of(xmp_Rating="2"))
    library.run()
    assert len({row.content_id for row in library.rows.values()}) == 1
    assert [library.facts(f"{name}.jpg").rating for name in "abc"] == [1, 2, None]


def test_takeout_dates_and_places_pictures_that_have_none(library: Library) -> None:
    for name in ("a.jpg", "PXL_20190812_133210123.jpg", "20190812_143210.jpg"):
        library.add(name, None, len(name) % 10)
        about = {
            "photoTakenTime": {"timestamp": "1565616730"},
            "geoData": {"latitude": 38.7, "longitude": -9.1, "altitude": 0.0},
            "description": "A tram",
        }
        (library.root / f"{name}.supplemental-metadata.json").write_text(json.dumps(about))
    (library.root / "a.json").write_text("{}")
    library.run()
    assert set(library.dated().values()) == {
        ("2019-08-12 13:32:10", "takeout"),
        # The name says what the clock said at that moment.
        ("2019-08-12 14:32:10", "takeout"),
    }
    assert library.facts("20190812_143210.jpg").utc_offset_minutes == 60
    facts = library.facts("a.jpg")
    assert (facts.latitude, facts.altitude_m, facts.caption) == (38.7, None, "A tram")


def test_a_hostile_sidecar_is_a_problem_that_is_counted_and_no_more(library: Library) -> None:
    library.add("a.jpg", TAKEN)
    library.add("b.jpg", TAKEN, 7)
    (library.root / "a.jpg.xmp").write_text(
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + xmp_of(xmp_Rating="5")
    )
    (library.root / "b.jpg.json").write_text('{"photoTakenTime"')
    library.run()
    assert set(library.dated().values()) == {("2019-08-12 14:32:10", "exif")}
    assert library.facts("a.jpg").problems == ("sidecar: declares a document type",)
    assert library.facts("b.jpg").problems == ("takeout: not JSON",)
    assert library.facts("a.jpg").rating is None


def test_a_changed_file_has_the_facts_of_its_new_content(library: Library) -> None:
    library.add("a.jpg", TAKEN)
    library.run()
    library.add("a.jpg", "2020:01:01 00:00:00")
    os.utime(library.root / "a.jpg")
    library.run()
    assert library.dated() == {"a.jpg": ("2020-01-01 00:00:00", "exif")}


def test_a_file_without_another_date_follows_its_time(library: Library) -> None:
    library.add("a.jpg")
    library.run()
    os.utime(library.root / "a.jpg", (1_700_000_000.25, 1_700_000_000.25))
    library.run()
    facts = library.facts("a.jpg")
    assert facts.taken_at == datetime.fromtimestamp(1_700_000_000.25)
    assert facts.taken_from is Origin.FILE_TIME


def test_rows_of_an_origin_that_is_not_known_are_read_again(library: Library) -> None:
    library.add("a.jpg", TAKEN)
    library.run()
    path, position = library.store.facts("pictures"), FACTS.get_field_index("taken_from")
    table = pq.read_table(path).set_column(
        position, FACTS.field(position), pa.array(["a later version's"])
    )
    pq.write_table(table, path)
    os.utime(library.root / "a.jpg")
    assert library.run(embed=False).headers_read == 1
    assert library.dated() == {"a.jpg": ("2019-08-12 14:32:10", "exif")}


def test_facts_that_other_rules_have_read_are_read_again(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.add("a.jpg", TAKEN)
    library.run()
    monkeypatch.setattr(ingest_facts, "RULES", 10**6)
    assert library.run().headers_read == 1


def test_facts_of_a_remote_source_are_read_from_the_start_of_its_files(
    library: Library, tmp_path: Path
) -> None:
    library.add("a.jpg", TAKEN, 1)
    library.add("b.png", None, 2)
    (library.root / "b.xmp").write_text(xmp_of(photoshop_DateCreated="2003-04-05"))
    remote = Source.model_validate({"name": "there", "path": library.root.as_uri()})
    there = Library(Store(tmp_path / "other"), remote)
    assert there.run(embed=False).headers_read == 2
    assert there.dated() == {
        "a.jpg": ("2019-08-12 14:32:10", "exif"),
        "b.png": ("2003-04-05 00:00:00", "sidecar"),
    }
