"""Graphs run in ONNX Runtime, and small ones with a linear layer in every form."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

FAN_IN, FAN_OUT = 12, 8


def run(model: onnx.ModelProto | Path, feeds: dict[str, np.ndarray], output: str) -> np.ndarray:
    """One output, with the graph as it is written: nothing is optimized."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    given = model if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    rows: np.ndarray = session.run([output], feeds)[0]
    return rows


def kinds(model: onnx.ModelProto) -> Counter[str]:
    """How many nodes there are of each operator."""
    return Counter(node.op_type for node in model.graph.node)


def _node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], name=f"layer/{kind}", **attributes)


def form(name: str) -> onnx.ModelProto:
    """A graph from x [rows, FAN_IN] to last_hidden_state [rows, FAN_OUT]."""
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(FAN_IN, FAN_OUT)).astype(np.float32)
    bias = rng.normal(size=FAN_OUT).astype(np.float32)
    tensors = {"w": weight, "wt": np.ascontiguousarray(weight.T), "b": bias}
    tensors |= {"b2": bias[None], "one": bias[:1]}
    end = "last_hidden_state"
    nodes = {
        "bias": [_node("MatMul", "x w", "y"), _node("Add", "y b", end)],
        "bias first": [_node("MatMul", "x w", "y"), _node("Add", "b y", end)],
        "flat bias": [_node("MatMul", "x w", "y"), _node("Add", "y b2", end)],
        "no bias": [_node("MatMul", "x w", end)],
        "one value added": [_node("MatMul", "x w", "y"), _node("Add", "y one", end)],
        "read twice": [
            _node("MatMul", "x w", "y"),
            _node("Add", "y b", "z"),
            _node("Mul", "y z", end),
        ],
        "transposed": [
            _node("Transpose", "wt", "t", perm=[1, 0]),
            _node("MatMul", "x t", "y"),
            _node("Add", "y b", end),
        ],
        "gemm": [_node("Gemm", "x w b", end)],
        "gemm transB": [_node("Gemm", "x wt b", end, transB=1)],
        "gemm no bias": [_node("Gemm", "x w", end)],
    }[name]
    used = {read for node in nodes for read in node.input}
    stored = [numpy_helper.from_array(v, n) for n, v in tensors.items() if n in used]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", FAN_IN])
    y = helper.make_tensor_value_info(end, TensorProto.FLOAT, ["rows", FAN_OUT])
    graph = helper.make_graph(nodes, "form", [x], [y], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return model


FORMS = (
    "bias",
    "bias first",
    "flat bias",
    "no bias",
    "one value added",
    "read twice",
    "transposed",
    "gemm",
    "gemm transB",
    "gemm no bias",
)
"""Names that `form` knows."""
