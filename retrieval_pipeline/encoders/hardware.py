"""Devices, number formats and threads for encoding, and how pixels reach the device."""

import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from retrieval_pipeline.concurrency import available_cores
from retrieval_pipeline.errors import EncoderError
from retrieval_pipeline.images.transform import ImageTransform, Pixels

if TYPE_CHECKING:
    import torch

# OpenMP's threads would spin while they wait for work, and take the cores from the decode workers.
# The variable is read when torch is loaded, which only encoders do.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# "auto" is the fastest format that leaves the vectors nearly unchanged; "reference" is float32,
# with every pixel decoded; "int8" computes image towers in eight bits where a processor can.
Precision = Literal["auto", "reference", "int8"]

# Threads that feed one GPU: while one waits for its vectors, the other copies its batch.
THREADS_PER_GPU = 2

# Words in torch's messages when a GPU, its driver or its libraries fail: there is no common type.
DEVICE_FAILURE = re.compile(r"\b(CUDA|HIP|cuDNN|CUBLAS|MPS)", re.IGNORECASE)

# Shape of the timed matrix product, similar to those in an image tower, and the repetitions.
PEAK_SHAPE = (800, 768, 3072)
PEAK_TIMES = 20


def pick_devices(device: str) -> "list[torch.device]":
    """Return the devices that encode images together: every GPU for "auto" and "cuda".

    Raises:
        EncoderError: There is no such device here.
    """
    import torch

    first = pick_device(device)
    if first.type != "cuda" or first.index is not None:
        return [first]
    return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]


def pick_device(device: str) -> "torch.device":
    """Return the device of that name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        EncoderError: There is no such device here.
    """
    import torch

    present = {
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }
    if device == "auto":
        return torch.device(next(kind for kind, count in present.items() if count))
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise EncoderError(
            f'device "{device}" does not exist: use "auto", "cpu", "cuda", "cuda:1" or "mps"'
        ) from error
    if (chosen.index or 0) >= present.get(chosen.type, 0):
        found = ", ".join(f"{kind} ({count})" for kind, count in present.items() if count)
        raise EncoderError(
            f'device "{device}" is not there: torch {torch.__version__} finds {found}; '
            f'use device = "auto", or install a torch made for it'
        )
    return chosen


def pick_dtype(device: "torch.device", precision: Precision) -> "torch.dtype":
    """Return the fastest number format on `device` that leaves the vectors nearly unchanged.

    bfloat16 has the range of float32, so no checkpoint overflows. A GPU without bfloat16 uses
    float16, where an overflow is noticed as a vector that is not finite. MPS uses float32: half
    precision has not been measured there. Vectors of one space may come from different formats:
    their cosine is above 0.999, a difference far smaller than that between two images.
    """
    import torch

    if precision != "reference" and device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    if precision != "reference" and device.type == "cpu" and _cpu_computes_in_bfloat16():
        return torch.bfloat16
    return torch.float32


def faithful_format(device: str) -> str | None:
    """Return the name of the format that `pick_dtype` takes for "auto", without importing torch.

    Args:
        device: As in the settings.

    Returns:
        None where only torch can tell: if there may be a GPU, if the environment limits what oneDNN
        uses, and on all but x86 processors under Linux.
    """
    on_cpu = device == "cpu" or (device == "auto" and not _may_have_gpu())
    if not on_cpu or not processor_flags() or "ONEDNN_MAX_CPU_ISA" in os.environ:
        return None
    return "bfloat16" if "avx512_bf16" in processor_flags() else "float32"


@cache
def processor_flags() -> frozenset[str]:
    """Return the names of what an x86 processor can do, as Linux lists them; elsewhere none."""
    try:
        found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return frozenset()
    return frozenset(found[1].split()) if found else frozenset()


def _cpu_computes_in_bfloat16() -> bool:
    """Tell whether the processor has bfloat16 instructions; emulating them is slower than float32.

    oneDNN says yes for any x86 processor with AVX-512, so the instructions are asked for, too.
    """
    import torch

    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    x86 = platform.machine().lower() in {"x86_64", "amd64"}
    return not x86 or bool(torch.cpu._is_avx512_bf16_supported())


def encode_threads_of(device: "torch.device") -> int:
    """Return the number of threads that together encode fastest on `device`."""
    return {"cpu": available_cores(), "cuda": THREADS_PER_GPU}.get(device.type, 1)


@contextmanager
def one_core_each(device: "torch.device") -> Iterator[Callable[[], None]]:
    """Yield a function that limits the calling thread to one core; on a GPU it does nothing.

    Each core then computes a batch of its own: it never waits for another core that a decode worker
    occupies. The threads must have ended when the context ends.
    """
    import torch

    if device.type != "cpu":
        yield lambda: None
        return
    threads = torch.get_num_threads()
    try:
        yield lambda: torch.set_num_threads(1)
    finally:
        # The setting belongs to each thread, but new threads start with the value set last.
        torch.set_num_threads(threads)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Tell whether memory of the GPU or of the machine ran out."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def is_device_failure(error: RuntimeError) -> bool:
    """Tell whether a GPU, its driver or its libraries failed, rather than the program."""
    return DEVICE_FAILURE.search(str(error)) is not None


def has_gpu() -> bool:
    """Tell whether "auto" takes a GPU; torch is imported only if the system shows signs of one."""
    return _may_have_gpu() and pick_device("auto").type != "cpu"


def _may_have_gpu() -> bool:
    signs = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")  # NVIDIA, AMD, Windows' Linux
    return platform.system() != "Linux" or any(map(os.path.exists, signs))


def measured_speed(device: "torch.device", dtype: "torch.dtype") -> float:
    """Measure the operations per second of all of a device in a large matrix product."""
    import torch

    if device.type == "cpu":
        return measured_peak(dtype) * encode_threads_of(device)
    edge = 4096
    matrix = torch.ones(edge, edge, device=device, dtype=dtype)

    def seconds() -> float:
        began = time.perf_counter()
        product = matrix
        for _ in range(PEAK_TIMES):
            product = product @ matrix
        product[0, 0].item()  # waits until the device has done it
        return time.perf_counter() - began

    seconds()  # starts its libraries
    return PEAK_TIMES * 2 * edge**3 / seconds()


def measured_peak(dtype: "torch.dtype") -> float:
    """Measure the operations per second of one core in a large matrix product, all cores busy."""
    import torch

    device = torch.device("cpu")
    threads = encode_threads_of(device)
    with one_core_each(device) as enter, ThreadPoolExecutor(threads, initializer=enter) as pool:
        return sum(pool.map(_product_speed, [dtype] * threads)) / threads


def _product_speed(dtype: "torch.dtype") -> float:
    import torch

    from retrieval_pipeline.encoders.fused_vision import Linear
    from retrieval_pipeline.encoders.int8 import Int8Product

    rows, width, columns = PEAK_SHAPE
    with torch.inference_mode():
        states, weight = (torch.ones(side, width, dtype=dtype) for side in (rows, columns))
        product: Callable[[torch.Tensor], torch.Tensor]
        if dtype == torch.int8:
            product = Int8Product(weight, torch.ones(columns))
        else:
            product = Linear(weight, None)
        product(states)
        began = time.thread_time()
        for _ in range(PEAK_TIMES):
            product(states)
        seconds = time.thread_time() - began
    return PEAK_TIMES * 2 * rows * width * columns / seconds


def to_tensor(
    pixels: Sequence[Pixels], transform: ImageTransform, device: "torch.device"
) -> "torch.Tensor":
    """Return float32 (n, 3, height, width) on `device`: pixel / 255, less mean, over std."""
    import torch

    # From pinned memory, the copy need not wait for the GPU's current work. PyTorch keeps that
    # memory for the next batch: fresh memory would cost more than copying into it.
    shape = (len(pixels), *pixels[0].shape)
    batch = torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    np.stack(pixels, out=batch.numpy())
    # Copy uint8: a quarter of the bytes of float32.
    batch = batch.to(device, non_blocking=True).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values)[:, None, None] for values in (transform.mean, transform.std))
    offset, factor = (each.to(device, non_blocking=True) for each in (-mean / std, 1 / (255 * std)))
    # (pixel / 255 - mean) / std, in two passes over memory and with one rounding less.
    return torch.addcmul(offset, batch.float(), factor)
