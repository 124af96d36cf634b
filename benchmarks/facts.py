"""How fast the facts of JPEGs are read: from headers alone, and what they add to decoding.

    python benchmarks/facts.py [--files 10000] [--megapixels 1]

The files are written to a temporary directory, with the EXIF of a camera and an XMP packet. Headers
are read in this process, on one core, by the function that decode workers call, and by ExifRead if
it is installed (which reads EXIF alone); then a whole home gets its facts through the workers.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from retrieval_pipeline.config.settings import Source
from retrieval_pipeline.facts.model import ReadFacts
from retrieval_pipeline.images.decode import decode, pillow_within
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.images.header import read_facts
from retrieval_pipeline.images.transform import Decoded, Fit, ImageTransform
from retrieval_pipeline.ingest.crawl import update_manifest
from retrieval_pipeline.ingest.facts import update_facts
from retrieval_pipeline.storage.store import Store

# The same work on the pixels: only for an encoder, the facts are read.
CLIP = ImageTransform((224, 336), None, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
SHRUNK = Fit(336)
# Files that the slower ways are measured on.
FEW = 300

XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmp:Rating="4"><dc:subject><rdf:Bag><rdf:li>tram</rdf:li><rdf:li>hill</rdf:li></rdf:Bag>
</dc:subject></rdf:Description></rdf:RDF></x:xmpmeta>"""


def write_files(root: Path, count: int, megapixels: float) -> list[Path]:
    """Write JPEGs of one picture, each with a date of its own."""
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    noise = np.random.default_rng(0).integers(0, 255, (height // 8, height * 3 // 16, 3), np.uint8)
    picture = Image.fromarray(noise).resize((height * 3 // 2, height), Image.Resampling.BICUBIC)
    files = []
    for number in range(count):
        exif = Image.Exif()
        exif[0x010F], exif[0x0110], exif[0x0112] = "NIKON CORPORATION", "NIKON D750", 1
        own = exif.get_ifd(0x8769)
        own[0x9003] = f"2019:08:12 {number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}"
        own[0x829A], own[0x829D], own[0x8827], own[0x920A] = 1 / 250, 2.8, 400, 50.0
        gps = exif.get_ifd(0x8825)
        gps[1], gps[2], gps[3], gps[4] = "N", (38.0, 43.0, 20.0), "W", (9.0, 8.0, 21.0)
        file = root / f"{number:06}.jpg"
        if number == 0:
            picture.save(file, quality=90, exif=exif, xmp=XMP)
            rest = file.read_bytes()
        else:
            small = Image.new("RGB", (1, 1))
            small.save(file, exif=exif)
            # The same pixels behind other metadata: encoding each file anew would take an hour.
            block = _segment(file.read_bytes(), 0xE1)
            file.write_bytes(rest.replace(_segment(rest, 0xE1), block, 1))
        files.append(file)
    return files


def _segment(jpeg: bytes, marker: int) -> bytes:
    start = jpeg.index(bytes((0xFF, marker)))
    return jpeg[start : start + 2 + int.from_bytes(jpeg[start + 2 : start + 4], "big")]


def rate(work: Callable[[Path], object], files: Sequence[Path]) -> float:
    """Return the files a second and core, the best of three passes."""
    work(files[0])
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        for file in files:
            work(file)
        best = min(best, time.process_time() - began)
    return len(files) / best


def ways(limits: Limits) -> Iterator[tuple[str, Callable[[Path], object], int | None]]:
    """Yield what is measured: its name, the work for one file, and on how many files."""
    yield "facts from the header", lambda file: read_facts(str(file), ReadFacts(), limits), None
    yield "Pillow opens the file, no more", lambda file: Image.open(file).close(), None
    try:
        import exifread
    except ImportError:
        print("ExifRead is not installed: pip install exifread")
    else:

        def other(file: Path) -> None:
            with file.open("rb") as handle:
                exifread.process_file(handle, details=False)

        yield "ExifRead, EXIF alone", other, None
    for name, transform in (("with", CLIP), ("without", SHRUNK)):

        def decoded(file: Path, transform: ImageTransform | Fit = transform) -> Decoded:
            return decode(file.read_bytes(), transform, limits)

        yield f"decoding, {name} facts", decoded, FEW


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--megapixels", type=float, default=1.0)
    given = parser.parse_args()
    limits = Limits()
    with tempfile.TemporaryDirectory() as directory, pillow_within(limits):
        root = Path(directory, "pictures")
        root.mkdir()
        files = write_files(root, given.files, given.megapixels)
        first = None
        for name, work, count in ways(limits):
            speed = rate(work, files[:count])
            first = first or speed
            print(f"{name:34} {speed:8,.0f} files/s and core  {speed / first:5.2f}")
        store, source = Store(Path(directory, "home")), Source(name="pictures", path=root)
        with store.locked():
            update_manifest(store, source)
            for name in ("a home gets its facts, workers", "again, nothing changed"):
                began = time.perf_counter()
                report = update_facts(store, source)
                seconds = time.perf_counter() - began
                print(f"{name:34} {report.files / seconds:8,.0f} files/s, {seconds:.2f} s in all")


if __name__ == "__main__":
    main()
