"""Linear layers in every form become integer kernels that compute what was planned."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_runs import FAN_IN, FORMS, form, kinds, run

from targets.onnxruntime.additions import forget_shapes, keep_additions
from targets.onnxruntime.blocks import quantize_blocks
from targets.onnxruntime.dynamic import quantize_dynamically
from targets.onnxruntime.lowering import lower_qdq
from targets.quantization.calibrators import Range
from targets.quantization.layers import read_layers
from targets.quantization.plan import LayerPlan, QdqPlan
from targets.quantization.qdq import insert_qdq

SCHEMES = (("U8S8", False), ("U8U8", False), ("S8S8", False), ("S8S8", True))
END = "last_hidden_state"
X = np.random.default_rng(5).normal(size=(7, FAN_IN)).astype(np.float32)
FEEDS = {"x": X}


def static_pair(
    model: onnx.ModelProto, integers: str = "U8S8", symmetric: bool = False
) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The graph with Q/DQ, and the same as integer kernels."""
    layers = read_layers(model).linears
    plans = tuple(
        LayerPlan(
            layer=layer,
            activation=Range(low=-3.0, high=3.5),
            integers=integers,  # type: ignore[arg-type]
            symmetric=symmetric,
        )
        for layer in layers
    )
    quantized = insert_qdq(model, QdqPlan(layers=plans))
    return quantized, lower_qdq(quantized, model, layers)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


@pytest.mark.parametrize(("integers", "symmetric"), SCHEMES)
@pytest.mark.parametrize("name", FORMS)
def test_static_kernels_compute_what_q_dq_says(name, integers, symmetric):
    quantized, lowered = static_pair(form(name), integers, symmetric)
    assert kinds(lowered)["MatMulIntegerToFloat"] == 1
    assert not {"DequantizeLinear", "MatMul", "Gemm"} & kinds(lowered).keys()
    rows, expected = run(lowered, FEEDS, END), run(quantized, FEEDS, END)
    np.testing.assert_allclose(rows, expected, rtol=1e-4, atol=1e-4)
    assert distance(rows, run(form(name), FEEDS, END)) > 1e-4, "nothing was quantized"


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("reduce_range", [False, True])
def test_dynamic_kernels_stay_near_the_float_layer(name, reduce_range):
    model = form(name)
    layers = read_layers(model).linears
    rows = run(quantize_dynamically(model, layers, reduce_range=reduce_range), FEEDS, END)
    assert 1e-4 < distance(rows, run(model, FEEDS, END)) < (0.03 if reduce_range else 0.02)


def test_seven_bits_halve_the_integers():
    model = form("bias")
    layers = read_layers(model).linears

    def largest(reduce_range: bool) -> int:
        made = quantize_dynamically(model, layers, reduce_range=reduce_range)
        stored = {one.name: onnx.numpy_helper.to_array(one) for one in made.graph.initializer}
        return int(np.abs(stored["w_quantized"].astype(int)).max())

    assert (largest(False), largest(True)) == (127, 63)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("bits", "most"), [(8, 0.02), (4, 0.15)])
def test_block_kernels_stay_near_the_float_layer(name, bits, most):
    model = form(name)
    made = quantize_blocks(model, read_layers(model).linears, bits)
    names = [node.name for node in made.graph.node if node.op_type == "MatMulNBits"]
    assert [name.endswith(f"_Q{bits}") for name in names] == [True]
    assert 1e-4 < distance(run(made, FEEDS, END), run(model, FEEDS, END)) < most


def test_biases_are_taken_in_only_where_they_are_biases():
    taken = {name for name in FORMS if "Add" not in kinds(static_pair(form(name))[1])}
    assert set(FORMS) - taken == {"one value added", "read twice"}


@pytest.mark.parametrize("name", ["bias", "gemm transB"])
def test_another_weight_is_told_apart(name):
    """The twin of the comparisons above: they would see a wrong matrix."""
    quantized, lowered = static_pair(form(name))
    for tensor in lowered.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.ndim == 2:
            turned = np.ascontiguousarray(values[::-1])
            tensor.CopyFrom(onnx.numpy_helper.from_array(turned, tensor.name))
    assert distance(run(lowered, FEEDS, END), run(quantized, FEEDS, END)) > 0.1


def test_node_names_stay_unique_and_tell_the_layer(tiny):
    model = onnx.load(tiny.artifact.path)
    made = quantize_blocks(model, read_layers(model).linears, 4)
    names = [node.name for node in made.graph.node]
    assert len(set(names)) == len(names)
    assert "encoder.layer.0.attention.self.key/MatMul_Q4" in names


def test_activations_are_quantized_once_for_all_their_readers(tiny):
    model = onnx.load(tiny.artifact.path)
    made = quantize_dynamically(model, read_layers(model).linears, reduce_range=False)
    assert kinds(made)["MatMulIntegerToFloat"] == 12
    assert kinds(made)["DynamicQuantizeLinear"] == 8
    onnx.checker.check_model(made)


def test_additions_before_layer_norm_become_sums(tiny):
    model = onnx.load(tiny.artifact.path)
    feeds = {value.name: np.ones((2, 5), np.int64) for value in model.graph.input}
    expected = run(model, feeds, END)
    before = kinds(model)
    assert keep_additions(model) == 5
    after = kinds(model)
    assert (after["Sum"], before["Add"] - after["Add"]) == (5, 5)
    assert keep_additions(model) == 0, "there is nothing left to rewrite"
    np.testing.assert_array_equal(run(model, feeds, END), expected)


def test_shapes_inside_are_forgotten_and_those_outside_stay(tiny):
    model = onnx.shape_inference.infer_shapes(onnx.load(tiny.artifact.path))
    assert model.graph.value_info
    forget_shapes(model)
    assert not model.graph.value_info
    assert [len(one.type.tensor_type.shape.dim) for one in model.graph.output] == [3, 2]
