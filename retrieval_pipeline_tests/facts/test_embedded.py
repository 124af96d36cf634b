"""Facts of real pictures that ExifTool has given metadata to, and of metadata made by bytes."""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from retrieval_pipeline.facts.model import Origin, PictureFacts, ReadFacts, from_json, to_json
from retrieval_pipeline.images.decode import pillow_within
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.images.header import read_facts
from retrieval_pipeline.images.transform import ImageTransform
from retrieval_pipeline_tests.support.decoding import decode
from retrieval_pipeline_tests.support.exiftool import needs_exiftool, write_metadata

# What photographs have in common, as ExifTool calls it.
CAMERA = (
    *("-EXIF:DateTimeOriginal=2019:08:12 14:32:10", "-EXIF:SubSecTimeOriginal=25"),
    *("-EXIF:OffsetTimeOriginal=+01:00", "-EXIF:Make=NIKON CORPORATION", "-EXIF:Model=NIKON D750"),
    *("-EXIF:LensModel=50mm f/1.8", "-EXIF:ExposureTime=1/250", "-EXIF:FNumber=2.8"),
    *("-EXIF:ISO=400", "-EXIF:FocalLength=50", "-EXIF:Orientation#=6"),
    *("-EXIF:GPSLatitude=38.72", "-EXIF:GPSLatitudeRef=N", "-EXIF:GPSLongitude=9.14"),
    *("-EXIF:GPSLongitudeRef=W", "-EXIF:GPSAltitude=12.5", "-EXIF:GPSAltitudeRef#=1"),
)
WORDS = (
    *("-XMP-dc:Title=Tram", "-XMP-dc:Description=A tram", "-XMP-dc:Subject=tram"),
    *("-XMP-dc:Subject=hill", "-XMP-xmp:Rating=4"),
)
EVERYTHING = PictureFacts(
    taken_at=datetime(2019, 8, 12, 14, 32, 10, 250_000),
    utc_offset_minutes=60,
    taken_from=Origin.EXIF,
    camera_make="NIKON CORPORATION",
    camera_model="NIKON D750",
    camera="Nikon D750",
    lens="50mm f/1.8",
    exposure_seconds=1 / 250,
    f_number=2.8,
    focal_length_mm=50.0,
    iso=400,
    latitude=pytest.approx(38.72),
    longitude=pytest.approx(-9.14),
    altitude_m=-12.5,
    orientation=6,
    title="Tram",
    caption="A tram",
    keywords=("tram", "hill"),
    rating=4,
)
FORMATS = ("jpg", "png", "webp", "tif", "avif")
ENCODER = ImageTransform(8, (8, 8), "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
# Name of a picture -> what ExifTool writes into it.
PICTURES = {
    **{f"all.{format}": (*CAMERA, *WORDS) for format in FORMATS},
    "xmp.jpg": ("-XMP-photoshop:DateCreated=2018:01:02 03:04:05-03:30", "-XMP-tiff:Make=Apple",
                "-XMP-tiff:Model=iPhone 12", "-XMP-exif:GPSLatitude=-33.9",
                "-XMP-exif:GPSLongitude=151.2", "-XMP-exif:ExposureTime=1/60",
                "-XMP-exif:GPSAltitude=7", "-XMP-aux:Lens=wide"),
    "iptc.jpg": ("-IPTC:DateCreated=2017:05:06", "-IPTC:TimeCreated=10:20:30+02:00",
                 "-IPTC:ObjectName=Título", "-IPTC:Caption-Abstract=Straßenbahn",
                 "-IPTC:Keywords=a", "-IPTC:Keywords=b", "-IPTC:CodedCharacterSet=UTF8"),
    "both.jpg": ("-EXIF:DateTimeOriginal=2019:08:12 14:32:10", "-EXIF:ImageDescription=SONY DSC",
                 "-XMP-photoshop:DateCreated=2001:01:01", "-IPTC:DateCreated=2002:02:02",
                 "-IPTC:Caption-Abstract=from IPTC"),
    "scan.jpg": ("-EXIF:CreateDate=2020:02:03 04:05:06", "-EXIF:ModifyDate=2021:01:01 00:00:00"),
    "edited.jpg": ("-EXIF:ModifyDate=2021:01:01 00:00:00",),
    "motion.jpg": ("-XMP-GCamera:MicroVideo=1",),
    "still.jpg": ("-XMP-GCamera:MicroVideo=0",),
    "windows.jpg": ("-EXIF:XPTitle=Straße", "-EXIF:XPKeywords=one;two", "-EXIF:Rating=3"),
}  # fmt: skip


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of PICTURES; one start of ExifTool writes all of it."""
    root = tmp_path_factory.mktemp("pictures")
    for name in PICTURES:
        Image.new("RGB", (32, 24), "green").save(root / name)
    write_metadata({root / name: tags for name, tags in PICTURES.items()})
    return root


@pytest.fixture(autouse=True)
def limits() -> Iterator[Limits]:
    with pillow_within(Limits()):
        yield Limits()


def facts_of(source: Path | bytes, of: ReadFacts | None = None) -> PictureFacts:
    """The facts of a file, which must survive the way from the worker to its parent."""
    data = source if isinstance(source, bytes) else str(source)
    facts = read_facts(data, of or ReadFacts(), Limits())
    assert from_json(to_json(facts)) == facts
    return facts


@needs_exiftool
@pytest.mark.parametrize("format", FORMATS)
def test_every_fact_is_read_from_each_format_by_its_header_and_while_it_is_decoded(
    pictures: Path, format: str
) -> None:
    file = pictures / f"all.{format}"
    facts = facts_of(file)
    # How an AVIF is turned, its container says alone.
    assert facts == replace(EVERYTHING, orientation=1 if format == "avif" else 6)
    assert decode(file, ENCODER).facts == facts


@needs_exiftool
def test_each_origin_alone_dates_a_picture_and_exif_wins(pictures: Path) -> None:
    xmp, iptc, both = (facts_of(pictures / f"{name}.jpg") for name in ("xmp", "iptc", "both"))
    assert (xmp.taken_at, xmp.utc_offset_minutes) == (datetime(2018, 1, 2, 3, 4, 5), -210)
    assert (xmp.taken_from, xmp.camera, xmp.lens) == (Origin.XMP, "Apple iPhone 12", "wide")
    assert (xmp.latitude, xmp.longitude, xmp.altitude_m) == pytest.approx((-33.9, 151.2, 7))
    assert xmp.exposure_seconds == 1 / 60
    assert (iptc.taken_at, iptc.utc_offset_minutes) == (datetime(2017, 5, 6, 10, 20, 30), 120)
    assert (iptc.taken_from, iptc.title, iptc.caption) == (Origin.IPTC, "Título", "Straßenbahn")
    assert iptc.keywords == ("a", "b")
    # The camera's default is no caption.
    assert (both.taken_from, both.caption) == (Origin.EXIF, "from IPTC")
    assert both.taken_at == datetime(2019, 8, 12, 14, 32, 10)


@needs_exiftool
def test_the_time_of_a_scan_is_a_date_and_that_of_an_edit_is_none(pictures: Path) -> None:
    assert facts_of(pictures / "scan.jpg").taken_at == datetime(2020, 2, 3, 4, 5, 6)
    assert facts_of(pictures / "edited.jpg").taken_at is None


@needs_exiftool
def test_what_windows_writes_is_understood(pictures: Path) -> None:
    facts = facts_of(pictures / "windows.jpg")
    assert (facts.title, facts.keywords, facts.rating) == ("Straße", ("one", "two"), 3)


def test_the_texts_of_a_png_are_read_also_behind_its_pixels() -> None:
    buffer = BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    data = buffer.getvalue()
    texts = b"".join(
        _chunk(b"tEXt", keyword + b"\0" + value)
        for keyword, value in (
            (b"Creation Time", b"Mon, 12 Aug 2019 14:32:10 +0100"),
            (b"Title", b"Tram"),
        )
    )
    facts = facts_of(data[:-12] + texts + data[-12:])
    assert facts == PictureFacts(datetime(2019, 8, 12, 14, 32, 10), 60, Origin.PNG, title="Tram")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


Tag = tuple[int, int, bytes]
ASCII, LONG, RATIONAL, SIGNED_RATIONAL, SHORT = 2, 4, 5, 10, 3
_BYTES = {ASCII: 1, SHORT: 2, LONG: 4, RATIONAL: 8, SIGNED_RATIONAL: 8}
DATE, MAKE, EXPOSURE, OFFSET, ORIENTATION = 0x9003, 0x010F, 0x829A, 0x9011, 0x0112
EXIF_IFD, GPS_IFD = 0x8769, 0x8825


def exif_of(
    camera: Sequence[Tag] = (), picture: Sequence[Tag] = (), gps: Sequence[Tag] = ()
) -> bytes:
    """A little-endian EXIF block with these tags: number, type, value."""
    out = bytearray(b"II*\0\x08\0\0\0")
    pointers = [(EXIF_IFD, picture)] * bool(picture) + [(GPS_IFD, gps)] * bool(gps)
    end = 8 + 2 + 12 * (len(camera) + len(pointers)) + 4
    end += sum(len(value) for _, _, value in camera)
    own = list(camera)
    following = bytearray()
    for tag, tags in pointers:
        own.append((tag, LONG, struct.pack("<I", end + len(following))))
        following += _ifd(tags, end + len(following))
    out += _ifd(own, 8)
    return bytes(out.ljust(end, b"\0") + following)


def _ifd(tags: Sequence[Tag], offset: int) -> bytes:
    """A directory of tags that starts at `offset`, with the values behind it."""
    entries, values = bytearray(), bytearray()
    place = offset + 2 + 12 * len(tags) + 4
    for tag, kind, value in tags:
        entries += struct.pack("<HHI", tag, kind, len(value) // _BYTES[kind])
        if len(value) <= 4:
            entries += value.ljust(4, b"\0")
        else:
            entries += struct.pack("<I", place + len(values))
            values += value
    return struct.pack("<H", len(tags)) + bytes(entries) + b"\0\0\0\0" + bytes(values)


def jpeg_of(exif: bytes, format: str = "JPEG") -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (16, 8), "red").save(buffer, format, exif=b"Exif\0\0" + exif)
    return buffer.getvalue()


def dated(text: bytes, *more: Tag) -> bytes:
    return exif_of(picture=[(DATE, ASCII, text + b"\0"), *more])


def at(latitude: int, longitude: int) -> bytes:
    degrees = (struct.pack("<6I", each, 1, 0, 1, 0, 1) for each in (latitude, longitude))
    north, east = degrees
    refs = [(1, ASCII, b"N\0"), (2, RATIONAL, north), (3, ASCII, b"E\0"), (4, RATIONAL, east)]
    return exif_of(gps=refs)


GOOD = b"2019:08:12 14:32:10"
# A block, the problems that are counted, and whether the picture has a date nevertheless.
HOSTILE: dict[str, tuple[bytes, tuple[str, ...], bool]] = {
    "year 0": (dated(b"0000:08:12 14:32:10"), ("exif: date of year 0",), False),
    "year 9999": (dated(b"9999:12:31 23:59:59"), ("exif: date out of range",), False),
    "the 30th of February": (dated(b"2019:02:30 14:32:10"), ("exif: no such date",), False),
    "words": (dated(b"a day in summer\x07..."), ("exif: unreadable date",), False),
    "unknown, as EXIF says it": (dated(b"    :  :     :  :  "), (), False),
    "unknown, as cameras say it": (dated(b"0000:00:00 00:00:00"), (), False),
    "a number for a date": (
        exif_of(picture=[(DATE, LONG, struct.pack("<I", 2019))]),
        ("exif: date of a wrong type",),
        False,
    ),
    "a zone that is none": (
        dated(GOOD, (OFFSET, ASCII, b"+99:99\0")),
        ("exif: impossible time zone",),
        True,
    ),
    "a bell in the make": (
        exif_of([(MAKE, ASCII, b"Ni\x07kon\0")]),
        ("exif: make with control characters",),
        False,
    ),
    "an orientation that is none": (
        exif_of([(ORIENTATION, SHORT, struct.pack("<H", 42))]),
        ("exif: orientation out of range",),
        False,
    ),
    "a negative exposure": (
        dated(GOOD, (EXPOSURE, SIGNED_RATIONAL, struct.pack("<ii", -1, 60))),
        ("exif: exposure time out of range",),
        True,
    ),
    "an exposure by 0": (dated(GOOD, (EXPOSURE, RATIONAL, struct.pack("<II", 0, 0))), (), True),
    "beyond the pole": (at(91, 10), ("exif: position out of range",), False),
    "the place of those who know none": (at(0, 0), (), False),
    "a directory that contains itself": (
        exif_of([(MAKE, ASCII, b"Me\0\0"), (EXIF_IFD, LONG, struct.pack("<I", 8))]),
        (),
        False,
    ),
    "more tags than bytes": (b"II*\0\x08\0\0\0\xff\xff" + b"\0" * 40, (), False),
    "no EXIF at all": (b"\xff" * 100, ("exif: damaged",), False),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_exif_is_counted_and_never_an_error_of_the_picture(name: str) -> None:
    exif, problems, has_date = HOSTILE[name]
    facts = decode(jpeg_of(exif), ENCODER).facts
    assert facts is not None
    assert facts.problems == problems
    assert (facts.taken_at is not None) == has_date
    assert (facts.latitude, facts.exposure_seconds) == (None, None)
    assert facts_of(jpeg_of(exif)) == facts


def test_exif_that_is_too_large_is_not_parsed() -> None:
    facts = facts_of(jpeg_of(dated(GOOD) + bytes(2 << 20), "WEBP"))
    assert facts == PictureFacts(problems=("exif: too large",))


def xmp_of(properties: str = "", before: str = "", inside: str = "") -> bytes:
    return (
        f'{before}<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
        ' xmlns:exif="http://ns.adobe.com/exif/1.0/"'
        f" {properties}>{inside}</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">'
    '<!ENTITY c SYSTEM "file:///etc/passwd">]>'
)


@pytest.mark.parametrize(
    ("packet", "problem"),
    [
        (xmp_of('xmp:Rating="5"', BOMB, "&b;&c;"), "declares a document type"),
        (xmp_of('xmp:Rating="5"')[:-9], "not well-formed"),
        (b'<?xml version="1.0" encoding="klingon"?><x/>', "not well-formed"),
        (xmp_of('xmp:Rating="9"'), "rating out of range"),
        (xmp_of('xmp:Rating="NaN"'), None),
        (xmp_of('exif:DateTimeOriginal="0000-01-01"'), "date of year 0"),
        (xmp_of('exif:GPSLatitude="99,0N" exif:GPSLongitude="1,0E"'), "position out of range"),
        (xmp_of('exif:GPSLatitude="north" exif:GPSLongitude="1,0E"'), "unreadable position"),
        (xmp_of(inside="<a>" * 50_000 + "</a>" * 50_000), None),
        (b" " * (9 << 20), "too large"),
    ],
)
def test_hostile_xmp_is_counted(packet: bytes, problem: str | None) -> None:
    facts = facts_of(packet, ReadFacts("xmp"))
    assert facts == PictureFacts(problems=(f"sidecar: {problem}",) if problem else ())


@needs_exiftool
def test_a_motion_photo_is_known_by_its_xmp(pictures: Path) -> None:
    assert facts_of(pictures / "motion.jpg").motion_photo
    assert facts_of(pictures / "still.jpg").motion_photo is None
    # As Android writes it since 2019, which this ExifTool does not.
    camera = 'xmlns:c="http://ns.google.com/photos/1.0/camera/" c:MotionPhoto="1"'
    assert facts_of(xmp_of(camera), ReadFacts("xmp")).motion_photo


def test_xmp_may_be_in_utf_16_padded_and_less_than_a_day_exact() -> None:
    text = xmp_of('exif:DateTimeOriginal="1974" xmp:Rating="-1"').decode()
    expected = PictureFacts(datetime(1974, 1, 1), None, Origin.SIDECAR, rating=-1)
    assert facts_of(text.encode("utf-16"), ReadFacts("xmp")) == expected
    assert facts_of(text.encode() + b" \n" * 99 + b"\0", ReadFacts("xmp")) == expected


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"photoTakenTime": {"timestamp": "99999999999999"}}', "date out of range"),
        ('{"photoTakenTime": {"timestamp": {}}}', "date of a wrong type"),
        ('{"photoTakenTime": {"timestamp": "0"}}', None),
        ('{"photoTakenTime": 7}', None),
        ('["of another program"]', None),
    ],
)
def test_hostile_takeout_is_counted(written: str, problem: str | None) -> None:
    facts = facts_of(written.encode(), ReadFacts("takeout"))
    assert facts == PictureFacts(problems=(f"takeout: {problem}",) if problem else ())


def test_facts_of_a_raw_file_are_read_though_pillow_does_not_open_it() -> None:
    exif = dated(GOOD)
    expected = datetime(2019, 8, 12, 14, 32, 10)
    assert facts_of(b"IIRO" + exif[4:]).taken_at == expected  # Olympus
    assert facts_of(b"IIU\0" + exif[4:]).taken_at == expected  # Panasonic
    jpeg = jpeg_of(exif)
    fujifilm = b"FUJIFILMCCD-RAW ".ljust(84, b"\0") + struct.pack(">II", 92, len(jpeg)) + jpeg
    assert facts_of(fujifilm).taken_at == expected
    # Canon: the tags of the picture are the first directory of a block of their own.
    block = b"II*\0\x08\0\0\0" + _ifd([(DATE, ASCII, GOOD + b"\0")], 8)
    canon = b"\0\0\0\x18ftypcrx " + struct.pack(">I", len(block) + 8) + b"CMT2" + block
    assert facts_of(canon).taken_at == expected
