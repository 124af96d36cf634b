"""The image towers of CLIP and SigLIP, rearranged to run faster on processors and NVIDIA GPUs.

Vision Transformer: Dosovitskiy et al., 2020, arXiv:2010.11929. Compared with transformers' own
modules: queries, keys and values are one matrix product; an activation is one pass over memory; of
the last layer only the tokens that are read are computed. On a processor, weights are packed for
oneDNN, which also computes activations and residual sums inside the product, and attention is
computed image by image, so that its scores fit into the cache.
"""

import platform
import time
from functools import cache
from typing import TYPE_CHECKING, Any

from retrieval_pipeline.encoders.int8 import Int8Linear

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# The model types whose image tower is CLIP's or SigLIP's.
FUSED = {"chinese_clip", "clip", "siglip"}

# By the configuration's name of an activation: oneDNN's name, its algorithm, and the factor by
# which the input is multiplied and the output divided: quick_gelu(x) = x sigmoid(1.702 x) =
# swish(1.702 x) / 1.702.
ACTIVATIONS = {
    "gelu": ("gelu", "none", 1.0),
    "gelu_pytorch_tanh": ("gelu", "tanh", 1.0),
    "quick_gelu": ("swish", "none", 1.702),
}

# Shape of the products by which the faster way is found, and how often each is timed.
TIMED_SHAPE = (800, 768, 768)
TIMED_TIMES = 5

# Least cosine between the vectors of the two arrangements. Rounding leaves it above this value, an
# error in the arrangement does not.
LEAST_COSINE = 0.999
# The same in eight bits. How faithful these are is judged on pictures (`ingest.precision_check`).
LEAST_INT8_COSINE = 0.9


def fused_tower(network: Any, *, int8: bool = False) -> "FusedTower | None":
    """Rearrange the image tower of a transformers model; None where that is not possible.

    With `int8`, the linear layers of its blocks compute in eight bits.

    The attributes read here are not a public interface of torch and transformers, so the result is
    compared with the model itself on an image of noise, and dropped if they disagree.
    """
    import torch

    config = network.config
    if config.model_type not in FUSED or config.vision_config.hidden_act not in ACTIVATIONS:
        return None
    edge = config.vision_config.image_size
    noise = torch.randn(1, 3, edge, edge, generator=torch.Generator().manual_seed(0))
    noise = noise.to(network.device, network.dtype)
    with torch.inference_mode():
        try:
            tower = FusedTower(network, Int8Linear if int8 else Linear)
            found = tower(noise)
        except (AttributeError, RuntimeError):
            return None
        expected = network.get_image_features(pixel_values=noise).pooler_output
        cosine = torch.cosine_similarity(found.float(), expected.float()).item()
    # A cosine that is NaN passes: weights that are not finite are reported with the first vectors.
    return None if cosine < (LEAST_INT8_COSINE if int8 else LEAST_COSINE) else tower


class FusedTower:
    """The image tower of a transformers model of a `FUSED` type; its weights are copies.

    Attributes:
        tokens: Number of tokens of one image.
        operations: Additions and multiplications in the matrix products for one image.
        int8: Whether it computes in eight bits.
    """

    def __init__(self, network: Any, linear: "type[Linear] | type[Int8Linear]") -> None:
        self.int8 = linear is Int8Linear
        vision, config = network.vision_model, network.config.vision_config
        embeddings = vision.embeddings
        self._edge: int = config.patch_size
        patch = embeddings.patch_embedding
        self._patch = Linear(patch.weight.flatten(1), patch.bias)
        self._positions = embeddings.position_embedding.weight
        self._class = getattr(embeddings, "class_embedding", None)
        self._first_norm = getattr(vision, "pre_layrnorm", None)
        self._layers = [
            _Layer(layer, config.num_attention_heads, config.hidden_act, linear)
            for layer in vision.encoder.layers
        ]
        self._last_norm = vision.post_layernorm
        # CLIP reads its class token; SigLIP pools all tokens with a head of its own.
        self._head = None if self._class is not None else vision.head
        projection = getattr(network, "visual_projection", None)
        self._projection = None if projection is None else Linear(projection.weight, None)
        self.tokens = len(self._positions)
        weights = sum(layer.weights for layer in self._layers)
        scores = 2 * self.tokens * config.hidden_size * len(self._layers)
        self.operations = 2 * self.tokens * (weights + scores)

    def __call__(self, pixels: "Tensor") -> "Tensor":
        """Return (n, dim) features of normalised pixels (n, 3, height, width)."""
        import torch

        n, channels, height, width = pixels.shape
        edge = self._edge
        rows, columns = height // edge, width // edge
        # A convolution whose patches do not overlap is one matrix product; it leaves out what fills
        # no patch, such as 6 of the 384 pixels of SigLIP 2 So400m/14.
        pixels = pixels[:, :, : rows * edge, : columns * edge]
        patches = pixels.view(n, channels, rows, edge, columns, edge).permute(0, 2, 4, 1, 3, 5)
        states = self._patch(patches.reshape(n, rows * columns, -1))
        if self._class is not None:
            states = torch.cat([self._class.expand(n, 1, -1), states], dim=1)
        states = states + self._positions
        if self._first_norm is not None:
            states = self._first_norm(states)
        for layer in self._layers[:-1]:
            states = layer(states)
        if self._head is not None:
            return self._projected(self._head(self._last_norm(self._layers[-1](states))))
        states = self._layers[-1](states, reads=1)
        return self._projected(self._last_norm(states[:, 0]))

    def _projected(self, pooled: "Tensor") -> "Tensor":
        return pooled if self._projection is None else self._projection(pooled)


class _Layer:
    def __init__(
        self,
        layer: Any,
        heads: int,
        activation: str,
        linear: "type[Linear] | type[Int8Linear]",
    ) -> None:
        import torch

        attention, mlp = layer.self_attn, layer.mlp
        roles = (attention.q_proj, attention.k_proj, attention.v_proj)
        operation, algorithm, factor = ACTIVATIONS[activation]
        self._heads = heads
        self._norm1, self._norm2 = layer.layer_norm1, layer.layer_norm2
        self._qkv = linear(
            torch.cat([role.weight for role in roles]), torch.cat([role.bias for role in roles])
        )
        self._out = linear(attention.out_proj.weight, attention.out_proj.bias)
        self._widen = linear(mlp.fc1.weight * factor, mlp.fc1.bias * factor, operation, algorithm)
        self._narrow = linear(mlp.fc2.weight / factor, mlp.fc2.bias)
        self.weights = 4 * attention.q_proj.weight.numel() + 2 * mlp.fc1.weight.numel()

    def __call__(self, states: "Tensor", reads: int | None = None) -> "Tensor":
        """Return the states (n, length, width) after this layer, of the first `reads` tokens."""
        n, length, width = states.shape
        qkv = self._qkv(self._norm1(states)).view(n, length, 3, self._heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        query, states = query[:, :, :reads], states[:, :reads]
        attention = attention_by_image if states.device.type == "cpu" else attention_on_gpu
        mixed = attention(query, key, value)
        states = self._out(mixed.reshape(n, -1, width), residual=states)
        return self._narrow(self._widen(self._norm2(states)), residual=states)


def attention_by_image(query: "Tensor", key: "Tensor", value: "Tensor") -> "Tensor":
    """Map (n, heads, tokens, width) to (n, tokens, heads, width), an image after the other."""
    import torch

    query = query * query.shape[-1] ** -0.5
    return torch.stack(
        [
            torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(dim=-1), v).transpose(0, 1)
            for q, k, v in zip(query, key, value, strict=True)
        ]
    )


def attention_on_gpu(query: "Tensor", key: "Tensor", value: "Tensor") -> "Tensor":
    """Do the same with PyTorch's kernels, which keep the scores on the chip (arXiv:2307.08691)."""
    from torch.nn import functional

    return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2)


class Linear:
    """A linear layer, weights (out, in), fused with an activation or a residual sum."""

    def __init__(
        self,
        weight: "Tensor",
        bias: "Tensor | None",
        operation: str = "none",
        algorithm: str = "none",
    ) -> None:
        import torch

        self._weight = weight.detach().contiguous()
        self._bias = None if bias is None else bias.detach()
        self._operation, self._algorithm = operation, algorithm
        self._packed = (
            weight.device.type == "cpu"
            and packs(weight.dtype)
            and (weight.dtype != torch.float32 or packed_is_faster())
        )
        if self._packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight)

    def __call__(self, states: "Tensor", residual: "Tensor | None" = None) -> "Tensor":
        """Map states (..., in) to (..., out)."""
        import torch
        from torch.nn import functional

        if self._packed and residual is not None:
            summed: Tensor = torch.ops.mkldnn._linear_pointwise.binary(
                states, residual, self._weight, self._bias, "add"
            )
            return summed
        if self._packed:
            product: Tensor = torch.ops.mkldnn._linear_pointwise(
                states, self._weight, self._bias, self._operation, [], self._algorithm
            )
            return product
        product = functional.linear(states, self._weight, self._bias)
        if residual is not None:
            return product.add_(residual)
        if self._operation == "swish":
            return functional.silu(product, inplace=True)
        if self._operation == "gelu":
            return functional.gelu(product, approximate=self._algorithm)
        return product


def packs(dtype: "torch.dtype") -> bool:
    """Tell whether to use oneDNN's packed products: torch has them, and the processor is x86.

    On other processors they have not been measured.

    On a processor without bfloat16 instructions oneDNN refuses packed products of that type.
    """
    import torch

    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and platform.machine().lower() in {"x86_64", "amd64"}
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


@cache
def packed_is_faster() -> bool:
    """Time oneDNN's packed float32 product against PyTorch's own, on one core; some 100 ms.

    Of an AMD EPYC of the fifth generation (Zen 5) oneDNN is 2.3 times as fast, of the third
    (Zen 3) PyTorch's MKL is 1.1 to 1.4 times as fast.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        packed, plain = _seconds_of_products()
    finally:
        torch.set_num_threads(threads)
    return packed <= plain


def _seconds_of_products() -> tuple[float, float]:
    """Return the least processor time of a packed and of a plain product, taken in turns.

    The wall time of a few products in a row said the opposite in a third of all cases while other
    processes wanted the cores.
    """
    import torch

    rows, width, columns = TIMED_SHAPE
    states, weight = torch.ones(rows, width), torch.ones(columns, width)
    packed_weight = torch.ops.mkldnn._reorder_linear_weight(weight)
    packed, plain = [], []
    with torch.inference_mode():
        for _ in range(TIMED_TIMES):
            began = time.thread_time()
            torch.ops.mkldnn._linear_pointwise(states, packed_weight, None, "none", [], "")
            between = time.thread_time()
            torch.nn.functional.linear(states, weight)
            packed.append(between - began)
            plain.append(time.thread_time() - between)
    return min(packed), min(plain)
