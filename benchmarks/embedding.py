"""How fast are files turned into vectors, next to other ways of doing it, and is it the same?

Each way runs in a process of its own, with its model loaded before the clock starts; rounds are
interleaved, and the best counts. Models have random weights of the real shapes: the speed is the
same. Prints the tables of docs/benchmarks.md.
"""

import argparse
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from retrieval_pipeline.config.settings import Settings, Source
from retrieval_pipeline.encoders.hardware import (
    PEAK_SHAPE,
    PEAK_TIMES,
    encode_threads_of,
    measured_peak,
    pick_dtype,
)
from retrieval_pipeline.encoders.int8 import weight_levels
from retrieval_pipeline.encoders.load import describe, load_encoder
from retrieval_pipeline.images.decode_pool import DecodePool, Job
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.ingest.crawl import update_manifest
from retrieval_pipeline.ingest.embed import update_embeddings
from retrieval_pipeline.ingest.encode_threads import EncodeThreads
from retrieval_pipeline.storage.schemas import embedding_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest, read_table

SHAPES = {
    "B/32": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 32,
    },
    "L/14@336": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
    },
}
DIMS = {"B/32": 512, "L/14@336": 768}

# Name: size, suffix, and how many for each shape.
FILES = {
    "12 MP JPEG": ((4000, 3000), ".jpg", {"B/32": 128, "L/14@336": 12}),
    "2 MP JPEG": ((1600, 1200), ".jpg", {"B/32": 192}),
    "500x375 JPEG": ((500, 375), ".jpg", {"B/32": 384, "L/14@336": 12}),
    "2 MP PNG": ((1600, 1200), ".png", {"B/32": 128}),
}
BATCH = 32
# Stages are compared at work, not while they start: each set is gone through so often.
REPEATS = 4
SAMPLE_SECONDS = 0.5


# The ways


def original(model: str, files: Sequence[Path]) -> tuple[Callable[[], Any], None]:
    """One image at a time, as the original is described: open, preprocess, encode in float32."""
    network, processor = transformers_model(model)
    import torch

    def run() -> Any:
        rows = []
        with torch.no_grad():
            for path in files:
                inputs = processor(images=Image.open(path).convert("RGB"), return_tensors="pt")
                rows.append(network.get_image_features(**inputs).pooler_output[0].numpy())
        return np.array(rows)

    return run, None


def zero_shot(model: str, files: Sequence[Path]) -> tuple[Callable[[], Any], None]:
    """As in transformers' examples: processor and model on a list of images."""
    network, processor = transformers_model(model)
    import torch

    def run() -> Any:
        rows = []
        with torch.no_grad():
            for start in range(0, len(files), BATCH):
                images = [Image.open(path).convert("RGB") for path in files[start : start + BATCH]]
                inputs = processor(images=images, return_tensors="pt")
                rows.append(network.get_image_features(**inputs).pooler_output.numpy())
        return np.concatenate(rows)

    return run, None


def sentence_transformers(model: str, files: Sequence[Path]) -> tuple[Callable[[], Any], None]:
    """SentenceTransformer.encode on a list of images."""
    from sentence_transformers import SentenceTransformer

    network = SentenceTransformer(model, device="cpu", model_kwargs={"dtype": "float32"})

    def run() -> Any:
        rows = []
        for start in range(0, len(files), BATCH):
            images = [Image.open(path).convert("RGB") for path in files[start : start + BATCH]]
            rows.append(network.encode(images, batch_size=BATCH, show_progress_bar=False))
        return np.concatenate(rows)

    return run, None


class Files:
    """A data set of pictures, prepared as open_clip's transform does it without torchvision."""

    def __init__(self, files: Sequence[Path], edge: int) -> None:
        self.files, self.edge = files, edge

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Any:
        image = Image.open(self.files[number])
        scale = self.edge / min(image.size)
        width, height = (max(round(side * scale), self.edge) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = (width - self.edge) // 2, (height - self.edge) // 2
        image = image.crop((left, top, left + self.edge, top + self.edge)).convert("RGB")
        mean = (0.48145466, 0.4578275, 0.40821073)
        std = (0.26862954, 0.26130258, 0.27577711)
        pixels = (np.asarray(image, np.float32) / 255 - mean) / std
        return pixels.transpose(2, 0, 1).astype(np.float32)


def data_loader(model: str, files: Sequence[Path]) -> tuple[Callable[[], Any], None]:
    """As open_clip's users do: a DataLoader with a worker for each core, batches, float32."""
    import torch

    network, _ = transformers_model(model)
    loader = torch.utils.data.DataLoader(
        Files(files, network.config.vision_config.image_size),
        batch_size=BATCH,
        num_workers=os.cpu_count() or 1,
    )

    def run() -> Any:
        with torch.no_grad():
            rows = [
                network.get_image_features(pixel_values=batch).pooler_output.numpy()
                for batch in loader
            ]
        return np.concatenate(rows)

    return run, None


def ours(model: str, files: Sequence[Path], precision: str = "auto") -> tuple[Any, Any]:
    """The pipeline: from the manifest to published parts."""
    home = Path(tempfile.mkdtemp())
    settings = Settings.model_validate(
        {
            "home": home,
            "model": model,
            "device": "cpu",
            "precision": precision,
            "sources": [{"name": "files", "path": files[0].parent}],
        }
    )
    store, source = Store(home), settings.sources[0]
    update_manifest(store, source, max_shrink=1.0)
    # As after a check of eight bits that was passed: random weights say nothing about that.
    description = describe(model, precision=settings.precision)
    encoder = load_encoder(model, device="cpu", precision=settings.precision)
    report: list[Any] = []

    def run() -> Any:
        report.append(update_embeddings(store, source, description, lambda: encoder))

    def vectors() -> Any:
        rows = read_manifest(store, "files").to_pylist()
        paths = {row["content_id"]: row["path"] for row in rows}
        schema = embedding_schema(description.space.dim)
        found = {
            paths[row["content_id"]]: row["embedding"]
            for part in store.parts(description.space)
            for row in read_table(part, schema).to_pylist()
        }
        print(report[0].timings.hint, file=sys.stderr)
        return np.array([found[path.name] for path in files])

    return run, vectors


@cache
def transformers_model(model: str) -> tuple[Any, Any]:
    import torch
    import transformers

    network = transformers.AutoModel.from_pretrained(model, dtype=torch.float32).eval()
    return network, transformers.AutoImageProcessor.from_pretrained(model, backend="pil")


WAYS: dict[str, Callable[[str, Sequence[Path]], tuple[Any, Any]]] = {
    "original": original,
    "transformers, batch 32": zero_shot,
    "sentence-transformers": sentence_transformers,
    "DataLoader, batch 32": data_loader,
    "reference": lambda model, files: ours(model, files, "reference"),
    "this pipeline": ours,
    "int8": lambda model, files: ours(model, files, "int8"),
}


def run_way(way: str, model: str, directory: str, result: str, bare: bool) -> None:
    """Run one way in this process; save seconds, processor seconds and, unless `bare`, vectors."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    files = sorted(Path(directory).iterdir())
    run, vectors = WAYS[way](model, files)
    before, began = processor_seconds(), time.monotonic()
    rows = run()
    seconds = time.monotonic() - began
    computing = processor_seconds() - before
    if bare:
        rows = None
    elif vectors:
        rows = vectors()
    found = {} if rows is None else {"vectors": rows}
    np.savez(result, seconds=seconds, computing=computing, **found)


def processor_seconds() -> float:
    """Of this process and those of its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


# Running them


def measure(
    way: str, model: Path, directory: Path, *options: str
) -> tuple[dict[str, Any], float] | None:
    """Run a way in a process of its own: what it saved, and the peak of its memory, MB."""
    with tempfile.NamedTemporaryFile(suffix=".npz") as result:
        arguments = ["--way", way, "--model", str(model), "--files", str(directory)]
        process = subprocess.Popen(
            [sys.executable, __file__, *arguments, "--result", result.name, *options],
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
        )
        with peak_memory(process.pid) as peak:
            code = process.wait()
        if code:
            return None
        with np.load(result.name) as found:
            return dict(found), peak[0]


@contextlib.contextmanager
def peak_memory(pid: int) -> Iterator[list[float]]:
    """Yield a list whose one element grows to the peak memory of a process and its children, MB.

    Proportional: what processes share is counted once.
    """
    peak, ended = [0.0], threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            peak[0] = max(peak[0], sum(map(_memory, [pid, *_children(pid)])))

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield peak
    ended.set()
    watcher.join()


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def _memory(pid: int) -> float:
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return int(text.split("Pss:")[1].split()[0]) / 1e3
    return 0.0


def peaks() -> None:
    """What a product can reach here: as PyTorch comes, and in the pipeline's format and packing."""
    import torch

    device = torch.device("cpu")
    rows, width, columns = (2 * side for side in PEAK_SHAPE)
    states, weights = torch.ones(rows, width), torch.ones(columns, width)
    product = torch.nn.functional.linear
    product(states, weights)
    began = time.monotonic()
    for _ in range(PEAK_TIMES):
        product(states, weights)
    plain = PEAK_TIMES * 2 * rows * width * columns / (time.monotonic() - began)
    dtype = pick_dtype(device, "auto")
    packed = encode_threads_of(device) * measured_peak(dtype)
    print(
        f"\nA large product: {plain / 1e9:.0f} GFLOP/s as PyTorch comes (float32), "
        f"{packed / 1e9:.0f} in the pipeline ({str(dtype).removeprefix('torch.')})"
    )
    if weight_levels() is not None:
        eight = encode_threads_of(device) * measured_peak(torch.int8)
        print(f"The same in eight bits: {eight / 1e9:.0f} GOP/s")


def speeds(
    folder: Path,
    shapes: Sequence[str],
    sets: Sequence[str],
    ways: Sequence[str],
    rounds: int,
    most: int,
) -> None:
    for shape in shapes:
        model = make_model(folder, shape)
        print(f"\n### {shape}, images per second (ratio to the original's loop)\n")
        print("| files | way | images/s | ratio | core-ms/image | ratio | MB | cosine min / mean |")
        print("|---|---|--:|--:|--:|--:|--:|--:|")
        for name in sets:
            size, suffix, counts = FILES[name]
            if shape in counts:
                count = min(counts[shape], most)
                directory = make_files(folder, size, suffix, count)
                compare(name, model, directory, count, ways, rounds)


def compare(
    name: str, model: Path, directory: Path, count: int, ways: Sequence[str], rounds: int
) -> None:
    seconds: dict[str, list[float]] = {}
    computing: dict[str, list[float]] = {}
    memory: dict[str, float] = {}
    vectors: dict[str, Any] = {}
    for _ in range(rounds):
        for way in ways:
            if (found := measure(way, model, directory)) is None:
                continue
            values, peak = found
            seconds.setdefault(way, []).append(float(values["seconds"]))
            computing.setdefault(way, []).append(float(values["computing"]))
            memory[way] = max(peak, memory.get(way, 0.0))
            rows = values["vectors"]
            vectors[way] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    exact = vectors["original"]
    apart = exact @ exact.T
    for way in seconds:
        cosines = (vectors[way] * exact).sum(axis=1)
        wall, core = min(seconds[way]), min(computing[way])
        print(
            f"| {name} | {way} | {count / wall:.1f} | {min(seconds['original']) / wall:.1f} | "
            f"{1e3 * core / count:.0f} | {min(computing['original']) / core:.1f} | "
            f"{memory[way]:.0f} | {cosines.min():.5f} / {cosines.mean():.5f} |",
            flush=True,
        )
    others = apart[~np.eye(len(apart), dtype=bool)]
    print(f"| {name} | (different images) | | | | | | {others.min():.3f} / {others.mean():.3f} |")


def overlaps(folder: Path, shapes: Sequence[str], sets: Sequence[str], rounds: int) -> None:
    """Stages alone and together."""
    print("\n### Stages alone and together, images per second\n")
    print(
        "| model | files | decode alone | encode alone | both on these cores at best | together |"
    )
    print("|---|---|--:|--:|--:|--:|")
    for shape in shapes:
        model = make_model(folder, shape)
        encoder = load_encoder(str(model), device="cpu")
        for name in sets:
            size, suffix, counts = FILES[name]
            if shape not in counts:
                continue
            files = sorted(make_files(folder, size, suffix, counts[shape]).iterdir())
            jobs = [Job(str(path)) for path in files] * REPEATS
            decode, encode, together = [], [], []
            for _ in range(rounds):
                with DecodePool(encoder.transform, Limits()) as pool:
                    list(pool.map(jobs[:4]))
                    began = time.monotonic()
                    outcomes = [outcome for _, outcome in pool.map(jobs)]
                    decode.append(len(jobs) / (time.monotonic() - began))
                    began = time.monotonic()
                    list(EncodeThreads(encoder).map(outcomes))
                    encode.append(len(jobs) / (time.monotonic() - began))
                    began = time.monotonic()
                    list(EncodeThreads(encoder).map(outcome for _, outcome in pool.map(jobs)))
                    together.append(len(jobs) / (time.monotonic() - began))
            a, b, c = map(statistics.median, (decode, encode, together))
            best = 1 / (1 / a + 1 / b)
            print(
                f"| {shape} | {name} | {a:.1f} | {b:.1f} | {best:.1f} | {c:.1f} "
                f"({c / min(a, b):.0%} of the slower one, {c / best:.0%} of the cores' best) |"
            )


def memory_of_counts(folder: Path, counts: Sequence[int]) -> None:
    """Peak memory by the number of files."""
    from synthetic.checkpoints import make_clip

    model = folder / "tiny"
    if not model.exists():
        make_clip(model)
    print("\n### Memory by the number of files (64x64 JPEGs, a tiny model)\n")
    print("| files | images/s | peak, MB |\n|--:|--:|--:|")
    for count in counts:
        directory = make_small_files(folder, count)
        found = measure("this pipeline", model, directory, "--bare")
        assert found is not None
        print(f"| {count:,} | {count / found[0]['seconds']:.0f} | {found[1]:.0f} |")


def manifests(folder: Path, count: int) -> None:
    """Time of a crawl, next to find and sha256sum."""
    directory = make_small_files(folder, count)
    store = Store(Path(tempfile.mkdtemp()))
    source = Source(name="files", path=directory)
    commands = {
        "find, size and time": f"find {directory} -type f -printf '%p %s %T@\\n'",
        "find, sha256sum": f"find {directory} -type f -print0 | xargs -0 sha256sum",
    }
    print(f"\n### Manifest of {count:,} files, seconds\n\n| what | seconds |\n|---|--:|")
    for name, command in commands.items():
        began = time.monotonic()
        subprocess.run(command, shell=True, check=True, stdout=subprocess.DEVNULL)
        print(f"| `{name}` | {time.monotonic() - began:.1f} |")
    for name in ("new: every file is hashed", "unchanged"):
        began = time.monotonic()
        update_manifest(store, source, max_shrink=1.0)
        print(f"| manifest, {name} | {time.monotonic() - began:.1f} |")
    large = make_files(folder, *FILES["12 MP JPEG"][:2], FILES["12 MP JPEG"][2]["B/32"])
    size = sum(path.stat().st_size for path in large.iterdir()) / 1e6
    store = Store(Path(tempfile.mkdtemp()))
    began = time.monotonic()
    subprocess.run(
        f"find {large} -type f -print0 | xargs -0 -n 8 -P {os.cpu_count()} sha256sum",
        shell=True,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    theirs = time.monotonic() - began
    began = time.monotonic()
    update_manifest(store, Source(name="files", path=large), max_shrink=1.0)
    mine = time.monotonic() - began
    print(
        f"\n{size:.0f} MB in 12 MP JPEGs: manifest {size / mine:.0f} MB/s, sha256sum on every core "
        f"{size / theirs:.0f} MB/s"
    )


# What they run on


def make_model(folder: Path, shape: str) -> Path:
    from synthetic.checkpoints import make_clip

    directory = folder / shape.replace("/", "-")
    if not directory.exists():
        make_clip(directory, vision=SHAPES[shape], dim=DIMS[shape])
    return directory


def make_files(folder: Path, size: tuple[int, int], suffix: str, count: int) -> Path:
    """Cut photographs of scikit-image and scikit-learn differently, with grain."""
    directory = folder / f"{size[0]}x{size[1]}{suffix}-{count}"
    if directory.exists():
        return directory
    photographs = _photographs()
    random = np.random.default_rng(0)
    grain = random.normal(0, 4, (size[1], size[0], 1))
    directory.mkdir(parents=True)
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        zoom = random.uniform(0.6, 1.0)
        width, height = (int(side * zoom) for side in photograph.size)
        left = int(random.uniform(0, photograph.width - width))
        top = int(random.uniform(0, photograph.height - height))
        image = photograph.resize(
            size, Image.Resampling.BICUBIC, (left, top, left + width, top + height)
        )
        grainy = np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(grainy).save(directory / f"{number:05}{suffix}", quality=90)
    return directory


def make_small_files(folder: Path, count: int) -> Path:
    directory = folder / f"small-{count}"
    if not directory.exists():
        directory.mkdir(parents=True)
        random = np.random.default_rng(0)
        for number in range(count):
            colours = random.integers(0, 256, (4, 4, 3), np.uint8)
            image = Image.fromarray(colours).resize((64, 64), Image.Resampling.BICUBIC)
            image.save(directory / f"{number:06}.jpg")
    return directory


@cache
def _photographs() -> list[Image.Image]:
    import skimage
    import sklearn

    data = Path(skimage.__file__).parent / "data"
    more = Path(sklearn.__file__).parent / "datasets" / "images"
    paths = [data / f"{name}.png" for name in ("chelsea", "coffee", "astronaut", "motorcycle_left")]
    paths += [data / "rocket.jpg", more / "flower.jpg", more / "china.jpg"]
    return [Image.open(path).convert("RGB") for path in paths]


PARTS: dict[str, str] = {
    "peaks": "of a large matrix product",
    "speeds": "next to other ways",
    "overlap": "stages alone and together",
    "memory": "by the number of files",
    "manifest": "of 100,000 files",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--folder", type=Path, help="for models and files; kept if given")
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--sets", nargs="+", default=list(FILES), choices=list(FILES))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--most", type=int, default=1000, help="files of a set for `speeds`")
    parser.add_argument("--counts", nargs="+", type=int, default=[1_000, 10_000, 60_000])
    for hidden in ("--way", "--model", "--files", "--result"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        run_way(options.way, options.model, options.files, options.result, options.bare)
        return
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        parts = options.parts or list(PARTS)
        print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        if "peaks" in parts:
            peaks()
        if "speeds" in parts:
            speeds(
                *(folder, options.shapes, options.sets, options.ways, options.rounds, options.most)
            )
        if "overlap" in parts:
            overlaps(folder, options.shapes, options.sets, options.rounds)
        if "memory" in parts:
            memory_of_counts(folder, options.counts)
        if "manifest" in parts:
            manifests(folder, 100_000)
        print(f"\nload after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
