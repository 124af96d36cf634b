"""Further views from the file to the hit, with real decode workers; vectors are mean colours."""

from dataclasses import astuple, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import ExifTags, Image

from retrieval_pipeline.config.settings import Settings, Source
from retrieval_pipeline.errors import QueryError
from retrieval_pipeline.images.decode import decode, pillow_within
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.index.build import Build, open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.index.row_keys import keys_of, view_keys
from retrieval_pipeline.ingest.crawl import update_manifest
from retrieval_pipeline.ingest.embed import EmbedOptions, EmbedReport, update_embeddings
from retrieval_pipeline.search.query import Crop, Query
from retrieval_pipeline.search.results import Hit, answer_json
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.views import View, Views, further_views, squared
from retrieval_pipeline_tests.support.encoders import DESCRIPTION, SPACE, TRANSFORM, MeanColour
from retrieval_pipeline_tests.support.engines import ENGINES, Engines

GREY, RED, GREEN, BLUE = (120, 120, 120), (250, 10, 10), (10, 250, 10), (10, 10, 250)


def strip(*colours: tuple[int, int, int]) -> Image.Image:
    """Squares of 40 pixels side by side."""
    image = Image.new("RGB", (40 * len(colours), 40))
    for number, colour in enumerate(colours):
        image.paste(colour, (40 * number, 0, 40 * number + 40, 40))
    return image


class Library:
    """A panorama with red at the left and green at the right, a tall picture, and squares."""

    def __init__(self, root: Path, engines: Engines) -> None:
        self.engines = engines
        self.pictures = root / "pictures"
        self.pictures.mkdir()
        strip(RED, GREY, GREY, GREEN).save(self.pictures / "wide.png")
        strip(BLUE, GREY, GREY).transpose(Image.Transpose.ROTATE_270).save(
            self.pictures / "tall.png"
        )
        Image.new("RGB", (40, 40), (190, 70, 70)).save(self.pictures / "reddish.png")
        Image.new("RGB", (40, 40), (100, 130, 160)).save(self.pictures / "sky.png")
        self.query = root / "red.png"
        Image.new("RGB", (40, 40), RED).save(self.query)
        self.store = Store(root / "home")

    def source(self, views: str = "whole") -> Source:
        return Source.model_validate({"name": "a", "path": self.pictures, "views": views})

    def embed(self, views: str = "whole") -> EmbedReport:
        update_manifest(self.store, self.source(views), max_shrink=1.0)
        options = EmbedOptions(workers=1)
        return update_embeddings(self.store, self.source(views), DESCRIPTION, MeanColour, options)

    def build(self, views: str = "whole") -> Build:
        build_index(self.store, SPACE, ["a"], views={"a": views})  # type: ignore[dict-item]
        return open_current(self.store)

    def searcher(self, views: str = "whole", engine: str = "embedded") -> Searcher:
        settings = Settings(home=self.store.home, sources=(self.source(views),))
        asked: dict[str, Views] = {"a": views}  # type: ignore[dict-item]
        index = self.engines.index(engine, self.store, SPACE, ["a"], views=asked)
        return Searcher(settings, index, MeanColour())


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, engines: Engines) -> Library:
    library = Library(tmp_path_factory.mktemp("views"), engines)
    assert library.embed("centre").views == 0
    return library


on_both = pytest.mark.parametrize("engine", ENGINES)


def hits(searcher: Searcher, query: Query) -> dict[str, Hit]:
    return {hit.path.stem: hit for hit in searcher.search(query)}


def test_only_the_missing_views_of_long_pictures_are_embedded_later(library: Library) -> None:
    before = library.build("centre")
    parts = {part: part.read_bytes() for part in library.store.parts(SPACE)}
    encoded: list[int] = []
    options = EmbedOptions(workers=1)
    report = update_embeddings(
        library.store,
        library.source(),
        DESCRIPTION,
        lambda: MeanColour(before=lambda pixels: encoded.append(len(pixels))),
        options,
    )
    assert (report.embedded, report.known, report.quarantined, report.left) == (0, 4, 0, 0)
    # Six squares of the panorama of 4:1, four of the picture of 1:3.
    assert (report.views, sum(encoded)) == (10, 10)
    assert {part: part.read_bytes() for part in library.store.parts(SPACE)} == parts
    assert library.embed().views == 0
    assert library.build("centre").path == before.path
    build = library.build()
    assert (len(build), build.info.views) == (4, 10)
    # The pictures' own vectors stay what they were.
    np.testing.assert_array_equal(build.vectors(np.arange(4)), before.vectors(np.arange(4)))


@on_both
def test_a_long_picture_is_one_hit_by_its_best_part(library: Library, engine: str) -> None:
    library.embed()
    query = Query(images=(library.query,))
    without = hits(library.searcher("centre", engine), query)
    searcher = library.searcher("whole", engine)
    found = hits(searcher, query)
    assert (next(iter(without)), without["wide"].region) == ("reddish", None)
    assert (next(iter(found)), len(found)) == ("wide", 4)
    assert found["wide"].region == View(0, 0, 0.25, 1)
    assert found["wide"].score == pytest.approx(1, abs=1e-3)
    assert found["reddish"].region is None
    answer = searcher.answer(query, 1)
    region = {"x": 0.0, "y": 0.0, "width": 0.25, "height": 1.0}
    assert answer_json(answer)["hits"][0]["region"] == region
    # The same by a filter, and where something is unwanted, which any part may show.
    assert next(iter(hits(searcher, replace(query, paths=("*",))))) == "wide"


def test_what_a_part_shows_is_unwanted_too(library: Library) -> None:
    library.embed()
    build, vectors = library.build(), MeanColour().encode_images([strip(RED), strip(GREEN)])
    wide = next(n for n in range(4) if build.records([n])[0].width == 160)
    nearest = build.rows.largest(build.vector_index.scan(vectors))
    np.testing.assert_allclose(nearest[wide], [1, 1], atol=1e-3)
    flags = np.arange(4) == wide
    rows = build.rows.of(flags)
    assert len(rows) == 7
    some = build.rows.largest(build.vector_index.scores_of(vectors, rows), rows)
    assert len(some) == 1
    np.testing.assert_allclose(some[0], nearest[wide], atol=1e-6)


def test_a_picture_is_found_once_however_many_of_its_parts_match(library: Library) -> None:
    library.embed()
    build, red = library.build(), MeanColour().encode_images([strip(RED)])[0]
    everything, scores = build.best(red, 4)
    assert sorted(everything.tolist()) == [0, 1, 2, 3]
    assert (np.diff(scores) <= 0).all()
    for count in (1, 2, 3):
        assert build.best(red, count)[0].tolist() == everything[:count].tolist()


@on_both
def test_chance_is_counted_by_what_was_compared(library: Library, engine: str) -> None:
    library.embed()
    searcher = library.searcher("whole", engine)
    wide = content_id_of_file(library.pictures / "wide.png")
    for query, items, rows in (
        (Query(images=(library.query,)), 4, 14),
        (Query(images=(library.query,), paths=("wide*",)), 1, 7),
        (Query(like=(wide,)), 3, 7),
        (Query(like=(wide,), paths=("*e.png", "sky*")), 1, 1),
    ):
        vectors, allowed = searcher.query_vectors([query]), searcher.allowed(query)
        (ranking,) = searcher.index.rank([query], vectors, [allowed], 10)
        assert (ranking.among, ranking.among_rows) == (items, rows)


def test_a_row_is_known_again_in_the_next_build(library: Library) -> None:
    library.embed()
    build = library.build()

    def keys_with(content_ids: pa.ChunkedArray, views: pa.Table) -> list[bytes]:
        own = keys_of(content_ids)
        return list(map(bytes, [*own, *view_keys(own, views)]))

    keys = keys_with(build.items["content_id"], build.views)
    assert len(set(keys)) == len(build.rows) == 14
    moved = build.items["content_id"].take([3, 0, 1, 2])
    shifted = build.views["item"].to_numpy() + 1
    views = build.views.set_column(0, "item", pa.array(shifted % 4, pa.int32()))
    assert set(keys_with(moved, views)) == set(keys)


def test_tiles_find_what_is_small_in_any_picture(library: Library) -> None:
    report = library.embed("tiles")
    assert report.views > 8
    small = hits(library.searcher("tiles"), Query(images=(library.query,)))
    assert small["wide"].region == View(0, 0, 0.15, 0.6)
    assert library.build("tiles").info.views > 10
    assert library.build().info.views == 10  # fewer are asked for again


@on_both
def test_a_part_of_a_picture_is_searched_by(library: Library, engine: str) -> None:
    library.embed()
    searcher = library.searcher("whole", engine)
    mixed = library.pictures.parent / "mixed.png"
    strip(BLUE, RED).save(mixed)
    right = Query(images=(mixed,), crop=Crop(0.5, 0, 0.5, 1))
    assert next(iter(hits(searcher, right))) == "wide"
    in_pixels = replace(right, crop=Crop.parse("40,0,40,40"))
    expected = [hit.score for hit in searcher.search(right)]
    assert [hit.score for hit in searcher.search(in_pixels)] == expected
    # What lies beyond the edge is left out.
    beyond = replace(right, crop=Crop(40, -10, 60, 60))
    assert [hit.score for hit in searcher.search(beyond)] == expected
    indexed = content_id_of_file(library.pictures / "wide.png")
    part = Query(like=(indexed,), crop=Crop(0, 0, 0.25, 1))
    assert next(iter(hits(searcher, part))) == "reddish"  # a picture is no answer to itself
    with pytest.raises(QueryError, match="lies outside of the picture, which has 80 x 40 pixels"):
        searcher.search(replace(right, crop=Crop(80, 0, 10, 10)))


@pytest.mark.parametrize(
    ("text", "said"),
    [("1,2,3", "is no crop"), ("a,0,1,1", "is no crop"), ("0,0,0,1", "is no rectangle"),
     ("nan,0,1,1", "is no rectangle"), ("0,0,inf,1", "is no rectangle")],
)  # fmt: skip
def test_a_crop_that_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(QueryError, match=said):
        Query.of({"images": (Path("a.png"),), "crop": text})


def test_a_crop_belongs_to_one_picture() -> None:
    for images in ((), (Path("a.png"), Path("b.png"))):
        with pytest.raises(QueryError, match="one picture"):
            Query(text="dog", images=images, crop=Crop(0, 0, 1, 1))


@pytest.mark.parametrize("own_is_cropped", [True, False])
@pytest.mark.parametrize(
    "size", [(195, 100), (200, 100), (333, 100), (100, 450), (1, 20_000), (20_000, 1)]
)
def test_views_cover_a_long_picture_and_stay_few(
    size: tuple[int, int], own_is_cropped: bool
) -> None:
    width, height = size
    views = further_views(width, height, "whole", own_is_cropped)
    assert 2 <= len(views) <= 16
    spans = [(v.x, v.x + v.width) if width > height else (v.y, v.y + v.height) for v in views]
    if own_is_cropped:
        half = min(size) / max(size) / 2
        spans.append((0.5 - half, 0.5 + half))
    spans.sort()
    assert (spans[0][0], spans[-1][1]) == (0, pytest.approx(1))
    covered = 0.0
    for start, end in spans:
        assert start <= covered
        covered = max(covered, end)


@pytest.mark.parametrize("crop", [(8, 8), None])
def test_views_are_cut_from_the_upright_picture(crop: tuple[int, int] | None) -> None:
    # Turned by its EXIF orientation, red is at the top.
    image, buffer = strip(RED, GREY, GREY), BytesIO()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.save(buffer, "PNG", exif=exif)
    transform = replace(TRANSFORM, resize=8 if crop else (8, 8), crop=crop)
    with pillow_within(Limits()):
        decoded = decode(buffer.getvalue(), transform, Limits(), "whole")
        only = decode(buffer.getvalue(), transform, Limits(), decoded.views[:1])
    assert (decoded.width, decoded.height) == (40, 120)
    assert (decoded.views_only, only.views_only) == (False, True)
    assert decoded.views == further_views(40, 120, "whole", crop is not None)
    assert {pixels.shape for pixels in (decoded.pixels, *decoded.view_pixels)} == {(8, 8, 3)}
    assert decoded.view_pixels[0].mean(axis=(0, 1)) == pytest.approx(RED, abs=1)
    assert decoded.view_pixels[-1].mean(axis=(0, 1)) == pytest.approx(GREY, abs=1)
    np.testing.assert_array_equal(only.view_pixels, decoded.view_pixels[:1])


def test_short_pictures_have_no_views_but_tiles() -> None:
    assert further_views(160, 90, "whole", False) == further_views(400, 100, "centre", False) == ()
    assert len(further_views(160, 90, "tiles", False)) == 4


def test_a_part_is_squared_within_its_picture() -> None:
    square = squared(View(0.8, 0.1, 0.2, 0.1), 400, 100)
    assert astuple(square) == pytest.approx((0.8, 0, 0.2, 0.8))
    assert squared(View(0, 0, 1, 0.5), 400, 100) == View(0, 0, 1, 1)
