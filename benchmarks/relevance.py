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

from retrieval_pipeline.config.settings import Settings, Source
from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.images.pictures import pictures as decoded
from retrieval_pipeline.images.transform import Fit
from retrieval_pipeline.pipeline.run import index_sources
from retrieval_pipeline.search.details import agree
from retrieval_pipeline.search.look_alike import details_of, look_of
from retrieval_pipeline.search.near_duplicates import NEAR_DUPLICATE
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.vectors import normalise

# From which relevance on a hit counts as likely: `search.relevance.LIKELY`, or another value.
LIKELY = 0.5
# Sizes of small collections, and how many of each are drawn.
SMALL, DRAWS = (12, 40), 8
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
    sources: dict[str, str]  # By content id.
    settings: Settings

    def small(self, size):
        """Yield indexes of a few of the photos and flowers, with their labels."""
        files = [
            file
            for name in ("photos", "flowers")
            for file in sorted((self.settings.sources[0].path.parent / name).rglob("*.jpg"))
        ]
        photos, flowers = files[:100], files[100:]
        for draw in range(DRAWS):
            generator = np.random.default_rng(draw)
            drawn = [*photos, *generator.choice(flowers, 20, replace=False)]
            with tempfile.TemporaryDirectory() as directory:
                for file in generator.permutation(drawn)[:size]:
                    copy(Path(file), Path(directory) / Path(file).parent.name)
                source = {"name": f"small-{size}-{draw}", "path": directory}
                # In the same home: no picture is embedded again.
                settings = self.settings.model_copy(
                    update={"sources": (Source.model_validate(source),)}
                )
                index_sources(settings)
                yield Searcher.open(settings), labelled(settings)

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
    return labelled(settings)


def labelled(settings):
    """Return the index of these settings; a picture's class is the name of its folder."""
    searcher = Searcher.open(settings)
    items = searcher.corpus.items
    places = [each[0] for each in items["locations"].to_pylist()]
    contents = items["content_id"].to_pylist()
    classes = [place["path"].split("/")[0] for place in places]
    sources = [place["source"] for place in places]
    return Library(
        searcher,
        dict(zip(contents, classes, strict=True)),
        dict(zip(contents, sources, strict=True)),
        settings,
    )


def copy(file, directory):
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, directory)


@dataclass(frozen=True)
class Asked:
    """A query and the classes of the pictures that answer it; none if it is about nothing here."""

    query: Query
    answers: frozenset[str]


def single_words(there, sources):
    present = [
        Asked(Query(text=text, sources=sources), frozenset(names.split()) & there)
        for text, names in PRESENT.items()
    ]
    absent = [Asked(Query(text=text, sources=sources), frozenset()) for text in ABSENT]
    return [each for each in present if each.answers] + absent


def without_what_is_absent(there, sources):
    """The same, without a thing that is not there anyway: nothing should change."""
    return [
        replace(each, query=replace(each.query, minus=(ABSENT[number % len(ABSENT)],)))
        for number, each in enumerate(single_words(there, sources), 3)
    ]


def mixtures(weights):
    """Return what asks for several things: each picture of one of them has to do with it."""

    def asked(there, sources):
        words = single_words(there, sources)
        present, absent = (
            [each for each in words if bool(each.answers) == answered] for answered in (True, False)
        )
        found = []
        for first in words:
            others = absent if first.answers else absent[::-1]
            more = [others[(len(found) + 7 * step) % len(others)] for step in range(len(weights))]
            plus = tuple(
                f"{weight}*{each.query.text}" for weight, each in zip(weights, more, strict=True)
            )
            found.append(replace(first, query=replace(first.query, plus=plus)))
        for number, first in enumerate(present if len(weights) == 1 else []):
            second = present[(number + 5) % len(present)]
            both = replace(first.query, plus=(second.query.text,))
            found.append(Asked(both, first.answers | second.answers))
        return found

    return asked


def like_pictures(library):
    """Return what asks for pictures like one: of its class, or where none is of its class."""

    def asked(there, sources):
        # Every eleventh picture: some of each source.
        examples = list(library.classes.items())[::11]
        kinds = [frozenset(names.split()) for names in PRESENT.values()]
        found = []
        for content, name in examples:
            kind = next((kind for kind in kinds if name in kind), frozenset([name]))
            count = sum(
                each in kind
                for other, each in library.classes.items()
                if other != content and (not sources or library.sources[other] in sources)
            )
            # A flower is like a flower of another species, but how much nobody has labelled.
            found.append(
                Asked(
                    Query(like=(content,), sources=sources), kind & there if count else frozenset()
                )
            )
        return found

    return asked


def print_relevance(library):
    """Print for each kind of query how far its percentages can be believed.

    Of what is absent: the share of queries with a likely hit. Of what is there: the share of the
    right ones among as many hits as there are right answers that are called likely. Of the ten best
    hits of all queries, by their relevance: how many are right. And the share of queries whose
    percentages do not descend with the rank.
    """
    kinds = {
        "words": single_words,
        "words without something absent": without_what_is_absent,
        "two things": mixtures((1,)),
        "three things, the last twice": mixtures((1, 2)),
        "like a picture": like_pictures(library),
    }
    print(
        "| query | pictures | absent: with a likely hit | present: likely | right, of hits "
        "below 30 % | 30 to 70 % | 70 % and more | order broken |"
    )
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    collections = {name: (name,) for name in ("photos", "flowers", "cifar10_test")}
    for kind, asked in kinds.items():
        for name, sources in (collections | {"all": ()}).items():
            there = {
                each
                for content, each in library.classes.items()
                if not sources or library.sources[content] in sources
            }
            judged = [judge(library.searcher, library, each) for each in asked(there, sources)]
            print_row(kind, name, judged)
    for kind, asked in (("words", single_words), ("like a picture", None)):
        for size in SMALL:
            judged = []
            for searcher, small in library.small(size):
                queries = (asked or like_pictures(small))(set(small.classes.values()), ())
                judged += [judge(searcher, small, each) for each in queries]
            print_row(kind, f"{DRAWS} x {size} photos and flowers", judged)


# General words, which are near to many others, and one that is not.
SINGLE = {
    "dog": "a dog",
    "cat": "a cat",
    "flower": "a flower",
    "ship": "a ship",
    "zebra": "a zebra",
}
SINGLE |= {"tree": "", "house": "", "piano": ""}


def print_single_words(library):
    """Print for words without an article how many pictures are likely, and how many of them right.

    A label of `retrieval label` is such a word more often than a phrase.
    """
    print("| word | pictures of it | likely | right |")
    print("|---|--:|--:|--:|")
    for word, phrase in SINGLE.items():
        answers = set(PRESENT.get(phrase, "").split())
        there = sum(each in answers for each in library.classes.values())
        judged = judge(library.searcher, library, Asked(Query(text=word), answers))
        likely = judged.relevance >= LIKELY
        print(f"| {word} | {there} | {likely.sum()} | {judged.right[likely].sum()} |")


@dataclass(frozen=True)
class Judged:
    """The hits of one query: their relevance, and which are right."""

    relevance: np.ndarray
    right: np.ndarray
    present: bool


def judge(searcher, library, asked):
    hits = searcher.search(asked.query, 10_000)
    right = np.array([library.classes[hit.content_id] in asked.answers for hit in hits], bool)
    return Judged(np.array([hit.relevance for hit in hits]), right, bool(asked.answers))


def print_row(kind, name, judged):
    absent = [each.relevance.max() >= LIKELY for each in judged if not each.present]
    kept = np.concatenate(
        [each.relevance[: each.right.sum()][each.right[: each.right.sum()]] for each in judged]
    )
    relevance = np.concatenate([each.relevance[:10] for each in judged])
    right = np.concatenate([each.right[:10] for each in judged])
    broken = np.mean([(np.diff(each.relevance) > 1e-9).any() for each in judged])
    cells = [f"{np.mean(absent):.0%} of {len(absent)}" if absent else "-"]
    cells.append(f"{np.mean(kept >= LIKELY):.0%} of {len(kept)}" if len(kept) else "-")
    for low, high in ((-1, 0.3), (0.3, 0.7), (0.7, 2)):
        inside = right[(relevance >= low) & (relevance < high)]
        cells.append(f"{inside.mean():.0%} of {len(inside)}" if len(inside) else "-")
    print(f"| {kind} | {name} | {' | '.join(cells)} | {broken:.0%} |")


def print_negatives(library):
    """Print what a query without one class shows: what is wanted, what is not, and noise."""
    searcher, only = library.searcher, ("cifar10_test",)
    flags = searcher.allowed(Query(text="a", sources=only))
    numbers = np.flatnonzero(flags)
    names = np.array(
        [library.classes[each] for each in searcher.corpus.items["content_id"].to_pylist()]
    )[numbers]
    vectors = searcher.corpus.vectors(numbers)
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
    originals, looks = encode(pictures), [look(each, limits) for each in pictures]
    print(f"\n| cosine at least | {' | '.join(map(str, THRESHOLDS))} | looks the same | both |")
    print(f"|---|{'--:|' * (len(THRESHOLDS) + 2)}")
    for name, change in COPIES.items():
        copies = [change(each) for each in pictures]
        cosines = (originals * encode(copies)).sum(axis=1)
        alike = [same(a, look(b, limits)) for a, b in zip(looks, copies, strict=True)]
        shares = [np.mean(cosines >= least) for least in THRESHOLDS] + [np.mean(alike)]
        shares.append(np.mean(np.array(alike) & (cosines >= NEAR_DUPLICATE)))
        print(f"| {name} | " + " | ".join(f"{share:.0%}" for share in shares) + " |")
    pairs = np.triu_indices(len(files), 1)
    cosines = (originals @ originals.T)[pairs]
    alike = np.array([same(looks[one], looks[other]) for one, other in zip(*pairs, strict=True)])
    counts = [int((cosines >= least).sum()) for least in THRESHOLDS]
    counts += [int(alike.sum()), int((alike & (cosines >= NEAR_DUPLICATE)).sum())]
    print(f"| pairs of different files, of {len(cosines):,} | {' | '.join(map(str, counts))} |")


def look(picture, limits):
    """Return the grid and the details of a picture."""
    with tempfile.NamedTemporaryFile() as file:
        picture.save(file.name, "PNG", compress_level=1)
        return look_of(Job(file.name), limits), details_of(Job(file.name), limits)


def same(one, other):
    return one[0].like(other[0]) and agree(one[1], other[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--per-class", type=int, default=60)
    parser.add_argument("--likely", type=float, default=LIKELY, help="What counts as likely.")
    options = parser.parse_args()
    globals()["LIKELY"] = options.likely
    with tempfile.TemporaryDirectory() as home:
        library = make_library(options.directory, Path(home), options.per_class)
        print_negatives(library)
        print_copies(library, options.directory)
        print_relevance(library)
        print_single_words(library)


if __name__ == "__main__":
    main()
