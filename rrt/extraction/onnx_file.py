"""Opening an ONNX file of unknown origin: nothing but plain operators, nothing read from outside its folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnxruntime
from google.protobuf.message import DecodeError

from rrt.errors import InputError, first_line
from rrt.formats.protobuf import message_classes

# Those that ONNX defines, and ONNX Runtime's own, which exporters and optimisers write.
DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
# The fields that are looked at (onnx.proto of the ONNX project); all others are passed over.
_MESSAGES = {
    "Entry": {"key": (1, "string"), "value": (2, "string")},
    "Tensor": {"name": (8, "string"), "external_data": (13, ["Entry"])},
    "Sparse": {"values": (1, "Tensor"), "indices": (2, "Tensor")},
    "Attribute": {"t": (5, "Tensor"), "g": (6, "Graph"), "tensors": (10, ["Tensor"]), "graphs": (11, ["Graph"])},
    "Node": {"op_type": (4, "string"), "attribute": (5, ["Attribute"]), "domain": (7, "string")},
    "Graph": {"node": (1, ["Node"]), "initializer": (5, ["Tensor"]), "sparse_initializer": (15, ["Sparse"])},
    "Function": {"name": (1, "string"), "node": (7, ["Node"]), "domain": (10, "string")},
    "Model": {"graph": (7, "Graph"), "metadata_props": (14, ["Entry"]), "functions": (25, ["Function"])},
}
_MODEL = message_classes("rrt_onnx", _MESSAGES)["Model"]


def open_onnx(path: str | Path, threads: int, remedy: str = "export the model again") -> onnxruntime.InferenceSession:
    """A session on the processor with that many threads.

    Raises InputError naming file and remedy when the file is not there, damaged, has operators that ONNX and ONNX
    Runtime do not define, or keeps weights outside its folder.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such model; {remedy}")
    _refuse_what_is_not_plain(path, remedy)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # Threads that spin while they wait take the cores from the other workers and from decoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime raises kinds of its own that share no base
        raise InputError(f"{path}: ONNX Runtime cannot open it ({first_line(error)}); {remedy}") from None


def _refuse_what_is_not_plain(path, remedy):
    model: Any = _MODEL()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError:
        raise InputError(f"{path}: damaged or no ONNX file; {remedy}") from None
    if not model.HasField("graph"):
        raise InputError(f"{path}: no ONNX model (it holds no graph); {remedy}")
    own = {(function.domain, function.name) for function in model.functions}
    nodes = [node for function in model.functions for node in function.node]
    graphs = [model.graph]
    folder = path.parent.resolve()
    while nodes or graphs:
        tensors = []
        if graphs:
            graph = graphs.pop()
            nodes += graph.node
            tensors += graph.initializer
            tensors += [part for sparse in graph.sparse_initializer for part in (sparse.values, sparse.indices)]
        else:
            node = nodes.pop()
            if node.domain not in DOMAINS and (node.domain, node.op_type) not in own:
                raise InputError(f"{path}: it has the custom operator {node.domain}:{node.op_type}; {remedy} without")
            for attribute in node.attribute:
                graphs += [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
                tensors += [*attribute.tensors, attribute.t]
        for location in _locations(tensors):
            if not (folder / location).resolve().is_relative_to(folder):
                raise InputError(f"{path}: its weights are in {location!r}, outside its folder; {remedy} into one file")


def _locations(tensors) -> Iterator[str]:
    for tensor in tensors:
        yield from (entry.value for entry in tensor.external_data if entry.key == "location")
