"""What one GPU gives: pictures a second end to end and of the encoder alone, and what bounds each.

    python benchmarks/gpu.py                      # on a machine with an NVIDIA GPU, under 8 minutes
    python benchmarks/gpu.py --device cpu --quick # tries the script itself

Models have random weights of the real shapes, pictures are made on the spot, and nothing is
downloaded. Prints tables and writes the same figures as JSON.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

# So that both scripts measure the same files and weights.
from embedding import SHAPES, make_files, make_model, peak_memory
from PIL import Image

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.encoders.from_settings import describe_encoder
from retrieval_pipeline.encoders.load import load_encoder
from retrieval_pipeline.images.decode_pool import DecodePool, Job
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.images.transform import Decoded
from retrieval_pipeline.ingest.crawl import update_manifest
from retrieval_pipeline.ingest.embed import update_embeddings
from retrieval_pipeline.ingest.encode_threads import EncodeThreads
from retrieval_pipeline.storage.store import Store
from synthetic.checkpoints import make_siglip

# google/siglip2-so400m-patch14-384, from its published configuration.
SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}
MODELS = {**SHAPES, "so400m": SO400M}
# Size in pixels, and how many different pictures are made; further files repeat their pixels.
PICTURES = {"0.2 MP": ((500, 375), 256), "12 MP": ((4000, 3000), 16)}
FILES = {"0.2 MP": 8_192, "12 MP": 512}
# Pictures for the encoder alone, per model: some seconds of work on an H100.
ENCODED = {"B/32": 32_768, "L/14@336": 4_096, "so400m": 2_048}
COMPARED = 128
PEER_BATCH = 32
PRODUCT_EDGE = 8_192
PRODUCT_TIMES = 10
SAMPLE_SECONDS = 0.2


def operations(shape: dict[str, Any]) -> float:
    """Floating-point operations of one picture: two for each weight and token, and the attention.

    Two for each multiplication and addition; embeddings, norms and activations are left out.
    """
    width, inner, layers = (
        shape[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    tokens = (shape["image_size"] // shape["patch_size"]) ** 2 + 1
    products = 2 * tokens * (4 * width**2 + 2 * width * inner)
    return layers * (products + 4 * tokens**2 * width)


def peak(device: str) -> float:
    """Operations a second of a large product of random matrices: bfloat16 on a GPU."""
    import torch

    edge, dtype = (PRODUCT_EDGE, torch.bfloat16) if device != "cpu" else (1_024, torch.float32)
    a, b = (torch.randn(edge, edge, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    synchronise(device)
    began = time.monotonic()
    for _ in range(PRODUCT_TIMES):
        a @ b
    synchronise(device)
    return PRODUCT_TIMES * 2 * edge**3 / (time.monotonic() - began)


def synchronise(device: str) -> None:
    import torch

    if device != "cpu":
        torch.cuda.synchronize()


@contextmanager
def busy_share(device: str) -> Iterator[list[float]]:
    """Yield a list that gets the mean share, 0 to 1, of time in which the GPU was busy."""
    import torch

    samples: list[float] = []
    result: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        # Without NVIDIA's management library the share is unknown.
        with suppress(ModuleNotFoundError, RuntimeError):
            while not ended.wait(SAMPLE_SECONDS):
                samples.append(torch.cuda.utilization() / 100)

    watcher = threading.Thread(target=watch)
    if device != "cpu":
        watcher.start()
    yield result
    ended.set()
    if device != "cpu":
        watcher.join()
    result.append(float(np.mean(samples)) if samples else float("nan"))


# The ways. Each takes files and returns a function to time, and what it says of itself afterwards.


def ours(model: str, files: Sequence[Path], device: str) -> Callable[[], str]:
    """The pipeline, from the manifest to published parts."""
    home = Path(tempfile.mkdtemp())
    settings = Settings.model_validate(
        {
            "home": home,
            "model": model,
            "device": device,
            "sources": [{"name": "files", "path": files[0].parent}],
        }
    )
    store, source = Store(home), settings.sources[0]
    update_manifest(store, source, max_shrink=1.0)
    encoder = load_encoder(model, device=device)
    warm_up(encoder)

    def run() -> str:
        report = update_embeddings(store, source, describe_encoder(settings), lambda: encoder)
        assert report.embedded == len(files), report
        return report.timings.hint if report.timings else ""

    return run


def plain_transformers(model: str, files: Sequence[Path], device: str) -> Callable[[], str]:
    """As in transformers' examples, in float16 on the GPU: processor and model on 32 pictures."""
    import torch
    import transformers

    dtype = torch.float16 if device != "cpu" else torch.float32
    network = transformers.AutoModel.from_pretrained(model, dtype=dtype).eval().to(device)
    processor = transformers.AutoImageProcessor.from_pretrained(model, backend="pil")

    def run() -> str:
        with torch.inference_mode():
            for start in range(0, len(files), PEER_BATCH):
                images = [
                    Image.open(path).convert("RGB") for path in files[start : start + PEER_BATCH]
                ]
                pixels = processor(images=images, return_tensors="pt")["pixel_values"]
                features = network.get_image_features(pixel_values=pixels.to(device, dtype))
                features.pooler_output.float().cpu().numpy()
        return ""

    return run


def sentence_transformers(model: str, files: Sequence[Path], device: str) -> Callable[[], str]:
    """SentenceTransformer.encode on lists of 32 pictures, in float16 on the GPU."""
    from sentence_transformers import SentenceTransformer

    dtype = "float16" if device != "cpu" else "float32"
    network = SentenceTransformer(model, device=device, model_kwargs={"dtype": dtype})

    def run() -> str:
        for start in range(0, len(files), PEER_BATCH):
            images = [Image.open(path).convert("RGB") for path in files[start : start + PEER_BATCH]]
            network.encode(images, batch_size=PEER_BATCH, show_progress_bar=False)
        return ""

    return run


WAYS = {
    "this pipeline": ours,
    "transformers, 32, float16": plain_transformers,
    "sentence-transformers": sentence_transformers,
}
# A peer sees only so many of the files: one at a time, they take minutes.
PEER_SHARE = 8


def warm_up(encoder: Any) -> None:
    edge = Image.new("RGB", (500, 375), "orange")
    encoder.encode_images([edge] * encoder.batch)


def end_to_end(way: str, model: str, directory: str, device: str, count: int) -> dict[str, Any]:
    """Run one way in this process; return its figures."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    files = sorted(Path(directory).iterdir())[:count]
    run = WAYS[way](model, files, device)
    with busy_share(device) as busy:
        began = time.monotonic()
        said = run()
        seconds = time.monotonic() - began
    return {
        "pictures_per_second": len(files) / seconds,
        "seconds": seconds,
        "busy": busy[0],
        "bound": said,
        "device_mb": torch.cuda.max_memory_allocated() / 1e6 if device != "cpu" else 0.0,
        "host_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def encoder_alone(model: str, device: str, count: int) -> dict[str, Any]:
    """Pictures a second of the encoder's threads on decoded pictures."""
    encoder = load_encoder(model, device=device)
    warm_up(encoder)
    decoded = [Decoded(pixels, 500, 375, "JPEG") for pixels in random_pixels(encoder.transform, 64)]
    with busy_share(device) as busy:
        began = time.monotonic()
        threads = EncodeThreads(encoder)
        list(threads.map(decoded[number % len(decoded)] for number in range(count)))
        seconds = time.monotonic() - began
    return {"pictures_per_second": count / seconds, "busy": busy[0], "batch": encoder.batch}


def random_pixels(transform: Any, count: int) -> list[Any]:
    """Smooth random pictures as `transform` makes them."""
    from retrieval_pipeline.images.transform import transform_image

    random = np.random.default_rng(0)
    small = random.integers(0, 256, (count, 12, 16, 3), np.uint8)
    return [transform_image(Image.fromarray(each).resize((500, 375)), transform) for each in small]


def agreement(model: str, device: str) -> dict[str, float]:
    """Cosines of the vectors on the device to those in float32 on the processor."""
    fast, exact = (
        load_encoder(model, device=device),
        load_encoder(model, device="cpu", precision="reference"),
    )
    count = COMPARED if device != "cpu" else 4
    pixels = random_pixels(fast.transform, count)
    cosines = (fast.encode_pixels(pixels) * exact.encode_pixels(pixels)).sum(axis=1)
    return {"mean": float(cosines.mean()), "least": float(cosines.min())}


def too_large(model: str, device: str) -> dict[str, Any]:
    """A batch that the device cannot hold: it is halved, and the vectors are the same."""
    import torch

    encoder = load_encoder(model, device=device)
    pixels = random_pixels(encoder.transform, 512)
    expected = encoder.encode_pixels(pixels)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_allocated() + 256e6) / total)
    encoder.batch = 512
    found = encoder.encode_pixels(pixels)
    torch.cuda.set_per_process_memory_fraction(1.0)
    return {
        "batch_at_the_end": encoder.batch,
        "least_cosine": float((found * expected).sum(axis=1).min()),
    }


def decoding(directory: Path, model: str, count: int) -> float:
    """Pictures a second of the decode workers alone."""
    transform = load_encoder(model, device="cpu").transform
    jobs = [Job(str(path)) for path in sorted(directory.iterdir())[:count]]
    with DecodePool(transform, Limits()) as pool:
        list(pool.map(jobs[:64]))
        began = time.monotonic()
        for _ in pool.map(jobs):
            pass
        return len(jobs) / (time.monotonic() - began)


# What they run on


def make_models(folder: Path, names: Sequence[str]) -> dict[str, str]:
    made = {}
    for name in names:
        if name in SHAPES:
            made[name] = str(make_model(folder, name))
        else:
            directory = folder / name
            if not directory.exists():
                make_siglip(directory, vision=MODELS[name])
            made[name] = str(directory)
    return made


def make_many(folder: Path, name: str, count: int) -> Path:
    """Different files with the pixels of few pictures: bytes after a JPEG are ignored."""
    size, different = PICTURES[name]
    directory = folder / f"{name.replace(' ', '')}-{count}"
    if not directory.exists():
        pictures = sorted(make_files(folder, size, ".jpg", min(different, count)).iterdir())
        data = [path.read_bytes() for path in pictures]
        directory.mkdir()
        for number in range(count):
            tail = number.to_bytes(8, "little")
            (directory / f"{number:06}.jpg").write_bytes(data[number % len(data)] + tail)
    return directory


# Running them


def child(function: str, *arguments: object) -> tuple[Any, float] | None:
    """Call a function of this script in a process of its own: its result, and peak memory in MB."""
    process = start(function, *arguments)
    with peak_memory(process.pid) as most:
        output, _ = process.communicate()
    if process.returncode:
        return None
    return json.loads(output.splitlines()[-1]), most[0]


def start(function: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, __file__, "--call", json.dumps([function, *arguments])],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )


CALLS: dict[str, Callable[..., Any]] = {
    function.__name__: function
    for function in (end_to_end, encoder_alone, agreement, too_large, peak)
}


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print(f"\n### {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    sys.stdout.flush()


def measure(folder: Path, device: str, names: Sequence[str], scale: float) -> dict[str, Any]:
    """Measure everything; print tables on the way."""
    found: dict[str, Any] = {}
    most = child("peak", device)
    assert most is not None, "the device cannot multiply"
    limit = found["peak"] = most[0]
    print(f"a large product, bfloat16 on a GPU: {limit / 1e12:.2f} TFLOP/s")
    models = make_models(folder, names)
    pictures = {
        name: make_many(folder, name, max(int(FILES[name] * scale), 32)) for name in PICTURES
    }
    found["decode"] = {
        name: decoding(directory, models[names[0]], max(int(FILES[name] * scale), 32))
        for name, directory in pictures.items()
    }
    cores = len(os.sched_getaffinity(0))
    table(
        f"Decode workers alone, {cores} cores, for {names[0]}",
        ["files", "pictures/s"],
        [[name, f"{speed:.0f}"] for name, speed in found["decode"].items()],
    )
    rows = []
    for name, model in models.items():
        count = max(int(ENCODED[name] * scale), 64)
        alone = child("encoder_alone", model, device, count)
        both = [start("encoder_alone", model, device, count) for _ in range(2)]
        together = [
            json.loads(process.communicate()[0].splitlines()[-1])["pictures_per_second"]
            for process in both
        ]
        near = child("agreement", model, device)
        assert alone is not None and near is not None
        share = alone[0]["pictures_per_second"] * operations(MODELS[name]) / limit
        found[f"encoder {name}"] = {**alone[0], "share": share, "two": together, **near[0]}
        rows.append(
            [
                name,
                f"{alone[0]['pictures_per_second']:.0f}",
                f"{share:.0%}",
                f"{alone[0]['busy']:.0%}",
                str(alone[0]["batch"]),
                f"{sum(together):.0f}",
                f"{near[0]['mean']:.5f} / {near[0]['least']:.5f}",
            ]
        )
    columns = ["model", "pictures/s", "of the product", "busy", "batch"]
    columns += ["two processes, together", "cosine to float32, mean / least"]
    table("The encoder alone", columns, rows)
    rows = []
    for name, model in models.items():
        for size, directory in pictures.items():
            for way in WAYS:
                share = 1 if way == "this pipeline" else PEER_SHARE
                count = max(int(FILES[size] * scale) // share, 32)
                result = child("end_to_end", way, model, str(directory), device, count)
                if result is None:
                    continue
                figures, memory = result
                found[f"{name}, {size}, {way}"] = {**figures, "all_processes_mb": memory}
                reached = figures["pictures_per_second"] * operations(MODELS[name]) / limit
                rows.append(
                    [
                        name,
                        size,
                        way,
                        f"{figures['pictures_per_second']:.0f}",
                        f"{reached:.0%}",
                        f"{figures['busy']:.0%}",
                        f"{figures['device_mb']:.0f}",
                        f"{memory:.0f}",
                        figures["bound"],
                    ]
                )
    columns = ["model", "files", "way", "pictures/s", "of the product", "busy"]
    columns += ["device MB", "host MB", "what bounds"]
    table("End to end", columns, rows)
    if device != "cpu":
        outcome = child("too_large", models[names[0]], device)
        found["too large a batch"] = outcome and outcome[0]
        print(f"\na batch of 512 with 256 MB left: {found['too large a batch']}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--quick", action="store_true", help="a hundredth of the work")
    parser.add_argument("--folder", type=Path, help="for models and files; kept if given")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), help="where figures go")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call:
        function, *arguments = json.loads(options.call)
        print(json.dumps(CALLS[function](*arguments)))
        return
    began = time.monotonic()
    import torch

    name = torch.cuda.get_device_name() if options.device != "cpu" else platform.processor()
    print(f"{name}; torch {torch.__version__}; {len(os.sched_getaffinity(0))} cores")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        scale = 0.01 if options.quick else 1.0
        found = measure(folder, options.device, options.models, scale)
    options.json.write_text(json.dumps({"device": name, **found}, indent=1))
    print(f"\n{time.monotonic() - began:.0f} s in all; figures in {options.json}")


if __name__ == "__main__":
    main()
