"""What is at the edge of a long picture: is it found, and what does that cost?

DIRECTORY holds `photos/<class>.jpg` (one photograph of each of 100 ImageNet classes),
`flowers/<species>/*.jpg` and `field_cases/wide/*` (subjects in the middle and at the edge).
Strips are composed of them: a photograph, cut to a square, on a background of flowers without
focus. All is embedded by the model `offline`, with all views; then indexes are made of it with and
without them.

    python benchmarks/views.py DIRECTORY
"""

import argparse
import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageFilter

from retrieval_pipeline.config.settings import Settings, Source
from retrieval_pipeline.encoders.base import Encoder
from retrieval_pipeline.encoders.from_settings import describe_encoder, load_settings_encoder
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.ingest.crawl import update_manifest
from retrieval_pipeline.ingest.embed import EmbedReport, update_embeddings
from retrieval_pipeline.search.embedded_index import EmbeddedIndex
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.views import Views

EDGE = 300  # pixels of a photograph in a strip
RATIO = 4  # of a strip's edges
SMALL = 0.4  # of the height: a small thing in the corner of a 3:2 picture

Place = Literal["edge", "between", "centre", "top", "corner"]


class Collection:
    """A directory of pictures, embedded once with all views of a kind."""

    def __init__(self, root: Path, encoder: Encoder) -> None:
        self.pictures = root / "pictures"
        self.pictures.mkdir(parents=True)
        self._encoder = encoder
        self._store = Store(root / "home")

    def source(self, views: Views) -> Source:
        return Source(name="a", path=self.pictures, views=views)

    def embed(self, views: Views) -> EmbedReport:
        source, store = self.source(views), self._store
        with store.locked():
            update_manifest(store, source, max_shrink=1.0)
            settings = Settings(model="offline", home=store.home, sources=(source,))
            return update_embeddings(
                store, source, describe_encoder(settings), lambda: self._encoder
            )

    def searcher(self, views: Views) -> Searcher:
        settings = Settings(model="offline", home=self._store.home, sources=(self.source(views),))
        space = self._encoder.space
        with self._store.locked():
            build_index(
                self._store,
                space,
                ["a"],
                views={"a": views},
                encode_texts=self._encoder.encode_texts,
            )
        return Searcher(settings, EmbeddedIndex(open_current(self._store)), self._encoder)


def composed(photo: Path, background: Path, place: Place) -> Image.Image:
    """Return a long or a 3:2 picture with a photograph in it."""
    image = Image.open(photo).convert("RGB")
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    square = image.crop((left, top, left + short, top + short))
    size = (EDGE * 3, EDGE * 2) if place == "corner" else (EDGE * RATIO, EDGE)
    size = (size[1], size[0]) if place == "top" else size
    edge = round(SMALL * size[1]) if place == "corner" else EDGE
    canvas = Image.open(background).convert("RGB").resize(size).filter(ImageFilter.GaussianBlur(40))
    corners = {
        "edge": (0, 0),
        # On the edge of the crops that would lie side by side.
        "between": (EDGE // 2, 0),
        "centre": ((size[0] - edge) // 2, 0),
        "top": (0, 0),
        "corner": (size[0] - edge, size[1] - edge),
    }
    canvas.paste(square.resize((edge, edge)), corners[place])
    return canvas


def recalls(searcher: Searcher, photos: Sequence[Path], at: int) -> float:
    """Return the share of the photographs that are among the first `at` for their class."""
    queries = [Query(text=f"a photo of a {photo.stem.replace('_', ' ')}") for photo in photos]
    answers = searcher.search_many(queries, at)
    return float(
        np.mean(
            [
                any(hit.path.stem == photo.stem for hit in hits)
                for photo, hits in zip(photos, answers, strict=True)
            ]
        )
    )


def rules(searcher: Searcher, photos: Sequence[Path]) -> dict[str, float]:
    """Return the recall at 1 if items are scored by other rules than their best view."""
    build = searcher.corpus
    queries = [Query(text=f"a photo of a {photo.stem.replace('_', ' ')}") for photo in photos]
    wanted = np.stack([each.wanted for each in searcher.query_vectors(queries)])
    scores = build.vector_index.scan(wanted)
    names = [
        Path(record.files[0].location.path).stem for record in build.records(range(len(build)))
    ]
    rows = [build.rows.of_item(item) for item in range(len(build))]
    by_rule = {
        "own vector": lambda found: found[0],
        "best view": lambda found: found.max(axis=0),
        "mean of views": lambda found: found.mean(axis=0),
        "mean of the best two": lambda found: np.sort(found, axis=0)[-2:].mean(axis=0),
    }
    result = {}
    for name, rule in by_rule.items():
        of_items = np.stack([rule(scores[of_item]) for of_item in rows])
        best = of_items.argmax(axis=0)
        right = [names[item] == photo.stem for item, photo in zip(best, photos, strict=True)]
        result[name] = float(np.mean(right))
    return result


def print_places(root: Path, encoder: Encoder, photos: list[Path], flowers: list[Path]) -> None:
    print("| photograph of 100 classes | views | recall@1 | recall@10 | vectors a picture |")
    print("|---|---|--:|--:|--:|")
    places: dict[Place, tuple[Views, ...]] = {
        "centre": ("centre", "whole"),
        "edge": ("centre", "whole"),
        "between": ("centre", "whole"),
        "top": ("centre", "whole"),
        "corner": ("centre", "tiles"),
    }
    for place, kinds in places.items():
        collection = Collection(root / place, encoder)
        chance = random.Random(7)
        for photo in photos:
            picture = composed(photo, chance.choice(flowers), place)
            picture.save(collection.pictures / f"{photo.stem}.jpg", quality=90)
        collection.embed(kinds[-1])
        for views in kinds:
            searcher = collection.searcher(views)
            found = [recalls(searcher, photos, at) for at in (1, 10)]
            vectors = len(searcher.corpus.rows) / len(searcher.corpus)
            print(
                f"| {place} | {views} | {found[0]:.3f} | {found[1]:.3f} | {vectors:.1f} |",
                flush=True,
            )


def print_rules(root: Path, encoder: Encoder, photos: list[Path], flowers: list[Path]) -> None:
    """Half of the photographs as they are, half at the edge of a strip: do strips take over?"""
    collection = Collection(root / "mixed", encoder)
    chance = random.Random(7)
    plain, strips = photos[::2], photos[1::2]
    for photo in plain:
        Image.open(photo).convert("RGB").save(collection.pictures / f"{photo.stem}.jpg")
    for photo in strips:
        picture = composed(photo, chance.choice(flowers), "edge")
        picture.save(collection.pictures / f"{photo.stem}.jpg", quality=90)
    collection.embed("whole")
    searcher = collection.searcher("whole")
    found = {name: rules(searcher, group) for name, group in (("plain", plain), ("edge", strips))}
    print("\n| scored by | recall@1 of plain photographs | of those at the edge of strips |")
    print("|---|--:|--:|")
    for rule, recall in found["plain"].items():
        print(f"| {rule} | {recall:.3f} | {found['edge'][rule]:.3f} |")


def print_cost(root: Path, encoder: Encoder, photos: list[Path], flowers: list[Path]) -> None:
    """One picture in twenty is a strip of 4:1."""
    print("\n| 5 % long | vectors | decoding, s of a core | encoding, s of a core |")
    print("|---|--:|--:|--:|")
    kinds: tuple[Views, ...] = ("centre", "whole", "tiles")
    for views in kinds:
        collection = Collection(root / f"cost-{views}", encoder)
        some = [*photos, *flowers][:285]
        for number, photo in enumerate(some):
            shutil.copyfile(photo, collection.pictures / f"{number:03d}.jpg")
        for number, photo in enumerate(photos[: len(some) // 19]):
            picture = composed(photo, flowers[number], "edge")
            picture.save(collection.pictures / f"strip{number:03d}.jpg", quality=90)
        report = collection.embed(views)
        assert report.timings is not None
        vectors = report.embedded + report.views
        timings = report.timings
        print(
            f"| {views} | {vectors} | {timings.decode.computing:.1f} "
            f"| {timings.encode.computing:.1f} |",
            flush=True,
        )


def print_cases(root: Path, encoder: Encoder, cases: Path) -> None:
    """Print the cosine of "a zebra" with each picture of `field_cases/wide`."""
    collection = Collection(root / "cases", encoder)
    for case in cases.iterdir():
        shutil.copyfile(case, collection.pictures / case.name)
    collection.embed("whole")
    kinds: tuple[Views, ...] = ("centre", "whole")
    scores = {
        views: {
            hit.path.name: hit for hit in collection.searcher(views).search(Query(text="a zebra"))
        }
        for views in kinds
    }
    print('\n| "a zebra" | centre | whole | the part that matched |')
    print("|---|--:|--:|---|")
    for name, hit in scores["whole"].items():
        part = hit.region
        where = "" if part is None else f"x {part.x:.2f} y {part.y:.2f} w {part.width:.2f}"
        print(f"| {name} | {scores['centre'][name].score:.3f} | {hit.score:.3f} | {where} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    given = parser.parse_args().directory.absolute()
    photos = sorted((given / "photos").glob("*.jpg"))
    flowers = sorted((given / "flowers").glob("*/*.jpg"))
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        settings = Settings(model="offline", home=root / "none")
        encoder = load_settings_encoder(settings, describe_encoder(settings).space)
        print_cases(root, encoder, given / "field_cases" / "wide")
        print_places(root, encoder, photos, flowers)
        print_rules(root, encoder, photos, flowers)
        print_cost(root, encoder, photos, flowers)


if __name__ == "__main__":
    main()
