"""EfficientNet-Lite0 as an ONNX graph of plain operators, with whatever is put on top of its maps.

Written with onnx.helper and not exported from torch: ONNX's own SAME_UPPER padding is TensorFlow's at every size, so
that the graph needs no arithmetic on shapes.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rrt.extraction.attention import Attention
from rrt.extraction.lite0.learning import Learned, Projection
from rrt.extraction.lite0.network import LAST_OF_STRIDE_16, MEAN, STD, blocks

OPSET = 17
PIXELS = "pixels"  # the name of the input
GEM = 3.0
GLOBAL_PARTS = ("global", "global.cells")  # names of the projections of add_pooled_maps


class Graph:
    """An ONNX graph under construction; every method takes and returns names of tensors.

    half: weights are kept in half precision and turned into float32 when the file is loaded.
    """

    def __init__(self, half: bool = False):
        self.half = half
        self.nodes, self.initializers, self._kept = [], [], {}

    def add(self, operator: str, *inputs: str, **attributes) -> str:
        """One operator with one output."""
        output = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, values, dtype: type = np.float32) -> str:
        """A constant that stays as it is; equal ones are kept once."""
        array = np.asarray(values, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._kept:
            self._kept[key] = self._keep(f"constant_{len(self._kept)}", array)
        return self._kept[key]

    def weight(self, name: str, array: np.ndarray) -> str:
        """A learned array, in half precision where the graph is to be small."""
        array = np.asarray(array, np.float32)
        if not self.half:
            return self._keep(name, array)
        return self.add("Cast", self._keep(name, array.astype(np.float16)), to=TensorProto.FLOAT)

    def _keep(self, name, array):
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def relu6(self, x: str) -> str:
        """Values cut to 0..6."""
        return self.add("Clip", x, self.constant(0), self.constant(6))

    def convolution(
        self, x: str, weights: Mapping[str, np.ndarray], name: str, stride: int = 1, groups: int = 1
    ) -> str:
        """A convolution padded as TensorFlow's SAME, with the arrays `name.weight` and `name.bias`."""
        kernel = weights[f"{name}.weight"]
        arrays = [self.weight(f"{name}.{part}", weights[f"{name}.{part}"]) for part in ("weight", "bias")]
        return self.add(
            "Conv", x, *arrays, kernel_shape=kernel.shape[2:], strides=[stride] * 2, group=groups, auto_pad="SAME_UPPER"
        )

    def without_border(self, x: str) -> str:
        """A map [B, channels, h, w] without its outermost cells."""
        starts, ends, axes = (self.constant(values, np.int64) for values in ([1, 1], [-1, -1], [2, 3]))
        return self.add("Slice", x, starts, ends, axes)

    def unit(self, x: str, axis: int) -> str:
        """Unit length along an axis; zeros stay."""
        length = self.add("ReduceL2", x, axes=[axis], keepdims=1)
        return self.add("Div", x, self.add("Max", length, self.constant(1e-12)))


def add_network(graph: Graph, weights: Mapping[str, np.ndarray]) -> tuple[str, str, str]:
    """The network on the input, uint8 [B, H, W, 3] -> maps [B, C, h, w]: of the last block of stride 16 (112), the
    expansion of the next block after ReLU6 (672), and the head of stride 32 after ReLU6 (1,280)."""
    x = graph.add("Transpose", graph.add("Cast", PIXELS, to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    x = graph.add("Mul", graph.add("Sub", x, graph.constant(MEAN)), graph.constant(1 / STD))
    x = graph.relu6(graph.convolution(x, weights, "stem", 2))
    stride16 = expanded = x
    for number, block in enumerate(blocks()):
        name, inside = f"blocks.{number}", x
        if block.expanded != block.inputs:
            inside = graph.relu6(graph.convolution(x, weights, f"{name}.expand"))
        if number == LAST_OF_STRIDE_16:
            stride16, expanded = x, inside
        inside = graph.convolution(inside, weights, f"{name}.depthwise", block.stride, block.expanded)
        inside = graph.convolution(graph.relu6(inside), weights, f"{name}.project")
        x = graph.add("Add", inside, x) if block.residual else inside
    return stride16, expanded, graph.relu6(graph.convolution(x, weights, "head"))


def add_pooled(graph: Graph, x: str, importance: str | None = None) -> str:
    """GeM (Radenovic, Tolias and Chum, PAMI 2018, section 3.2) of a map [B, C, h, w] without its outermost cells, which
    mostly see padding -> unit length [B, C]. importance: of these cells [B, 1, h - 2, w - 2]; they count in the mean by
    its exponential."""
    powers = graph.add("Pow", graph.add("Max", graph.without_border(x), graph.constant(1e-6)), graph.constant(GEM))
    if importance is None:
        mean = graph.add("ReduceMean", powers, axes=[2, 3], keepdims=0)
    else:
        most = graph.add("ReduceMax", importance, axes=[2, 3], keepdims=1)
        share = graph.add("Exp", graph.add("Sub", importance, most))
        both = graph.constant([2, 3], np.int64)
        weighed = graph.add("Mul", powers, graph.add("Div", share, graph.add("ReduceSum", share, both, keepdims=1)))
        mean = graph.add("ReduceSum", weighed, both, keepdims=0)
    return graph.unit(graph.add("Pow", mean, graph.constant(1 / GEM)), 1)


def add_pooled_maps(graph: Graph, head: str, expanded: str, importance: str | None = None) -> list[str]:
    """What the global descriptor is made of: the pooled head [B, 1280]; with an importance of the cells of stride 16
    without their outermost, [B, h, w], both maps pooled by it, [B, 1280] and [B, 672]. A cell of the head, which lies
    on every second of them, has the mean of the nine around it."""
    if importance is None:
        return [add_pooled(graph, head)]
    one_channel = graph.add("Unsqueeze", importance, graph.constant([1], np.int64))
    around = graph.add("AveragePool", one_channel, kernel_shape=[3, 3], strides=[2, 2])
    return [add_pooled(graph, head, around), add_pooled(graph, expanded, one_channel)]


def add_cells(graph: Graph, expanded: str) -> str:
    """The cells of a map without its outermost ones -> [B, h, w, channels]."""
    return graph.add("Transpose", graph.without_border(expanded), perm=[0, 2, 3, 1])


def add_local(graph: Graph, expanded: str, projection: Projection) -> tuple[str, str]:
    """Local descriptors [B, h, w, Dl] of unit length, and the lengths [B, h, w] of the cells before that."""
    cells = add_cells(graph, expanded)
    local = graph.unit(_projected(graph, graph.unit(cells, 3), projection, "local"), 3)
    return local, graph.add("ReduceL2", cells, axes=[3], keepdims=0)


def add_importance(graph: Graph, local: str, length: str, attention: Attention) -> str:
    """`Attention.logit` of local descriptors [B, h, w, Dl] and the lengths [B, h, w] of their cells, without the bias,
    which is the same for all."""
    direction = graph.add("MatMul", local, graph.weight("attention.weight", attention.weight[:, None]))
    direction = graph.add("Squeeze", direction, graph.constant([3], np.int64))
    log_length = graph.add("Log", graph.add("Max", length, graph.constant(1e-6)))
    return graph.add("Add", direction, graph.add("Mul", log_length, graph.constant(attention.of_length)))


def add_heads(graph: Graph, head: str, expanded: str, learned: Learned) -> dict[str, str]:
    """What is on top of the maps: `global` [B, Dg], whose mean over scales counts; `local` [B, h, w, Dl], unit length;
    `attention` [B, h, w], the length of the cell before that."""
    local, length = add_local(graph, expanded, learned.local)
    importance = None if learned.attention is None else add_importance(graph, local, length, learned.attention)
    pooled = add_pooled_maps(graph, head, expanded, importance)
    parts = [_projected(graph, *part) for part in zip(pooled, learned.global_, GLOBAL_PARTS)]
    joined = parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)
    return {"global": joined, "local": local, "attention": length}


def _projected(graph, x, projection, name):
    centred = graph.add("Sub", x, graph.weight(f"{name}.mean", projection.mean))
    return graph.add("MatMul", centred, graph.weight(f"{name}.axes", projection.axes))


def finished_model(graph: Graph, outputs: Mapping[str, tuple[str, list]], metadata: Mapping[str, str]):
    """The checked ONNX model. outputs: {name: (tensor, shape, with texts for what is free)}."""
    nodes = [helper.make_node("Identity", [tensor], [name]) for name, (tensor, _) in outputs.items()]
    made = helper.make_graph(
        graph.nodes + nodes,
        "lite0",
        [helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, ["batch", "height", "width", 3])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, (_, shape) in outputs.items()],
        graph.initializers,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="rrt")
    model.ir_version = 8  # that of the opset: any ONNX Runtime since 2022 reads it
    helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model, full_check=True)
    return model
