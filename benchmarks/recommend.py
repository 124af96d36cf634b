"""How many votes until a recommender ranks well: random, alternating and uncertain pictures.

A class of labelled photographs, or a group of classes, is taken for a taste. The pictures are split
in halves: votes are taken from one, and the other is ranked; the measure is the average precision
(AP) of that ranking. Its ceiling is what votes on all pictures of the first half give.

    python benchmarks/recommend.py DIRECTORY     one folder of photographs for each class
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from blake3 import blake3
from sklearn.metrics import average_precision_score

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.encoders.load import load_encoder
from retrieval_pipeline.images.decode_pool import DecodePool, Job
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.recommend.active_learning import STRATEGIES, Pool, next_item
from retrieval_pipeline.recommend.svm import Trainer, Votes, train

GOAL = 0.9
SHARE_OF_CEILING = 0.9
BATCH = 32
NEIGHBOURS = 300


def embed(directory, per_class):
    """Return the vectors and the class of the photographs; computed once, kept in /tmp."""
    files = [
        file
        for folder in sorted(path for path in directory.iterdir() if path.is_dir())
        for file in sorted(folder.iterdir())[:per_class]
    ]
    key = blake3("\0".join(map(str, files)).encode()).hexdigest(length=8)
    cache = Path(tempfile.gettempdir()) / f"recommend-benchmark-{key}.npz"
    if not cache.exists():
        encoder = load_encoder("offline", device="cpu")
        limits = Limits.of(Settings().images)
        with DecodePool(encoder.transform, limits) as pool:
            pixels = [decoded.pixels for _, decoded in pool.map(map(Job, files))]
        vectors = [
            encoder.encode_pixels(pixels[start : start + BATCH])
            for start in range(0, len(pixels), BATCH)
        ]
        classes = [file.parent.name for file in files]
        np.savez(cache, vectors=np.concatenate(vectors), classes=classes)
    stored = np.load(cache)
    return stored["vectors"], stored["classes"]


@dataclass(frozen=True)
class Run:
    """AP after 1, 2, ... votes, 0 before there is a model; and after votes on everything."""

    found: np.ndarray
    ceiling: float

    def votes_to(self, goal):
        reached = np.flatnonzero(self.found >= goal)
        return reached[0] + 1 if len(reached) else np.inf


def simulate(vectors, liked, strategy, most, seed):
    rng = np.random.default_rng(seed)
    pool_rows, test_rows = np.array_split(rng.permutation(len(vectors)), 2)
    vectors_here, liked_here = vectors[pool_rows], liked[pool_rows]
    unseen = np.ones(len(pool_rows), np.bool_)
    pool = Pool(
        unseen,
        lambda numbers: vectors_here[numbers],
        lambda vector: np.argsort(-(vectors_here @ vector), kind="stable")[:NEIGHBOURS],
    )

    def precision(model):
        return average_precision_score(liked[test_rows], model.scores(vectors[test_rows]))

    trainer, model, seen, found = Trainer(), None, [], []
    while len(seen) < most and unseen.any():
        votes = votes_on(seen, vectors_here, liked_here)
        if strategy == "random":
            number = int(rng.choice(np.flatnonzero(unseen)))
        else:
            number = next_item(pool, votes, model, strategy, rng)
        seen.append(number)
        unseen[number] = False
        model = trainer.train(votes_on(seen, vectors_here, liked_here))
        found.append(precision(model) if model else 0.0)
    return Run(np.array(found), precision(train(vectors_here, liked_here)))


def votes_on(seen, vectors, liked):
    rows = np.array(seen, np.int64)
    return Votes(rows, vectors[rows], liked[rows])


def quartiles(needed, most):
    """Return "median (lower to upper quartile)"; what was not reached counts as more than most."""
    values = np.quantile(needed, (0.25, 0.5, 0.75), method="higher")
    low, median, high = (f"{value:.0f}" if np.isfinite(value) else f">{most}" for value in values)
    return f"{median} ({low} to {high})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--per-class", type=int, default=200, help="photographs of each class")
    parser.add_argument("--votes", type=int, default=100, help="votes of one simulated person")
    parser.add_argument("--seeds", type=int, default=5, help="people with the same taste")
    parser.add_argument(
        "--group",
        nargs="+",
        action="append",
        default=[],
        metavar="CLASS",
        help="take these classes together for one more taste",
    )
    options = parser.parse_args()
    vectors, classes = embed(options.directory, options.per_class)
    tastes = [[name] for name in np.unique(classes)] + options.group
    print(
        f"{options.directory.name}: {len(vectors)} photographs, {len(tastes)} tastes, "
        f"{options.seeds} people each, model offline\n"
    )
    checks = [votes for votes in (25, 50, 100) if votes <= options.votes]
    headings = "".join(f" AP at {votes} |" for votes in checks)
    print(f"| pictures | votes to 90 % of the ceiling | votes to AP {GOAL} |{headings} ceiling |")
    print("|---|--:|--:|" + "--:|" * len(checks) + "--:|")
    for strategy in ("random", *STRATEGIES):
        runs = [
            simulate(vectors, np.isin(classes, taste), strategy, options.votes, seed)
            for taste in tastes
            for seed in range(options.seeds)
        ]
        relative = [run.votes_to(SHARE_OF_CEILING * run.ceiling) for run in runs]
        # Where even votes on everything stay below, no choice of pictures can help.
        absolute = [run.votes_to(GOAL) for run in runs if run.ceiling >= GOAL]
        at = "".join(
            f" {np.median([run.found[min(votes, len(run.found)) - 1] for run in runs]):.2f} |"
            for votes in checks
        )
        print(
            f"| {strategy} | {quartiles(relative, options.votes)} | "
            f"{quartiles(absolute, options.votes) if absolute else 'out of reach'} "
            f"[{len(absolute)} of {len(runs)}] |"
            f"{at} {np.median([run.ceiling for run in runs]):.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
