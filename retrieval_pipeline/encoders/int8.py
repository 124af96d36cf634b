"""Linear layers in eight bits, for the image towers of `fused_vision`.

Weights have one scale for each output channel, activations one for each token. The few channels
with the largest activations are multiplied in float32: rounding to eight bits spreads over the
range of a token, and in these models some channels are hundreds of times as large as the others
("Massive Activations", Sun et al., 2024, arXiv:2402.17762). The split into two products is that of
LLM.int8 (Dettmers et al., 2022, arXiv:2208.07339). There the channels are those beyond a threshold;
here their number is fixed, and each image chooses its own, so that nothing has to be calibrated
and no vector depends on the other images of its batch.
"""

import platform
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Greatest magnitude of an eight-bit weight or activation, and that of a weight where a processor
# without VNNI adds pairs of products in 16 bits, which two products of full size would overflow.
FULL, HALF = 127, 63

# One input channel in so many is multiplied in float32, and at least so many are.
OUTLIER_SHARE, LEAST_OUTLIERS = 64, 4

# A token whose activations are all zero has no scale.
TINY = 1e-30


class Int8Product:
    """The product of int8 rows with int8 weights, by oneDNN."""

    def __init__(self, weight: "Tensor", scale: "Tensor") -> None:
        """Pack the weights, int8 (out, in), with a float32 scale for each output channel."""
        import torch

        self._packed = torch.ops.onednn.qlinear_prepack(weight.contiguous(), None)
        self._scale, self._zero = scale, torch.zeros(len(scale), dtype=torch.int64)

    def __call__(self, rows: "Tensor") -> "Tensor":
        """Map int8 (n, in) to float32 (n, out)."""
        import torch

        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            *(rows, 1.0, 0, self._packed, self._scale, self._zero, None),
            *(1.0, 0, torch.float32, "none", [], ""),
        )
        return product


class Int8Linear:
    """`fused_vision.Linear` in eight bits."""

    def __init__(
        self,
        weight: "Tensor",
        bias: "Tensor | None",
        operation: str = "none",
        algorithm: str = "none",
        *,
        outliers: int | None = None,
    ) -> None:
        """Quantise the weights.

        Args:
            weight: (out, in).
            bias: (out,), if there is one.
            operation: Name of the activation, as for `fused_vision.Linear`.
            algorithm: Variant of the activation.
            outliers: How many input channels are multiplied in float32; None is what their number
                makes sensible.

        Raises:
            RuntimeError: This machine has no exact products in eight bits.
        """
        import torch

        levels = weight_levels()
        if levels is None:
            raise RuntimeError("there are no exact products in eight bits here")
        weight = weight.detach().float()
        scale = weight.abs().amax(dim=1).clamp_min(TINY) / levels
        quantised = (weight / scale[:, None]).round().to(torch.int8)
        self._product = Int8Product(quantised, scale)
        # Not from `quantised`: weights of large channels are small, and many would be zero there.
        self._columns = weight.t().to(torch.bfloat16).contiguous()
        self._bias = torch.zeros(len(weight)) if bias is None else bias.detach().float()
        self._operation, self._algorithm = operation, algorithm
        inputs = weight.shape[1]
        if outliers is None:
            outliers = min(max(inputs // OUTLIER_SHARE, LEAST_OUTLIERS), inputs)
        self._outliers = outliers

    def __call__(self, states: "Tensor", residual: "Tensor | None" = None) -> "Tensor":
        """Map states (images, tokens, in) to (images, tokens, out), float32."""
        import torch

        magnitudes = states.abs()
        outliers = magnitudes.amax(dim=1).topk(self._outliers).indices
        where = outliers[:, None].expand(-1, states.shape[1], -1)
        scale = magnitudes.scatter_(2, where, 0.0).amax(dim=2, keepdim=True)
        scale = scale.clamp_min_(TINY) / FULL
        quantised = (states * scale.reciprocal()).scatter_(2, where, 0.0).round_()
        product = self._product(quantised.to(torch.int8).flatten(0, 1))
        product = torch.addcmul(self._bias, product.view(*states.shape[:2], -1), scale)
        product.baddbmm_(states.gather(2, where), self._columns[outliers].float())
        return product.add_(residual) if residual is not None else self._activated(product)

    def _activated(self, product: "Tensor") -> "Tensor":
        from torch.nn import functional

        if self._operation == "swish":
            return functional.silu(product, inplace=True)
        if self._operation == "gelu":
            return functional.gelu(product, approximate=self._algorithm)
        return product


def has_full_products() -> bool:
    """Tell whether the processor multiplies whole eight bits: on x86 one with VNNI does."""
    return weight_levels() == FULL


@cache
def weight_levels() -> int | None:
    """Return the greatest magnitude of a weight with which products are exact here.

    Returns:
        FULL or HALF; None if there are no exact products. oneDNN's, which PyTorch does not offer as
        part of its public interface, were measured on x86 processors only.
    """
    import torch

    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return None
    for levels in (FULL, HALF):
        # Both the greatest sums and alternating signs.
        weight = torch.full((32, 256), levels, dtype=torch.int8)
        weight[::2, ::2] *= -1
        rows = torch.full((8, 256), FULL, dtype=torch.int8)
        rows[::2, ::2] *= -1
        try:
            found = Int8Product(weight, torch.ones(len(weight)))(rows)
        except (AttributeError, RuntimeError):
            return None
        if torch.equal(found, rows.float() @ weight.float().t()):
            return levels
    return None
