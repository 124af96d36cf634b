"""How fast are image towers alone on one core, in float32 and eight bits, next to other engines?

    python benchmarks/towers.py [--shapes B/32] [--ways "int8"] [--rounds 3]

Weights are random, of the real shapes: the speed is the same, the cosines (to transformers' own
module) are not those of real checkpoints. Each way computes in this process, one thread, and the
best of the rounds counts, in processor time. ONNX Runtime gets its dynamic quantisation (weights by
output channel, every activation rounded), and OpenVINO, where it is installed, the same graph.
"""

import argparse
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from embedding import DIMS, SHAPES
from gpu import SO400M

from retrieval_pipeline.encoders.fused_vision import FusedTower, Linear, fused_tower
from retrieval_pipeline.encoders.hardware import measured_peak
from retrieval_pipeline.encoders.int8 import Int8Linear

SIGLIP = {
    "SigLIP 2 B/16": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 16,
    },
    "so400m/14@384": SO400M,
}
# Pictures of a batch: some 800 tokens, as the pipeline encodes them on a processor.
BATCH = {"B/32": 16, "SigLIP 2 B/16": 4, "L/14@336": 1, "so400m/14@384": 1}

Tower = Callable[[torch.Tensor], Any]


class Features(torch.nn.Module):
    """What transformers computes for pictures, with one tensor in and one out."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> Any:
        return self.network.get_image_features(pixel_values=pixels).pooler_output


def make_network(shape: str) -> Any:
    torch.manual_seed(0)
    small = {"num_hidden_layers": 1, "vocab_size": 64, "num_attention_heads": 1}
    small |= {"intermediate_size": 64, "hidden_size": 64}
    if shape in SHAPES:
        config = transformers.CLIPConfig(
            vision_config=SHAPES[shape], text_config=small, projection_dim=DIMS[shape]
        )
        return transformers.CLIPModel(config).eval()
    vision = SIGLIP[shape]
    config = transformers.SiglipConfig(
        vision_config=vision, text_config=small | {"hidden_size": vision["hidden_size"]}
    )
    return transformers.SiglipModel(config).eval()


def onnx_file(network: Any, pixels: torch.Tensor, folder: Path) -> Path:
    file = folder / "tower.onnx"
    if not file.exists():
        torch.onnx.export(Features(network), (pixels,), file, dynamo=False, input_names=["pixels"])
    return file


def onnx_runtime(network: Any, pixels: torch.Tensor, folder: Path, quantised: bool) -> Tower:
    import onnxruntime
    from onnxruntime.quantization import quantize_dynamic

    file = onnx_file(network, pixels, folder)
    if quantised:
        eight = folder / "eight.onnx"
        quantize_dynamic(
            file, eight, per_channel=True, op_types_to_quantize=["MatMul", "Gemm"],
            use_external_data_format=True,
        )  # fmt: skip
        file = eight
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda some: session.run(None, {"pixels": some.numpy()})[0]


def openvino(network: Any, pixels: torch.Tensor, folder: Path) -> Tower:
    from openvino import Core

    core = Core()
    model = core.read_model(onnx_file(network, pixels, folder))
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    compiled = core.compile_model(model, "CPU", settings)
    return lambda some: compiled([some.numpy()])[0]


WAYS: dict[str, Callable[[Any, torch.Tensor, Path], Tower]] = {
    "transformers": lambda network, *_: Features(network),
    "float32": lambda network, *_: fused_tower(network) or FusedTower(network, Linear),
    "int8": lambda network, *_: FusedTower(network, Int8Linear),
    "ONNX Runtime, float32": lambda *given: onnx_runtime(*given, quantised=False),
    "ONNX Runtime, int8": lambda *given: onnx_runtime(*given, quantised=True),
    "OpenVINO, float32": openvino,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="+", default=list(BATCH), choices=list(BATCH))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    peaks = [measured_peak(dtype) / 1e9 for dtype in (torch.float32, torch.int8)]
    print(f"one core, a large product: float32 {peaks[0]:.0f} GFLOP/s, int8 {peaks[1]:.0f} GOP/s\n")
    print("| tower | way | ms/image | ratio to float32 | GOP/s | cosine, least |")
    print("|---|---|--:|--:|--:|--:|")
    for shape in options.shapes:
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            compare(shape, options.ways, options.rounds, Path(folder))
    print(f"\nload after: {os.getloadavg()[0]:.1f}")


def compare(shape: str, ways: list[str], rounds: int, folder: Path) -> None:
    network = make_network(shape)
    edge = network.config.vision_config.image_size
    pixels = torch.rand(BATCH[shape], 3, edge, edge) * 4 - 2
    exact = torch.nn.functional.normalize(Features(network)(pixels))
    operations = operations_of(network) * len(pixels)
    found: dict[str, float] = {}
    for way in ways:
        if way.startswith("OpenVINO") and not importlib.util.find_spec("openvino"):
            continue
        tower = WAYS[way](network, pixels, folder)
        rows = torch.as_tensor(np.asarray(tower(pixels)))
        cosine = (torch.nn.functional.normalize(rows) * exact).sum(dim=1).min().item()
        found[way] = min(processor_seconds(tower, pixels) for _ in range(rounds))
        ratio = f"{found['float32'] / found[way]:.2f}" if "float32" in found else ""
        print(
            f"| {shape} | {way} | {1e3 * found[way] / len(pixels):.0f} | {ratio} | "
            f"{operations / found[way] / 1e9:.0f} | {cosine:.4f} |",
            flush=True,
        )


def processor_seconds(tower: Tower, pixels: torch.Tensor) -> float:
    began = time.process_time()
    tower(pixels)
    return time.process_time() - began


def operations_of(network: Any) -> float:
    """Multiplications and additions of the linear layers and of attention, for one picture."""
    vision = network.config.vision_config
    width, inner, layers = (
        vision.hidden_size,
        vision.intermediate_size,
        vision.num_hidden_layers,
    )
    tokens = (vision.image_size // vision.patch_size) ** 2 + 1
    return 2.0 * layers * tokens * (4 * width**2 + 2 * width * inner + 2 * tokens * width)


if __name__ == "__main__":
    main()
