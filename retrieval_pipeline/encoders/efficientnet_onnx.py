"""EfficientNet-Lite for a processor: the network of the package as a graph for ONNX Runtime.

ONNX Runtime computes these small convolutions in about a third of PyTorch's time. The scores of the
classes equal PyTorch's to the precision of float32. The graph is written here instead of exported:
that takes no tracing, and the batch normalisation is folded into the weights.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx
    import onnxruntime
    import torch

# Of the operators used here; any ONNX Runtime of the last years has it.
OPERATOR_SET = 13
# The version of the file format that came with this set.
FORMAT_VERSION = 8

INPUT = "pixels"
OUTPUT = "scores"

Array = npt.NDArray[np.float32]


def make_session(network: "torch.nn.Module") -> "onnxruntime.InferenceSession":
    """Return a session that maps "pixels", float32 (n, 3, edge, edge), to "scores" (n, classes).

    It computes on the calling thread alone and may be called from several threads.

    Args:
        network: An EfficientNet-Lite of `efficientnet_lite_pytorch` in evaluation mode.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    return onnxruntime.InferenceSession(
        make_graph(network).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def make_graph(network: Any) -> "onnx.ModelProto":
    """Return the network as an ONNX model."""
    from onnx import TensorProto, helper

    graph = _Graph()
    edge = network.input_image_size
    states = graph.clipped(graph.convolved(INPUT, network._conv_stem, network._bn0))
    for block in network._blocks:
        states = _block(graph, states, block)
    states = graph.clipped(graph.convolved(states, network._conv_head, network._bn1))
    pooled = graph.node("Flatten", [graph.node("GlobalAveragePool", [states])])
    weights = [graph.constant(_array(each)) for each in (network._fc.weight, network._fc.bias)]
    graph.node("Gemm", [pooled, *weights], OUTPUT, transB=1)
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "efficientnet-lite",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", 3, edge, edge])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", None])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPERATOR_SET)],
        ir_version=FORMAT_VERSION,
    )


def _block(graph: "_Graph", before: str, block: Any) -> str:
    """Add one inverted residual block (Sandler et al., 2018, arXiv:1801.04381)."""
    states = before
    arguments = block._block_args
    if arguments.expand_ratio != 1:
        states = graph.clipped(graph.convolved(states, block._expand_conv, block._bn0))
    states = graph.clipped(graph.convolved(states, block._depthwise_conv, block._bn1))
    states = graph.convolved(states, block._project_conv, block._bn2)
    keeps_shape = arguments.input_filters == arguments.output_filters
    if block.id_skip and arguments.stride in (1, [1]) and keeps_shape:
        states = graph.node("Add", [states, before])
    return states


class _Graph:
    """Nodes and constants of a growing ONNX graph; every value has a name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._bounds = [self.constant(np.array(bound, np.float32)) for bound in (0, 6)]

    def constant(self, values: Array) -> str:
        """Add a constant, and return its name."""
        from onnx import numpy_helper

        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def node(
        self, operator: str, inputs: Sequence[str], output: str = "", **attributes: Any
    ) -> str:
        """Add a node, and return the name of its output."""
        from onnx import helper

        output = output or f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def clipped(self, states: str) -> str:
        """Add the activation of the Lite models, ReLU6."""
        return self.node("Clip", [states, *self._bounds])

    def convolved(self, states: str, convolution: Any, norm: Any) -> str:
        """Add a convolution and the batch normalisation after it, folded into its weights."""
        scale = _array(norm.weight) / np.sqrt(_array(norm.running_var) + np.float32(norm.eps))
        weight = _array(convolution.weight) * scale[:, None, None, None]
        bias = _array(norm.bias) - _array(norm.running_mean) * scale
        # ZeroPad2d has (left, right, top, bottom), ONNX (top, left, bottom, right).
        left, right, top, bottom = getattr(convolution.static_padding, "padding", (0, 0, 0, 0))
        return self.node(
            "Conv",
            [states, self.constant(weight), self.constant(bias)],
            kernel_shape=list(convolution.kernel_size),
            strides=list(convolution.stride),
            group=convolution.groups,
            pads=[top, left, bottom, right],
        )


def _array(tensor: "torch.Tensor") -> Array:
    array: Array = tensor.detach().numpy()
    return array
