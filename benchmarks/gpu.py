"""What one GPU gives: pictures a second end to end and of the encoder alone, and what bounds each.

    python benchmarks/gpu.py                      # on a machine with an NVIDIA GPU, 8 to 10 minutes
    python benchmarks/gpu.py --device cpu --quick # tries the script itself

Models have random weights of the real shapes, pictures are made on the spot, and nothing is
downloaded. Prints tables and writes the same figures as JSON.
"""

import argparse
import json
import os
import platform
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

from retrieval_pipeline.config.settings import Settings, Source
from retrieval_pipeline.encoders.base import Description
from retrieval_pipeline.encoders.from_settings import describe_encoder
from retrieval_pipeline.encoders.load import describe, load_encoder
from retrieval_pipeline.errors import EncoderError
from retrieval_pipeline.images.decode_pool import DecodePool, Job
from retrieval_pipeline.images.device_decode import DeviceDecoder, Jpeg
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.images.transform import Decoded
from retrieval_pipeline.ingest.crawl import update_manifest
from retrieval_pipeline.ingest.embed import EmbedOptions, update_embeddings
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
FILES = {"0.2 MP": 8_192, "12 MP": 1_536}
# Pictures for the encoder alone, per model: some seconds of work on an H100.
ENCODED = {"B/32": 32_768, "L/14@336": 4_096, "so400m": 2_048}
# Other batches for the encoder alone: powers of two times the pipeline's.
BATCHES = (1, 2)
COMPARED = {"cuda": 128, "cpu": 16}
PEER_BATCH = 32
PRODUCT_EDGE = 8_192
PRODUCT_TIMES = 10
TOWER_TOKENS = {"cuda": 16_384, "cpu": 50}
WARM_TIMES, TOWER_TIMES = 3, 8
SAMPLE_SECONDS = 0.2
# What is measured is the speed of long runs: workers are started before.
WARM_FILES = 64
WARM_SECONDS = 20
# Files that are decoded on the device at once, and the sets of its decoders that are compared.
DEVICE_BATCH = 64
DEVICE_DECODERS = {
    "all": (),
    "hardware": ("HW_GPU_ONLY",),
    "kernels": ("GPU_ONLY", "HYBRID_CPU_GPU"),
}


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
    store, source, description, encoder = opened(Path(tempfile.mkdtemp()), model, files, device)

    pool = DecodePool(description.transform, Limits())
    list(pool.map(Job(str(path)) for path in files[:WARM_FILES]))
    if encoder.gpu is not None:
        # Its process starts with the first question, and is ready some seconds later.
        pool.use_device(encoder.gpu)
        for _ in range(WARM_SECONDS):
            if pool.device_is_ready:
                break
            time.sleep(1)

    def run() -> str:
        with pool:
            options = EmbedOptions(pool=lambda: pool)
            report = update_embeddings(store, source, description, lambda: encoder, options)
        assert report.embedded == len(files), report
        return report.timings.hint if report.timings else ""

    return run


def opened(
    home: Path, model: str, files: Sequence[Path], device: str
) -> tuple[Store, Source, Description, Any]:
    """Crawl the files into a home; return what embedding them needs, the encoder at work."""
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
    return store, source, describe_encoder(settings), encoder


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


def by_workers_only(model: str, files: Sequence[Path], device: str) -> Callable[[], str]:
    """The pipeline, but the device decodes nothing."""
    from retrieval_pipeline.encoders.clip import ClipEncoder

    ClipEncoder.gpu = None  # type: ignore[assignment, method-assign]
    return ours(model, files, device)


PEERS = {way.__name__: way for way in (plain_transformers, sentence_transformers)}
WAYS = {"this pipeline": ours, "decoding by workers only": by_workers_only, **PEERS}
# A peer sees only so many of the files: one at a time, they take minutes.
PEER_SHARE = 16


def warm_up(encoder: Any) -> None:
    edge = Image.new("RGB", (500, 375), "orange")
    encoder.encode_images([edge] * encoder.batch)


def end_to_end(
    way: str, model: str, device: str, works: Sequence[tuple[str, int]]
) -> list[dict[str, Any]]:
    """Run one way in this process over so many files of each directory; return its figures."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    rows = []
    for directory, count in works:
        run = WAYS[way](model, sorted(Path(directory).iterdir())[:count], device)
        if device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        with busy_share(device) as busy, peak_memory(os.getpid()) as most:
            began = time.monotonic()
            said = run()
            seconds = time.monotonic() - began
        rows.append(
            {
                "pictures_per_second": count / seconds,
                "seconds": seconds,
                "busy": busy[0],
                "bound": said,
                "device_mb": device_memory(device),
                "processes_mb": most[0],
            }
        )
    return rows


def encoder_alone(
    model: str, device: str, count: int, times: Sequence[int], compare: Sequence[str] = ()
) -> dict[str, Any]:
    """Pictures a second of the encoder's threads on decoded pictures, in `times` its own batch.

    Its vectors are compared with those in float32 on the devices of `compare`.
    """
    import torch

    encoder = load_encoder(model, device=device)
    batch, rows = encoder.batch, []
    decoded = [Decoded(pixels, 500, 375, "JPEG") for pixels in random_pixels(encoder.transform, 64)]
    for factor in times:
        encoder.batch = factor * batch
        warm_up(encoder)
        if device != "cpu":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        with busy_share(device) as busy:
            began = time.monotonic()
            threads = EncodeThreads(encoder)
            list(threads.map(decoded[number % len(decoded)] for number in range(count)))
            seconds = time.monotonic() - began
        rows.append(
            {
                "pictures_per_second": count / seconds,
                "busy": busy[0],
                "batch": encoder.batch,
                "device_mb": device_memory(device),
            }
        )
    encoder.batch = batch
    near = {other: agreement(encoder, model, other, COMPARED[other]) for other in compare}
    return {"batches": rows, "near": near}


def device_memory(device: str) -> float:
    """Return the most of the device that PyTorch took, MB, with what it keeps for later."""
    import torch

    return torch.cuda.max_memory_reserved() / 1e6 if device != "cpu" else 0.0


def random_pixels(transform: Any, count: int) -> list[Any]:
    """Smooth random pictures as `transform` makes them."""
    from retrieval_pipeline.images.transform import transform_image

    random = np.random.default_rng(0)
    small = random.integers(0, 256, (count, 12, 16, 3), np.uint8)
    return [transform_image(Image.fromarray(each).resize((500, 375)), transform) for each in small]


def agreement(encoder: Any, model: str, device: str, count: int) -> dict[str, float]:
    """Cosines of an encoder's vectors to those in float32 on `device`."""
    exact = load_encoder(model, device=device, precision="reference")
    pixels = random_pixels(encoder.transform, count)
    cosines = (encoder.encode_pixels(pixels) * exact.encode_pixels(pixels)).sum(axis=1)
    return {"mean": float(cosines.mean()), "least": float(cosines.min())}


def towers(model: str, device: str, tokens: int) -> dict[str, float]:
    """Pictures a second of arrangements of the image tower: one thread, a batch on the device."""
    import torch
    import transformers

    from retrieval_pipeline.encoders.fused_vision import fused_tower

    dtype = torch.bfloat16 if device != "cpu" else torch.float32
    network = transformers.AutoModel.from_pretrained(model, dtype=dtype).eval().to(device)
    edge, patch = network.config.vision_config.image_size, network.config.vision_config.patch_size
    batch = torch.randn(
        max(tokens // (edge // patch) ** 2, 1), 3, edge, edge, device=device, dtype=dtype
    )

    def timed(tower: Callable[[Any], Any]) -> float:
        with torch.inference_mode():
            for _ in range(WARM_TIMES):
                tower(batch)
            synchronise(device)
            began = time.monotonic()
            for _ in range(TOWER_TIMES):
                tower(batch)
            synchronise(device)
        return TOWER_TIMES * len(batch) / (time.monotonic() - began)

    found = {"transformers": timed(lambda pixels: network.get_image_features(pixel_values=pixels))}
    tower = fused_tower(network)
    if tower is None:
        return found
    found["rearranged"] = timed(tower)
    if device != "cpu":
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph):
            tower(batch)
        found["graph"] = timed(lambda _: graph.replay())
    return found


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


def device_lost(model: str, directory: str, device: str) -> dict[str, Any]:
    """The device fails in the middle of a run: its last words, and what the next run finds."""
    import torch

    home, files = Path(tempfile.mkdtemp()), sorted(Path(directory).iterdir())
    store, source, description, encoder = opened(home, model, files, device)
    encode, calls = encoder.encode_pixels, iter(range(10**9))

    def failing(pixels: Any) -> Any:
        if next(calls) == 3 and device != "cpu":
            # The device finds an index that does not exist, after which it computes nothing more.
            torch.zeros(4, device=device)[torch.tensor([9], device=device)]
        return encode(pixels)

    encoder.encode_pixels = failing
    said = "nothing"
    try:
        update_embeddings(store, source, description, lambda: encoder)
    except EncoderError as error:
        said = str(error)
    rest = child("next_run", str(home), model, directory, device)
    return {"said": said, "next": rest and rest[0]}


def next_run(home: str, model: str, directory: str, device: str) -> dict[str, int]:
    """What a run over the same files and home knows from before, and embeds itself."""
    files = sorted(Path(directory).iterdir())
    store, source, description, encoder = opened(Path(home), model, files, device)
    report = update_embeddings(store, source, description, lambda: encoder)
    return {"known": report.known, "embedded": report.embedded}


def on_device(model: str, works: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
    """Pictures a second of decoding on the device, and how near it is to the decode workers'."""
    from nvidia import nvimgcodec

    encoder = load_encoder(model)
    rows = []
    for directory, count in works:
        paths = sorted(Path(directory).iterdir())[:count]
        jpegs = [Jpeg(path.read_bytes()) for path in paths]
        with DecodePool(encoder.transform, Limits()) as pool:
            exact = [
                outcome.pixels
                for _, outcome in pool.map([Job(str(path)) for path in paths[:DEVICE_BATCH]])
                if isinstance(outcome, Decoded)
            ]
        for name, kinds in DEVICE_DECODERS.items():
            decoder = DeviceDecoder(encoder.transform)
            if kinds:
                backends = [
                    nvimgcodec.Backend(getattr(nvimgcodec.BackendKind, kind)) for kind in kinds
                ]
                decoder._decoder = nvimgcodec.Decoder(device_id=0, backends=backends)
            good = [pixels for pixels in decoder.decode(jpegs[:DEVICE_BATCH]) if pixels is not None]
            near: Any = float("nan")
            levels = float("nan")
            if len(good) == len(exact):
                near = (encoder.encode_pixels(good) * encoder.encode_pixels(exact)).sum(axis=1)
                levels = float(np.abs(np.array(good, np.int16) - np.array(exact, np.int16)).mean())
            began = time.monotonic()
            for start in range(0, len(jpegs), DEVICE_BATCH):
                decoder.decode(jpegs[start : start + DEVICE_BATCH])
            rows.append(
                {
                    "directory": directory,
                    "decoders": name,
                    "pictures_per_second": len(jpegs) / (time.monotonic() - began),
                    "decoded": len(good),
                    "mean_cosine": float(np.mean(near)),
                    "least_cosine": float(np.min(near)),
                    "mean_difference_of_255": levels,
                }
            )
    return rows


def decoding(directory: Path, model: str, count: int, workers: int | None = None) -> float:
    """Pictures a second of the decode workers alone."""
    transform = describe(model).transform
    jobs = [Job(str(path)) for path in sorted(directory.iterdir())[:count]]
    with DecodePool(transform, Limits(), workers) as pool:
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
    for function in (
        peak,
        encoder_alone,
        end_to_end,
        towers,
        too_large,
        device_lost,
        next_run,
        on_device,
    )
}


def head(title: str, columns: Sequence[str]) -> None:
    print(f"\n### {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


class Measurement:
    """Measures step by step; prints each step's table, and writes all figures after each."""

    def __init__(
        self, folder: Path, device: str, names: Sequence[str], scale: float, file: Path
    ) -> None:
        self.folder, self.device, self.names, self.scale = folder, device, names, scale
        self.file, self.found = file, {"device": device_name(device)}
        self.began = time.monotonic()

    def run(self, steps: Sequence[str]) -> None:
        """Take the steps by their names; one that fails says so, and the others follow."""
        most = child("peak", self.device)
        assert most is not None, "the device cannot multiply"
        self.found["peak"] = self.limit = most[0]
        print(f"a large product, bfloat16 on a GPU: {self.limit / 1e12:.2f} TFLOP/s")
        self.models = make_models(self.folder, self.names)
        self.pictures = {
            name: make_many(self.folder, name, self.scaled(FILES[name])) for name in PICTURES
        }
        for step in steps:
            print(f"\n{time.monotonic() - self.began:.0f} s: {step}", flush=True)
            try:
                STEPS[step](self)
            except (AssertionError, ValueError) as error:
                print(f"failed: {error!r}")
            self.file.write_text(json.dumps(self.found, indent=1))

    def scaled(self, count: int) -> int:
        """Return the number of files or pictures at the scale of this run."""
        return max(int(count * self.scale), 64)

    def share(self, model: str, speed: float) -> float:
        """Return pictures a second as a share of the large product's operations."""
        return speed * operations(MODELS[model]) / self.limit

    def encoders(self) -> None:
        """The encoder alone, and how near its vectors are to those in float32."""
        columns = ["model", "batch", "pictures/s", "of the product", "busy", "device MB"]
        head("The encoder alone", [*columns, "cosine to float32, mean / least"])
        for name, model in self.models.items():
            compare = {self.device, "cpu"} if name == self.names[0] else {self.device}
            count = self.scaled(ENCODED[name])
            alone = child("encoder_alone", model, self.device, count, BATCHES, sorted(compare))
            assert alone is not None, name
            self.found[f"encoder {name}"] = alone[0]
            near = [
                f"{each['mean']:.5f} / {each['least']:.5f}" for each in alone[0]["near"].values()
            ]
            for each in alone[0]["batches"]:
                row(
                    name,
                    str(each["batch"]),
                    f"{each['pictures_per_second']:.0f}",
                    f"{self.share(name, each['pictures_per_second']):.1%}",
                    f"{each['busy']:.0%}",
                    f"{each['device_mb']:.0f}",
                    *near,
                )

    def ours(self) -> None:
        """The pipeline from files to vectors."""
        both, large = list(PICTURES), ["12 MP"]
        self.ends({"this pipeline": dict.fromkeys(self.names, both)})
        if self.device != "cpu":
            self.ends({"decoding by workers only": dict.fromkeys(self.names[:2], large)})

    def peers(self) -> None:
        """Plain transformers and sentence-transformers over a part of the files."""
        both, small = list(PICTURES), ["0.2 MP"]
        for way in (plain_transformers, sentence_transformers):
            models = {name: both if name == self.names[0] else small for name in self.names}
            self.ends({way.__name__: models})

    def ends(self, wanted: dict[str, dict[str, list[str]]]) -> None:
        """End to end: by way and model, the sizes of the files."""
        columns = ["model", "files", "way", "pictures/s", "of the product", "busy"]
        head("End to end", [*columns, "device MB", "host MB", "what bounds"])
        for way, models in wanted.items():
            for name, sizes in models.items():
                part = PEER_SHARE if way in PEERS else 1
                works = [
                    (str(self.pictures[size]), max(self.scaled(FILES[size]) // part, PEER_BATCH))
                    for size in sizes
                ]
                result = child("end_to_end", way, self.models[name], self.device, works)
                if result is None:  # of sentence-transformers, not every version knows every model
                    row(name, "", way, "failed")
                    continue
                for size, figures in zip(sizes, result[0], strict=True):
                    self.found[f"{name}, {size}, {way}"] = figures
                    speed = figures["pictures_per_second"]
                    row(
                        name,
                        size,
                        way,
                        f"{speed:.0f}",
                        f"{self.share(name, speed):.1%}",
                        f"{figures['busy']:.0%}",
                        f"{figures['device_mb']:.0f}",
                        f"{figures['processes_mb']:.0f}",
                        figures["bound"],
                    )

    def decoders(self) -> None:
        """Decoding by worker processes, by one and by one a core, and on the device."""
        cores = len(os.sched_getaffinity(0))
        model = self.models[self.names[0]]
        columns = ["files", "by", "pictures/s", "decoded", "cosine, mean / least", "levels"]
        head(f"Decoding for {self.names[0]}", columns)
        for size, directory in self.pictures.items():
            count = self.scaled(FILES[size])
            speeds = {
                "one worker": decoding(directory, model, max(count // 16, 32), workers=1),
                f"{cores} workers": decoding(directory, model, count),
            }
            self.found[f"decode {size}"] = speeds
            for way, speed in speeds.items():
                row(size, way, f"{speed:.0f}")
        if self.device == "cpu":
            return
        works = [(str(path), self.scaled(FILES[size]) // 2) for size, path in self.pictures.items()]
        result = child("on_device", model, works)
        assert result is not None
        self.found["decode on device"] = result[0]
        for figures in result[0]:
            row(
                Path(figures["directory"]).name,
                f"device: {figures['decoders']}",
                f"{figures['pictures_per_second']:.0f}",
                str(figures["decoded"]),
                f"{figures['mean_cosine']:.5f} / {figures['least_cosine']:.5f}",
                f"{figures['mean_difference_of_255']:.2f}",
            )

    def towers(self) -> None:
        """Arrangements of the image tower."""
        for name, model in self.models.items():
            result = child("towers", model, self.device, TOWER_TOKENS[self.device])
            self.found[f"towers {name}"] = result and result[0]
            print(f"{name}: {self.found[f'towers {name}']}")

    def pairs(self) -> None:
        """Two processes that encode on one device at the same time."""
        for name in self.names[:2]:
            arguments = (self.models[name], self.device, self.scaled(ENCODED[name]) // 2, [1])
            both = [start("encoder_alone", *arguments) for _ in range(2)]
            speeds = [
                json.loads(process.communicate()[0].splitlines()[-1])["batches"][0]
                for process in both
            ]
            self.found[f"two processes {name}"] = speeds
            each = " and ".join(f"{found['pictures_per_second']:.0f}" for found in speeds)
            print(f"two processes, {name}: {each} pictures/s")

    def failures(self) -> None:
        """Too large a batch, and a device that fails in the middle of a run."""
        if self.device != "cpu":
            outcome = child("too_large", self.models[self.names[0]], self.device)
            self.found["too large a batch"] = outcome and outcome[0]
            print(f"a batch of 512 with 256 MB left: {self.found['too large a batch']}")
        files = str(self.pictures["0.2 MP"])
        outcome = child("device_lost", self.models[self.names[0]], files, self.device)
        self.found["device lost"] = outcome and outcome[0]
        print(f"the device fails in the middle of a run: {self.found['device lost']}")


# By value: a run that is cut off still tells the most.
STEPS: dict[str, Callable[[Measurement], None]] = {
    step.__name__: step
    for step in (
        Measurement.encoders,
        Measurement.ours,
        Measurement.decoders,
        Measurement.failures,
        Measurement.peers,
        Measurement.pairs,
        Measurement.towers,
    )
}


def device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device != "cpu" else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--steps", nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--quick", action="store_true", help="a hundredth of the work")
    parser.add_argument("--folder", type=Path, help="for models and files; kept if given")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), help="where figures go")
    parser.add_argument("--call", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.call:
        function, *arguments = json.loads(options.call)
        print(json.dumps(CALLS[function](*arguments)))
        return
    import torch

    cores = len(os.sched_getaffinity(0))
    print(f"{device_name(options.device)}; torch {torch.__version__}; {cores} cores")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        scale = 0.01 if options.quick else 1.0
        measurement = Measurement(folder, options.device, options.models, scale, options.json)
        measurement.run(options.steps)
        print(f"\n{time.monotonic() - measurement.began:.0f} s in all; figures: {options.json}")


if __name__ == "__main__":
    main()
