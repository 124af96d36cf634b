"""Is relevance honest, do negatives do what people mean, and what looks the same? On real photos.

DIRECTORY holds `photos/<class>.jpg` (one photograph of each of 100 ImageNet classes),
`flowers/<species>/*.jpg` and `cifar10_test/<class>/*` (of which --per-class are taken). They are
indexed by the model `offline` as by `retrieval index`.

    python benchmarks/relevance.py DIRECTORY
"""

import argparse
import io
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.images.pictures import pictures as decoded
from retrieval_pipeline.images.transform import Fit
from retrieval_pipeline.pipeline.run import index_sources
from retrieval_pipeline.search.look_alike import SAME, look_of
from retrieval_pipeline.search.near_duplicates import NEAR_DUPLICATE
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.vectors import normalise

CUTS = (0.5, 0.75, 0.9)
DOGS = (
    "afghan_hound american_staffordshire_terrier appenzeller chow german_short-haired_pointer "
    "irish_wolfhound sealyham_terrier shetland_sheepdog siberian_husky sussex_spaniel "
    "tibetan_terrier dog"
)
BIRDS = "black_grouse black_swan brambling flamingo lorikeet red-backed_sandpiper water_ouzel bird"
FLOWERS = (
    "bluebell buttercup colts-foot daisy dandelion fritillary iris lily-valley pansy sunflower "
    "tigerlily windflower"
)
# What the photographs show: the query, and the classes that answer it.
PRESENT = {
    "a dog": DOGS,
    "a bird": BIRDS,
    "a ship": "container_ship schooner ship",
    "a frog": "bullfrog frog",
    "a car": "automobile",
    "a truck": "truck",
    "an airplane": "airplane",
    "a cat": "cat",
    "a deer": "deer",
    "a horse": "horse",
    "a flower": FLOWERS,
    "a snake": "night_snake",
    "a monkey": "guenon titi",
    "a train": "steam_locomotive",
    "a computer": "laptop hand-held_computer",
    "shoes": "running_shoe loafer",
    "a fish": "tench eel",
    "an insect": "ant damselfly tiger_beetle",
    "bread": "french_loaf",
    "a mountain": "alp volcano",
    "a zebra": "zebra",
    "a rabbit": "wood_rabbit",
    "a traffic light": "traffic_light",
    "a lizard": "american_chameleon",
    "a crocodile": "american_alligator",
    "a crab": "fiddler_crab",
    "a fridge": "refrigerator",
    "a coffee machine": "espresso_maker",
    "a ball": "basketball volleyball",
    "a wolf": "white_wolf",
    "a microphone": "microphone",
    "a candle": "candle",
    "a teddy bear": "teddy",
    "a clock": "digital_clock",
    "a scooter": "motor_scooter",
}
# What none of them shows.
ABSENT = [
    "a piano",
    "an elephant",
    "a castle",
    "sushi",
    "a helicopter",
    "a tractor",
    "a wedding cake",
    "a skyscraper",
    "a submarine",
    "penguins",
    "a violin",
    "a chess board",
    "a swimming pool",
    "a waterfall",
    "pizza",
    "a roller coaster",
    "a telescope",
    "a windmill",
    "a hot air balloon",
    "an umbrella",
    "a bridge over a river",
    "a church",
    "a lighthouse",
    "a camel",
    "a kangaroo",
    "a whale",
    "a surfer",
    "ice cream",
    "scissors",
    "a hammer",
    "a piggy bank",
    "a bathtub",
    "a football match",
    "fireworks",
    "the moon",
    "a map",
    "an x-ray",
    "a statue",
    "a toothbrush",
    "a chandelier",
    "a snowman",
    "a tank",
    "a cactus",
    "mushrooms",
    "a bee",
    "a pineapple",
    "a giraffe",
    "people dancing",
    "a dentist",
    "a newspaper",
]
# Classes of the small pictures that a query is about, and the one that is not wanted.
ANIMALS = ["bird", "cat", "deer", "dog", "frog", "horse"]
VEHICLES = ["airplane", "automobile", "ship", "truck"]
NEGATIVES = [("an animal", each, ANIMALS) for each in ANIMALS]
NEGATIVES += [("a vehicle", each, VEHICLES) for each in VEHICLES]


@dataclass(frozen=True)
class Library:
    searcher: Searcher
    classes: dict[str, str]  # By content id.

    def classes_of(self, hits):
        return [self.classes[hit.content_id] for hit in hits]


def make_library(root, home, per_class):
    """Index copies of the labelled photographs."""
    pictures = home / "pictures"
    for file in sorted((root / "photos").glob("*.jpg")):
        copy(file, pictures / "photos" / file.stem)
    for source, limit in (("flowers", None), ("cifar10_test", per_class)):
        for folder in sorted(path for path in (root / source).iterdir() if path.is_dir()):
            for file in sorted(folder.iterdir())[:limit]:
                copy(file, pictures / source / folder.name)
    sources = [{"name": path.name, "path": path} for path in sorted(pictures.iterdir())]
    settings = Settings.model_validate(
        {"home": home / "home", "model": "offline", "sources": sources}
    )
    index_sources(settings)
    searcher = Searcher.open(settings)
    items = searcher.build.items
    classes = {
        content: places[0]["path"].split("/")[0]
        for content, places in zip(
            items["content_id"].to_pylist(), items["locations"].to_pylist(), strict=True
        )
    }
    return Library(searcher, classes)


def copy(file, directory):
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, directory)


def by_one_spread(library, query):
    """Return the hits judged by one mean and deviation for all pictures: the baseline."""
    from retrieval_pipeline.search.relevance import relevance_of

    background = library.searcher.build.info.background.words
    hits = library.searcher.search(query, 10_000)
    surplus = (np.array([hit.score for hit in hits]) - background.mean) / background.deviation
    relevance = relevance_of(surplus, len(hits), surplus)
    return [replace(hit, relevance=each) for hit, each in zip(hits, relevance, strict=True)]


def by_this_project(library, query):
    return library.searcher.search(query, 10_000)


def print_relevance(library):
    """Print how often something is shown of what is not there, and what is lost of what is."""
    print("| pictures | judged by | relevance from | absent: queries with a hit | present: kept |")
    print("|---|---|--:|--:|--:|")
    sources = {name: (name,) for name in ("photos", "flowers", "cifar10_test")}
    for name, only in (sources | {"all": ()}).items():
        there = {
            library.classes[content]
            for content, places in zip(
                library.searcher.build.items["content_id"].to_pylist(),
                library.searcher.build.items["locations"].to_pylist(),
                strict=True,
            )
            if not only or places[0]["source"] in only
        }
        for label, method in (("one spread", by_one_spread), ("each picture", by_this_project)):
            best, found = [], []
            for text in ABSENT:
                hits = method(library, Query(text=text, sources=only))
                best.append(max(hit.relevance for hit in hits))
            for text, names in PRESENT.items():
                wanted = set(names.split()) & there
                hits = method(library, Query(text=text, sources=only)) if wanted else []
                of_class = library.classes_of(hits)
                # As many hits as there are right answers: those that are right should be kept.
                count = sum(each in wanted for each in of_class)
                found += [
                    hit.relevance
                    for hit, each in zip(hits[:count], of_class, strict=False)
                    if each in wanted
                ]
            for cut in CUTS:
                false = np.mean(np.array(best) >= cut)
                kept = np.mean(np.array(found) >= cut)
                print(f"| {name} | {label} | {cut} | {false:.0%} | {kept:.0%} of {len(found)} |")


def print_negatives(library):
    """Print what a query without one class shows: what is wanted, what is not, and noise."""
    searcher, only = library.searcher, ("cifar10_test",)
    flags = searcher.allowed(Query(text="a", sources=only))
    numbers = np.flatnonzero(flags)
    names = np.array(
        [library.classes[each] for each in searcher.build.items["content_id"].to_pylist()]
    )[numbers]
    vectors = searcher.build.vectors(numbers)
    rows = {"no negative": [], "difference of vectors": [], "this project": []}
    for text, unwanted, kind in NEGATIVES:
        wanted = [each for each in kind if each != unwanted]
        count = int(np.isin(names, wanted).sum())
        minus = f"a {unwanted}" if unwanted != "airplane" else "an airplane"
        words = searcher.encoder.encode_texts([text, minus])
        orders = {
            "no negative": np.argsort(-(vectors @ words[0]), kind="stable"),
            "difference of vectors": np.argsort(
                -(vectors @ normalise(words[0] - words[1])[0]), kind="stable"
            ),
        }
        shown = {method: names[order[:count]] for method, order in orders.items()}
        hits = searcher.search(Query(text=text, minus=(minus,), sources=only), count)
        shown["this project"] = np.array(library.classes_of(hits))
        for method, classes in shown.items():
            rows[method].append(
                (
                    np.isin(classes, wanted).mean(),
                    (classes == unwanted).sum() / (names == unwanted).sum(),
                    (~np.isin(classes, kind)).mean(),
                )
            )
    print("\n| query | wanted classes among the hits | of the unwanted class shown | noise |")
    print("|---|--:|--:|--:|")
    for method, values in rows.items():
        wanted, unwanted, noise = np.mean(values, axis=0)
        print(f"| {method} | {wanted:.0%} | {unwanted:.0%} | {noise:.0%} |")


def saved(image, kind, quality):
    file = io.BytesIO()
    image.save(file, kind, quality=quality)
    return Image.open(file).convert("RGB")


def cropped(image, share):
    width, height = image.size
    box = (width * share, height * share, width * (1 - share), height * (1 - share))
    return image.crop(tuple(map(int, box)))


def half(image):
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


COPIES = {
    "half the size": half,
    "JPEG, quality 50": lambda image: saved(image, "JPEG", 50),
    "WebP, quality 60": lambda image: saved(image, "WEBP", 60),
    "half the size, JPEG 70": lambda image: saved(half(image), "JPEG", 70),
    "3 % off each edge": lambda image: cropped(image, 0.03),
    "a fifth brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
}
THRESHOLDS = (0.9, 0.95, 0.97, 0.98, 0.99)


def print_copies(library, root):
    """Print how many copies are told by the cosine with the original, and by their looks."""
    photos = sorted((root / "photos").glob("*.jpg"))
    files = photos + sorted((root / "flowers").glob("*/*.jpg"))[::5]
    limits = Limits.of(library.searcher.settings.images)
    # Larger than any of them: none is resized.
    whole = decoded(map(Job, files), Fit(100_000), limits)
    pictures = [Image.fromarray(each.pixels) for each in whole]
    encode = library.searcher.encoder.encode_images
    originals, looks = encode(pictures), looks_of(pictures, limits)
    print(f"\n| cosine at least | {' | '.join(map(str, THRESHOLDS))} | looks the same | both |")
    print(f"|---|{'--:|' * (len(THRESHOLDS) + 2)}")
    for name, change in COPIES.items():
        copies = [change(each) for each in pictures]
        cosines = (originals * encode(copies)).sum(axis=1)
        print_shares(name, cosines, (looks * looks_of(copies, limits)).sum(axis=1))
    pairs = np.triu_indices(len(files), 1)
    cosines, alike = (originals @ originals.T)[pairs], (looks @ looks.T)[pairs]
    counts = [int((cosines >= least).sum()) for least in THRESHOLDS]
    counts += [int((alike >= SAME).sum())]
    counts += [int(((alike >= SAME) & (cosines >= NEAR_DUPLICATE)).sum())]
    print(f"| pairs of different files, of {len(cosines):,} | {' | '.join(map(str, counts))} |")


def looks_of(pictures, limits):
    looks = []
    with tempfile.NamedTemporaryFile() as file:
        for picture in pictures:
            picture.save(file.name, "PNG", compress_level=1)
            looks.append(look_of(Job(file.name), limits))
    return np.array(looks)


def print_shares(name, cosines, alike):
    shares = [np.mean(cosines >= least) for least in THRESHOLDS] + [np.mean(alike >= SAME)]
    shares += [np.mean((alike >= SAME) & (cosines >= NEAR_DUPLICATE))]
    print(f"| {name} | " + " | ".join(f"{share:.0%}" for share in shares) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--per-class", type=int, default=60)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        library = make_library(options.directory, Path(home), options.per_class)
        print_relevance(library)
        print_negatives(library)
        print_copies(library, options.directory)


if __name__ == "__main__":
    main()
