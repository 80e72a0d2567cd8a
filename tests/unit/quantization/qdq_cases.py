"""Small float graphs with linear layers in every form, plans for them, and a look inside."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from contract.tiny_graph import build_model, make_weights
from onnx import TensorProto, helper, numpy_helper

from targets.quantization.calibrators import Range
from targets.quantization.layers import read_layers
from targets.quantization.qdq import LayerPlan, QdqPlan

WIDE = Range(low=-4.0, high=6.0)
FAN_IN, FAN_OUT = 6, 4
SCHEMES = (("U8S8", False), ("S8S8", False), ("S8S8", True), ("U8U8", False))

Tensors = dict[str, np.ndarray]


def encoder() -> onnx.ModelProto:
    """The two-layer BERT of the contract tests, with metadata."""
    model = build_model(make_weights(0))
    helper.set_model_props(model, {"model_id": "tiny", "pooling": "mean"})
    return model


def plan_for(
    model: onnx.ModelProto,
    paths: set[str] | None = None,
    *,
    integers: str = "U8S8",
    symmetric: bool = False,
    embeddings: str = "float32",
    activation: Range = WIDE,
    **options: Any,
) -> QdqPlan:
    """Plan every layer, or those of some paths, alike."""
    return QdqPlan(
        layers=tuple(
            LayerPlan(
                layer=layer,
                activation=activation,
                integers=integers,  # type: ignore[arg-type]
                symmetric=symmetric,
                **options,
            )
            for layer in read_layers(model).linears
            if paths is None or layer.path in paths
        ),
        embeddings=embeddings,  # type: ignore[arg-type]
    )


def graph(
    nodes: list[onnx.NodeProto],
    tensors: Tensors,
    *,
    inputs: tuple[Any, ...] | None = None,
    opset: int = 20,
    float_type: int = TensorProto.FLOAT,
    rank: int = 2,
) -> onnx.ModelProto:
    """A graph from x [rows, FAN_IN] to last_hidden_state."""
    x = helper.make_tensor_value_info("x", float_type, ["rows", FAN_IN])
    y = helper.make_tensor_value_info("last_hidden_state", float_type, [None] * rank)
    stored = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    made = helper.make_graph(nodes, "case", list(inputs or (x,)), [y], stored)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def node(kind: str, inputs: str, output: str, path: str = "layer", **attributes: Any) -> Any:
    """A node named `<path>/<kind>`; inputs are separated by blanks."""
    return helper.make_node(kind, inputs.split(), [output], name=f"{path}/{kind}", **attributes)


def weights(seed: int = 0, dtype: type = np.float32) -> Tensors:
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(FAN_IN, FAN_OUT)) * np.geomspace(0.1, 10, FAN_OUT)
    return {"W": weight.astype(dtype), "b": rng.normal(size=FAN_OUT).astype(dtype)}


FORMS = ("matmul", "matmul_no_bias", "transpose", "identity", "constant_node", "gemm", "gemm_b")
"""Ways to store one linear layer; `gemm_b` is turned by Gemm, `transpose` by a node."""


def linear(form: str, seed: int = 0, **options: Any) -> onnx.ModelProto:
    """One linear layer with the same values in every form."""
    tensors = weights(seed)
    end = "last_hidden_state"
    if form.startswith("gemm"):
        turned = form != "gemm"
        if turned:
            tensors["W"] = np.ascontiguousarray(tensors["W"].T)
        return graph([node("Gemm", "x W b", end, transB=int(turned))], tensors, **options)
    add = node("Add", "product b", end)
    if form == "matmul_no_bias":
        del tensors["b"]
        return graph([node("MatMul", "x W", end)], tensors, **options)
    if form == "transpose":
        tensors["W"] = np.ascontiguousarray(tensors["W"].T)
        turn = node("Transpose", "W", "turned", perm=[1, 0])
        return graph([turn, node("MatMul", "x turned", "product"), add], tensors, **options)
    if form == "identity":
        same = node("Identity", "W", "same")
        return graph([same, node("MatMul", "x same", "product"), add], tensors, **options)
    if form == "constant_node":
        value = numpy_helper.from_array(tensors.pop("W"), "value")
        constant = helper.make_node("Constant", [], ["W"], name="layer/Constant", value=value)
        return graph([constant, node("MatMul", "x W", "product"), add], tensors, **options)
    return graph([node("MatMul", "x W", "product"), add], tensors, **options)


def lookup(
    num_rows: int = 1500, dtype: type = np.float32, *, float_type: int = TensorProto.FLOAT
) -> onnx.ModelProto:
    """Token ids, a large table, a linear layer; rows of very different size, one of zeros."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(num_rows, FAN_IN)) * np.geomspace(0.01, 10, num_rows)[:, None]
    table[0] = 0.0
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])
    nodes = [
        node("Gather", "table input_ids", "embedded", "words", axis=0),
        node("MatMul", "embedded W", "product"),
        node("Add", "product b", "last_hidden_state"),
    ]
    tensors = {"table": table.astype(dtype), **weights(dtype=dtype)}
    return graph(nodes, tensors, inputs=(ids,), float_type=float_type, rank=3)


# ------------------------------------------------------------------------ looking inside


def stored(model: onnx.ModelProto, name: str) -> np.ndarray:
    """Values of a stored tensor."""
    return next(numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)


def by_name(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {node.name: node for node in model.graph.node}


def of_type(model: onnx.ModelProto, *kinds: str) -> list[onnx.NodeProto]:
    return [node for node in model.graph.node if node.op_type in kinds]


def maker(model: onnx.ModelProto, tensor: str) -> onnx.NodeProto:
    """The node that a tensor comes from."""
    return next(node for node in model.graph.node if tensor in node.output)


def check(model: onnx.ModelProto) -> None:
    """Shapes, types and order, as onnx sees them."""
    onnx.checker.check_model(model, full_check=True)


def run_reference(model: onnx.ModelProto, **feeds: np.ndarray) -> np.ndarray:
    """Run the graph in onnx's reference implementation; the first output."""
    from onnx.reference import ReferenceEvaluator

    result: np.ndarray = ReferenceEvaluator(model).run(None, feeds)[0]
    return result
