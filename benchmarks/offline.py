"""How well and how fast do the offline model's classifiers find photos, and by which library?

    python benchmarks/offline.py PHOTOS FLOWERS

PHOTOS is a directory of photos that are named by their ImageNet class, each queried as "a photo of
a ..."; FLOWERS has a directory of photos for each species, queried by its name. Recall for the
photos, the share of the first ten that show the species for the flowers, and the processor time of
a picture in batches of four on one core, the best of several rounds. Prints a table of
docs/benchmarks.md.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from retrieval_pipeline.encoders.base import Encoder
from retrieval_pipeline.encoders.efficientnet_onnx import INPUT, make_session
from retrieval_pipeline.encoders.load import load_encoder
from retrieval_pipeline.encoders.offline import BATCH, CLASSIFIERS, read_network

ROUNDS = 8


def main() -> None:
    """Measure both classifiers, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path)
    parser.add_argument("flowers", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| classifier | recall@1 | recall@10 | MRR | flowers, precision@10 | ", end="")
    print("PyTorch, ms | channels last | ONNX Runtime | largest difference of a score |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for name, classifier in reversed(CLASSIFIERS.items()):
        encoder = load_encoder("offline", revision=name, device="cpu", precision="reference")
        quality = (*photos_found(encoder, options.photos), flowers_found(encoder, options.flowers))
        network = read_network(classifier)
        session = make_session(network)
        pixels = torch.randn(BATCH, 3, classifier.edge, classifier.edge)
        wide = pixels.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            expected = network(pixels).numpy()
            plain = milliseconds(network, pixels)
            graph = milliseconds(session.run, None, {INPUT: pixels.numpy()})
            network = network.to(memory_format=torch.channels_last)
            last = milliseconds(network, wide)
        (scores,) = session.run(None, {INPUT: pixels.numpy()})
        cells = [f"{value:.3f}" for value in quality]
        cells += [f"{value:.0f}" for value in (plain, last, graph)]
        cells += [f"{np.abs(scores - expected).max():.0e}"]
        print(f"| {classifier.name} | {' | '.join(cells)} |", flush=True)


def photos_found(encoder: Encoder, directory: Path) -> tuple[float, float, float]:
    """Return recall@1, recall@10 and the mean reciprocal rank."""
    paths = sorted(directory.glob("*.jpg"))
    vectors = encoder.encode_images([Image.open(path).convert("RGB") for path in paths])
    texts = [f"a photo of a {path.stem.replace('_', ' ')}" for path in paths]
    scores = encoder.encode_texts(texts) @ vectors.T
    ranks = (scores > np.diag(scores)[:, None]).sum(axis=1)
    return float(np.mean(ranks < 1)), float(np.mean(ranks < 10)), float(np.mean(1 / (1 + ranks)))


def flowers_found(encoder: Encoder, directory: Path) -> float:
    """Return the mean share of the first ten that show the species whose name is the query."""
    paths = sorted(directory.glob("*/*.jpg"))
    vectors = encoder.encode_images([Image.open(path).convert("RGB") for path in paths])
    species = sorted({path.parent.name for path in paths})
    texts = [name.lstrip("0123456789_- ").replace("_", " ") for name in species]
    scores = encoder.encode_texts(texts) @ vectors.T
    best = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    shown = np.array([path.parent.name for path in paths])[best]
    return float((shown == np.array(species)[:, None]).mean())


def milliseconds(compute: Callable[..., object], *arguments: object) -> float:
    """Return the least processor time of a picture in a batch of BATCH."""
    times = []
    for _ in range(ROUNDS):
        began = time.thread_time()
        compute(*arguments)
        times.append(time.thread_time() - began)
    return min(times) / BATCH * 1e3


if __name__ == "__main__":
    main()
