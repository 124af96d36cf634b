"""The facts that a picture file carries itself: EXIF, XMP, IPTC and the texts of a PNG.

Runs in decode workers only. The metadata come from the picture that Pillow has opened there, so
that no file is read twice and no second parser of containers has to be trusted.
"""

from collections.abc import Callable
from dataclasses import replace

from PIL import ExifTags, Image, IptcImagePlugin, TiffImagePlugin

from retrieval_pipeline.facts.exif import read_exif
from retrieval_pipeline.facts.iptc import read_iptc
from retrieval_pipeline.facts.merge import first_of
from retrieval_pipeline.facts.model import Origin, PictureFacts
from retrieval_pipeline.facts.png import read_texts
from retrieval_pipeline.facts.values import Problems
from retrieval_pipeline.facts.xmp import read_xmp

# An EXIF block of a JPEG has at most 64 kB; other formats allow more, and makers' notes use it.
MOST_EXIF_BYTES = 1 << 20

# Keyword of the text in which ImageMagick writes the EXIF of a PNG.
_PNG_EXIF = "Raw profile type exif"
# Tag of an XMP packet in a TIFF (XMP part 3).
TIFF_XMP = 700


def embedded_facts(image: Image.Image) -> PictureFacts:
    """Return the facts that the metadata of an opened picture hold.

    Damaged metadata are no error of the picture: their facts are absent, and `problems` says why.
    """
    exif = tolerant(Origin.EXIF, lambda: _exif(image))
    xmp = tolerant(Origin.XMP, lambda: _xmp(image))
    iptc = tolerant(Origin.IPTC, lambda: _iptc(image))
    texts = PictureFacts()
    if image.format == "PNG":
        texts = tolerant(Origin.PNG, lambda: read_texts(image.info))
    return combined(exif, xmp, iptc, texts)


def combined(
    exif: PictureFacts,
    xmp: PictureFacts,
    iptc: PictureFacts | None = None,
    texts: PictureFacts | None = None,
) -> PictureFacts:
    """Return the facts of one file from those of its kinds of metadata (docs/facts.md)."""
    if not any(facts not in (None, PictureFacts()) for facts in (xmp, iptc, texts)):
        return exif
    others = [facts for facts in (iptc, texts) if facts is not None]
    # EXIF has no good place for words: what is written there is often a camera's default.
    words = first_of(xmp, *others[:1], exif, *others[1:])
    return replace(
        first_of(exif, xmp, *others),
        title=words.title,
        caption=words.caption,
        keywords=words.keywords,
        rating=words.rating,
    )


def tolerant(origin: Origin, read: Callable[[], PictureFacts]) -> PictureFacts:
    """Return what `read` does; of damaged metadata, the problem instead of an error."""
    # On hostile metadata the parsers raise what they happen to stumble over, as the decoders do
    # (images.formats.typed_errors): no list of names is complete.
    try:
        return read()
    except Exception:  # noqa: BLE001
        return _refused(origin, "damaged")


def _refused(origin: Origin, reason: str) -> PictureFacts:
    problems = Problems(origin)
    problems.add(reason)
    return PictureFacts(problems=tuple(problems.found))


def _exif(image: Image.Image) -> PictureFacts:
    block = image.info.get("exif")
    if block is not None:
        if len(block) > MOST_EXIF_BYTES:
            return _refused(Origin.EXIF, "too large")
        exif = image.getexif()
        if not exif:
            # It is empty also where Pillow has met the damage before: meet it here.
            Image.Exif().load(block)
    elif isinstance(image, TiffImagePlugin.TiffImageFile) or _PNG_EXIF in image.info:
        # Of a PNG, its own `getexif` would decode the pixels to look for EXIF behind them.
        exif = Image.Image.getexif(image)
    else:
        return PictureFacts()
    return read_exif(exif, exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo))


def _xmp(image: Image.Image) -> PictureFacts:
    packet = image.info.get("xmp")
    if packet is None and isinstance(image, TiffImagePlugin.TiffImageFile):
        packet = image.tag_v2.get(TIFF_XMP)
    if packet is None:
        packet = image.info.get("XML:com.adobe.xmp")  # the keyword of a PNG's iTXt chunk
    if isinstance(packet, str):
        packet = packet.encode()
    return read_xmp(packet, Origin.XMP) if packet else PictureFacts()


def _iptc(image: Image.Image) -> PictureFacts:
    if not isinstance(image, TiffImagePlugin.TiffImageFile) and "photoshop" not in image.info:
        return PictureFacts()
    data_sets = IptcImagePlugin.getiptcinfo(image)  # type: ignore[arg-type]
    return read_iptc(data_sets) if data_sets else PictureFacts()
