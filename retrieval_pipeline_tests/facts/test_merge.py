"""Which origin wins, and what names say."""

from dataclasses import replace
from datetime import datetime

import pytest

from retrieval_pipeline.facts.cameras import camera_name
from retrieval_pipeline.facts.file_names import date_in_name
from retrieval_pipeline.facts.merge import facts_of_file, first_of
from retrieval_pipeline.facts.model import Origin, PictureFacts
from retrieval_pipeline.facts.sidecars import may_be_sidecar, sidecars_of
from retrieval_pipeline.facts.values import Moment

NOON = datetime(2019, 8, 12, 12)


def of(origin: Origin, taken_at: datetime = NOON, **facts: object) -> PictureFacts:
    return replace(PictureFacts(taken_at, None, origin), **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "taken_at"),
    [
        ("IMG_20190812_143210.jpg", "2019-08-12 14:32:10"),
        ("20190812143210.jpg", "2019-08-12 14:32:10"),
        ("2019-08-12 14.32.10.jpg", "2019-08-12 14:32:10"),
        ("2019-08-12 14.32.10-1.jpg", "2019-08-12 14:32:10"),
        ("Screenshot_2019-08-12-14-32-10.png", "2019-08-12 14:32:10"),
        ("Screenshot_20190812-143210_Maps.png", "2019-08-12 14:32:10"),
        ("Screenshot 2019-08-12 at 2.32.10\u202fPM.png", "2019-08-12 14:32:10"),
        ("Bildschirmfoto 2019-08-12 um 14.32.10.png", "2019-08-12 14:32:10"),
        ("WhatsApp Image 2019-08-12 at 14.32.10.jpeg", "2019-08-12 14:32:10"),
        ("WhatsApp Image 2019-08-12.jpg", "2019-08-12 00:00:00"),
        ("IMG-20190812-WA0003.jpg", "2019-08-12 00:00:00"),
        ("photo_2019-08-12_14-32-10.jpg", "2019-08-12 14:32:10"),
        ("signal-2019-08-12-143210.jpg", "2019-08-12 14:32:10"),
        ("2019.08.12 party.jpg", "2019-08-12 00:00:00"),
        ("DSC_0042.jpg", None),
        ("DSC20191.jpg", None),
        ("12-08-2019.jpg", None),  # or the 8th of December
        ("20190231_120000.jpg", None),
        ("1565616730123.jpg", None),
        ("5520190812.jpg", None),
        ("3840x2160.jpg", None),
    ],
)
def test_names_date_pictures(name: str, taken_at: str | None) -> None:
    found = date_in_name(name)
    assert (found and str(found.taken_at)) == taken_at
    assert found is None or found.utc_offset_minutes is None


def test_the_names_of_googles_camera_are_in_utc() -> None:
    expected = Moment(datetime(2021, 8, 12, 14, 32, 10, 123_000), 0)
    assert date_in_name("PXL_20210812_143210123.jpg") == expected
    assert date_in_name("PXL_20210812_143210123.PORTRAIT.jpg") == expected


def test_each_fact_is_taken_from_the_first_origin_that_has_it_and_a_place_from_one_alone() -> None:
    first = PictureFacts(camera_make="A", latitude=1.0, longitude=2.0, problems=("x: y",))
    second = PictureFacts(
        camera_make="B", camera="B", camera_model="C", latitude=3.0, longitude=4.0,
        altitude_m=5.0, keywords=("k",), problems=("x: y", "z: w"),
    )  # fmt: skip
    assert first_of(first, second) == PictureFacts(
        camera_make="B", camera="B", camera_model="C", latitude=1.0, longitude=2.0,
        keywords=("k",), problems=("x: y", "z: w"),
    )  # fmt: skip


def test_the_order_of_the_origins_of_a_date() -> None:
    name = "a/IMG_20180101_000000.jpg"
    exif = of(Origin.EXIF)
    takeout = of(Origin.TAKEOUT, datetime(2017, 1, 1, 0, 0, 7), utc_offset_minutes=0)
    sidecar = of(Origin.SIDECAR, datetime(2001, 1, 1))
    nothing = PictureFacts()
    order = [
        facts_of_file(exif, name, 1, sidecar, takeout),
        facts_of_file(exif, name, 1, nothing, takeout),
        facts_of_file(nothing, name, 1, nothing, takeout),
        facts_of_file(nothing, name, 1),
        facts_of_file(nothing, "20180101/a.jpg", 10**18),
        facts_of_file(nothing, "a.jpg", -1),
    ]
    assert [facts.taken_from for facts in order] == [
        *(Origin.SIDECAR, Origin.EXIF, Origin.TAKEOUT, Origin.FILE_NAME, Origin.FILE_TIME, None),
    ]


def test_a_sidecar_that_repeats_the_date_is_no_edit_but_one_that_adds_a_zone_is() -> None:
    exif = of(Origin.EXIF, NOON.replace(microsecond=5))
    assert facts_of_file(exif, "", 1, of(Origin.SIDECAR)).taken_at == exif.taken_at
    zoned = facts_of_file(exif, "", 1, of(Origin.SIDECAR, utc_offset_minutes=120))
    assert (zoned.taken_from, zoned.utc_offset_minutes) == (Origin.SIDECAR, 120)


@pytest.mark.parametrize(
    ("utc", "named", "offset"),
    [
        # Lisbon in summer and in winter, either side of a change of the clocks; Nepal; Hawaii.
        (datetime(2019, 8, 12, 13, 32, 10), "20190812_143210", 60),
        (datetime(2019, 10, 27, 0, 59, 59), "20191027_015959", 60),
        (datetime(2019, 10, 27, 1, 0, 0), "20191027_010000", 0),
        (datetime(2019, 12, 31, 20, 0, 0), "20200101_014500", 345),
        (datetime(2020, 1, 1, 5, 0, 0), "20191231_190000", -600),
    ],
)
def test_takeouts_moment_is_told_by_the_clock_that_named_the_file(
    utc: datetime, named: str, offset: int
) -> None:
    takeout = of(Origin.TAKEOUT, utc, utc_offset_minutes=0)
    facts = facts_of_file(PictureFacts(), f"IMG_{named}.jpg", 1, None, takeout)
    assert f"{facts.taken_at:%Y%m%d_%H%M%S}" == named
    assert (facts.utc_offset_minutes, facts.taken_from) == (offset, Origin.TAKEOUT)


def test_a_name_of_another_moment_leaves_takeouts_as_it_is() -> None:
    takeout = of(Origin.TAKEOUT, NOON, utc_offset_minutes=0)
    for name in ("IMG_20190812_123211.jpg", "IMG_20190814_120000.jpg", "IMG.jpg"):
        assert facts_of_file(PictureFacts(), name, 1, None, takeout).taken_at == NOON


@pytest.mark.parametrize(
    ("make", "model", "name"),
    [
        ("NIKON CORPORATION", "NIKON D750", "Nikon D750"),
        ("Canon", "Canon EOS 5D Mark III", "Canon EOS 5D Mark III"),
        ("Apple", "iPhone 12", "Apple iPhone 12"),
        ("SONY", "ILCE-7M3", "Sony ILCE-7M3"),
        ("samsung", "SM-G973F", "Samsung SM-G973F"),
        ("OLYMPUS IMAGING CORP.", "E-M1", "Olympus E-M1"),
        ("EASTMAN KODAK COMPANY", "KODAK DX6490", "Kodak DX6490"),
        ("HP", "HP PhotoSmart", "HP PhotoSmart"),
        ("Konica Minolta Camera, Inc.", "DiMAGE A200", "Konica Minolta DiMAGE A200"),
        (None, "E-M1", "E-M1"),
        ("Leica Camera AG", None, "Leica"),
        (None, None, None),
    ],
)
def test_cameras_are_named_for_people(make: str | None, model: str | None, name: str) -> None:
    assert camera_name(make, model) == name


LONG = "a photograph with a name of more than forty-six characters"


@pytest.mark.parametrize(
    ("picture", "sidecar"),
    [
        ("photo.jpg", "photo.jpg.xmp"),
        ("photo.jpg", "photo.xmp"),
        ("Photo.JPG", "photo.XMP"),
        ("photo.jpg", "photo.jpg.json"),
        ("photo.jpg", "photo.jpg.supplemental-metadata.json"),
        ("photo.jpg", "photo.jpg.supplemental-me.json"),
        ("photo.jpg", "photo.jpg.s.json"),
        ("photo(1).jpg", "photo.jpg(1).json"),
        ("photo(1).jpg", "photo.jpg.supplemental-metadata(1).json"),
        ("photo(1).jpg", "photo(1).jpg.json"),
        ("photo-edited.jpg", "photo.jpg.json"),
        ("photo-edited(1).jpg", "photo.jpg(1).json"),
        (f"{LONG}.jpg", f"{LONG[:46]}.json"),
        ("no extension", "no extension.supplemental-metadata.json"),
    ],
)
def test_sidecars_are_found_beside_their_pictures(picture: str, sidecar: str) -> None:
    others = ["other.jpg", "photo.jpg.png"]
    assert may_be_sidecar(f"a/{sidecar}")
    found = sidecars_of([f"a/{picture}", "b/photo.jpg", *others], [f"a/{sidecar}"])
    assert found == {f"a/{picture}": [f"a/{sidecar}"]}


def test_files_that_belong_to_nothing_or_to_no_one_picture_are_no_sidecars() -> None:
    pictures = ["photo.jpg", "photo(1).jpg", f"{LONG}.jpg", f"{LONG} two.jpg"]
    files = ["photo.jpg.json.json", "other.xmp", "photo.jpg.super.json", f"{LONG[:46]}.json"]
    assert sidecars_of(pictures, [*files, "photo.jpg(2).json"]) == {}
    assert not any(map(may_be_sidecar, ["package.json", "photo.jpg", "a.b/manifest.json", "xmp"]))


def test_the_sidecar_of_the_whole_name_wins_over_that_of_the_stem() -> None:
    files = ["a.jpg.json", "a.jpg.xmp", "a.xmp"]
    found = sidecars_of(["a.jpg", "a.nef"], files)
    assert found == {"a.jpg": ["a.jpg.xmp", "a.xmp", "a.jpg.json"], "a.nef": ["a.xmp"]}
