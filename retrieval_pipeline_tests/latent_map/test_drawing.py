import base64
import hashlib
import html
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrieval_pipeline.errors import MapError
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.latent_map.coordinates import make_map
from retrieval_pipeline.latent_map.drawing import Drawing, drawing, drawing_to_order, thumbnails
from retrieval_pipeline.latent_map.html import map_html
from retrieval_pipeline.latent_map.picture import map_picture, tile_size
from retrieval_pipeline.latent_map.write import write_views
from retrieval_pipeline.progress import Quiet
from retrieval_pipeline.search.embedded_index import EmbeddedIndex
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace, normalise
from retrieval_pipeline_tests.support.library import settings_of
from synthetic.tables import random_vectors, write_manifest, write_part

DIM = 8
SPACE = VectorSpace("no-such-model", "r1", DIM, "p")
RED, BLUE = (220, 20, 20), (20, 20, 220)
HOSTILE = "<img src=x onerror=alert(1)>.jpg"
UGLY = r"sub/100% </script> #1?\xff.jpg"


@pytest.fixture
def searcher(tmp_path: Path) -> Searcher:
    """Red pictures in one source and blue ones in another, far apart; one copy is in both."""
    reds = [HOSTILE, UGLY, *(f"r{number:02d}.jpg" for number in range(18))]
    blues = [f"b{number:02d}.jpg" for number in range(20)]
    copy = "copy of r00.jpg"
    ids = {}
    for source, names, colour in (("reds", reds, RED), ("blues", blues, BLUE)):
        for name in names:
            file = tmp_path / source / name.replace(r"\xff", "\udcff")
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (60, 40), colour).save(file, "JPEG", comment=name.encode())
            ids[name] = content_id_of_file(file)
    shutil.copy(tmp_path / "reds" / "r00.jpg", tmp_path / "blues" / copy)
    store = Store(tmp_path / "home")
    write_manifest(store, "reds", {name: ids[name] for name in reds})
    blue_ids = {name: ids[name] for name in blues}
    write_manifest(store, "blues", blue_ids | {copy: ids["r00.jpg"]})
    centres = np.repeat(np.eye(DIM)[:2], 20, axis=0)
    vectors = normalise(centres + 0.3 * random_vectors(40, DIM, seed=2))
    write_part(store, SPACE, "reds", list(ids.values()), vectors)
    build_index(store, SPACE, ["reds", "blues"])
    settings = settings_of(tmp_path / "home", reds=tmp_path / "reds", blues=tmp_path / "blues")
    return Searcher(settings, EmbeddedIndex(open_current(store)))


def drawn(searcher: Searcher, **options: Any) -> Drawing:
    return drawing(make_map(searcher.corpus, clusters=2), searcher.settings, **options)


def page_of(drawing: Drawing) -> str:
    return map_html(drawing, thumbnails(drawing, 64, Limits(), Quiet()))


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def numbers(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


def test_the_page_holds_every_image_with_its_place_cluster_source_and_name(
    searcher: Searcher,
) -> None:
    seen = drawn(searcher)
    data = data_of(page_of(seen))
    names = [Path(path).name for path in seen.paths]
    assert data["names"] == names
    assert len(names) == 40
    for axis, text in enumerate(data["coordinates"]):
        assert np.array_equal(numbers(text, "<f4"), seen.latent.coordinates[:, axis])
    assert numbers(data["cluster"], "<u2").tolist() == seen.latent.members.tolist()
    sources = [data["sources"][code]["name"] for code in numbers(data["source"], "<u2")]
    assert sources == ["blues" if name[0] in "bc" else "reds" for name in names]
    folders = [data["folders"][code] for code in numbers(data["folder"], "<u4")]
    assert folders[names.index(UGLY.rpartition("/")[2])] == UGLY.rpartition("/")[0]
    assert all(re.fullmatch("#[0-9a-f]{6}", group["colour"]) for group in data["clusters"])
    assert data["score"] is None


def test_the_page_needs_nothing_from_elsewhere_and_runs_no_script_but_its_own(
    searcher: Searcher,
) -> None:
    page = page_of(drawn(searcher))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in rules["script-src"]
    assert not re.search(r"https?:", policy[1])
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    assert len(scripts) == 1
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in rules["script-src"]
    markup = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    assert not re.search(r"<(link|iframe|object|base)\b|<[a-z]+[^>]* on\w+=", markup)


def test_file_names_are_data_and_never_markup(searcher: Searcher) -> None:
    page = page_of(drawn(searcher))
    assert HOSTILE in data_of(page)["names"]
    assert HOSTILE not in page
    assert "<img src=x" not in page
    # Two elements are scripts; no name ended one early.
    assert len(re.findall("</script", page)) == 2


def test_thumbnails_come_with_the_rows_they_show_and_gone_files_are_left_out(
    searcher: Searcher,
) -> None:
    gone = searcher.settings.source("reds").path / "r03.jpg"
    gone.unlink()
    (searcher.settings.source("reds").path / "r04.jpg").write_bytes(b"not a picture")
    seen = drawn(searcher)
    data = data_of(page_of(seen))
    assert len(data["thumbnails"]) == len(data["thumbnailRows"]) > 20
    shown = {data["names"][row] for row in data["thumbnailRows"]}
    order = [Path(seen.paths[row]).name for row in seen.latent.from_coarse_to_fine()]
    assert shown == set(order) - {"r03.jpg", "r04.jpg"}


def test_a_picture_shows_each_source_where_its_images_lie(searcher: Searcher) -> None:
    seen = drawn(searcher, colour_by="source")
    small = thumbnails(seen, 64, Limits(), Quiet())
    picture = map_picture(seen, small, (800, 400))
    assert picture.size == (800, 400)
    pixels = np.asarray(picture).astype(int)
    red = np.argwhere(np.abs(pixels - RED).max(axis=2) < 30)
    blue = np.argwhere(np.abs(pixels - BLUE).max(axis=2) < 30)
    assert min(len(red), len(blue)) > 500
    # The two lie on different sides of the first axis, red where its coordinates are.
    first = seen.latent.coordinates[:, 0]
    reds = np.array(["r" in path or "<" in path for path in seen.paths])
    right = first[reds].mean() > first[~reds].mean()
    assert (red[:, 1].mean() > blue[:, 1].mean()) == right


def test_thumbnails_of_a_picture_do_not_overlap(searcher: Searcher) -> None:
    seen = drawn(searcher)
    size = (800, 400)
    edge = tile_size(len(seen.paths), size)
    whole = thumbnails(seen, edge, Limits(), Quiet())
    few = map_picture(seen, whole, size)
    # All at one point: one is left.
    heap = replace(seen, latent=replace(seen.latent, coordinates=np.zeros((40, 3), np.float32)))
    one = map_picture(heap, whole, size)

    def coloured(picture: Image.Image) -> int:
        pixels = np.asarray(picture).astype(int)
        return int(sum((np.abs(pixels - colour).max(axis=2) < 30).sum() for colour in (RED, BLUE)))

    assert 0 < coloured(one) <= edge * edge
    assert coloured(few) > 4 * coloured(one)


def test_few_images_are_shown_larger() -> None:
    assert tile_size(10, (4096, 2048)) == 341
    assert tile_size(10_000, (4096, 2048)) == 128


def test_the_same_map_gives_the_same_files(searcher: Searcher, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_views(drawn(searcher), tmp_path / name, Limits(), Quiet(), size=(400, 256))
    for file in ("map.html", "map.png"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def order(searcher: Searcher, query: Query, **options: Any) -> Drawing:
    return drawing_to_order(searcher, query, progress=Quiet(), **options)


def test_a_map_to_order_shows_what_was_chosen_by_filters(searcher: Searcher) -> None:
    blues = order(searcher, Query(sources=("blues",)))
    assert len(blues.paths) == 21
    # Of two copies the one in the source that was asked for.
    assert blues.sources == ("blues",)
    assert "copy of r00.jpg" in blues.paths
    assert "blues" in blues.title
    some = order(searcher, Query(paths=("b0*",)))
    assert sorted(some.paths) == [f"b0{number}.jpg" for number in range(10)]
    assert len(order(searcher, Query(), count=7).paths) == 7
    assert len(order(searcher, Query(), count=7_000).paths) == 40


class AxisEncoder:
    """Every text means the first axis, where the red pictures are."""

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        return np.repeat(np.eye(DIM, dtype=np.float32)[:1], len(texts), axis=0)


def test_a_map_of_what_is_like_a_text_holds_the_nearest_images_and_their_scores(
    searcher: Searcher,
) -> None:
    searcher = Searcher(searcher.settings, searcher.index, AxisEncoder())  # type: ignore[arg-type]
    near = order(searcher, Query(text="red"), count=20)
    assert not any(path.startswith("b") for path in near.paths)
    assert near.scores is not None
    everything = order(searcher, Query(text="red"))
    assert everything.colour_by == "score"
    assert everything.scores is not None
    assert sorted(near.scores, reverse=True) == sorted(everything.scores, reverse=True)[:20]
    assert near.colour_by == "cluster"
    assert near.title == "red"
    page = page_of(everything)
    assert numbers(data_of(page)["score"], "<f4") == pytest.approx(everything.scores)
    assert html.escape("red") in page


def test_a_score_without_anything_to_be_near_to_is_refused(searcher: Searcher) -> None:
    with pytest.raises(MapError, match="say which, with --like"):
        order(searcher, Query(), colour_by="score")
