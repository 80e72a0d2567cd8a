"""Q/DQ nodes stand where they should, store what they should, and leave the rest alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from contract.tiny_graph import LINEAR_PATHS
from onnx import TensorProto, helper, numpy_helper
from unit.quantization.qdq_cases import (
    FAN_IN,
    FAN_OUT,
    FORMS,
    SCHEMES,
    by_name,
    check,
    encoder,
    graph,
    linear,
    maker,
    node,
    of_type,
    plan_for,
    run_reference,
    stored,
    weights,
)

from targets.errors import CompileError
from targets.quantization.calibrators import Range
from targets.quantization.qdq import QdqPlan, insert_qdq

X = np.random.default_rng(3).normal(size=(5, FAN_IN)).astype(np.float32) * 2


def quantized(model: onnx.ModelProto, **options) -> onnx.ModelProto:
    return insert_qdq(model, plan_for(model, **options))


# ------------------------------------------------------------------------------ placement


def test_every_planned_layer_reads_integers_and_nothing_else_does():
    model = quantized(encoder())
    check(model)
    nodes = by_name(model)
    assert len(of_type(model, "DequantizeLinear")) == len(LINEAR_PATHS) + 8
    for path in LINEAR_PATHS:
        product = nodes[f"{path}/MatMul"]
        assert [maker(model, name).op_type for name in product.input] == ["DequantizeLinear"] * 2
    readers = {
        reader.name
        for dequantize in of_type(model, "DequantizeLinear")
        for reader in model.graph.node
        if dequantize.output[0] in reader.input
    }
    assert readers == {f"{path}/MatMul" for path in LINEAR_PATHS}


def test_query_key_and_value_share_one_pair():
    model = quantized(encoder())
    nodes = by_name(model)
    path = "encoder.layer.0.attention.self"
    read = {nodes[f"{path}.{part}/MatMul"].input[0] for part in ("query", "key", "value")}
    assert read == {"embeddings.LayerNorm/LayerNormalization_output_dequantized"}
    assert f"{path}.query/QuantizeLinear" in nodes
    assert f"{path}.key/QuantizeLinear" not in nodes


def test_readers_that_are_not_planned_keep_the_float_tensor():
    path = "encoder.layer.0.attention.self"
    model = quantized(encoder(), paths={f"{path}.query", f"{path}.value"})
    check(model)
    nodes = by_name(model)
    assert nodes[f"{path}.key/MatMul"].input[0] == "embeddings.LayerNorm/LayerNormalization_output"
    assert nodes[f"{path}.query/MatMul"].input[0] == nodes[f"{path}.value/MatMul"].input[0]
    assert len(of_type(model, "QuantizeLinear")) == 1


def test_readers_with_another_range_get_a_pair_of_their_own():
    model = encoder()
    plan = plan_for(model)
    other = replace(plan.layers[1], activation=Range(low=-1.0, high=1.0))
    layers = (plan.layers[0], other, *plan.layers[2:])
    result = insert_qdq(model, replace(plan, layers=layers))
    check(result)
    nodes = by_name(result)
    query, key, value = (nodes[f"{one.layer.path}/MatMul"].input[0] for one in layers[:3])
    assert query == value != key


def test_the_order_of_the_plan_does_not_matter():
    model = encoder()
    plan = plan_for(model)
    backwards = QdqPlan(layers=plan.layers[::-1])
    assert insert_qdq(model, backwards) == insert_qdq(model, plan)


def test_the_rest_of_the_graph_stays_as_it_is():
    model = encoder()
    before = model.SerializeToString()
    result = quantized(model)
    assert model.SerializeToString() == before
    assert list(result.graph.input) == list(model.graph.input)
    assert list(result.graph.output) == list(model.graph.output)
    assert list(result.metadata_props) == list(model.metadata_props) != []
    assert list(result.opset_import) == list(model.opset_import)
    linear_nodes = {f"{path}/MatMul" for path in LINEAR_PATHS}
    kept = by_name(result)
    assert [kept[n.name] == n for n in model.graph.node if n.name not in linear_nodes] == [True] * (
        len(model.graph.node) - len(linear_nodes)
    )


def test_float_weights_are_gone_and_names_say_what_is_there():
    model = encoder()
    result = quantized(model)
    names = {tensor.name for tensor in result.graph.initializer}
    for path in LINEAR_PATHS:
        assert f"{path}.weight" not in names
        kinds = ("quantized", "scale", "zero_point")
        assert {f"{path}.weight_{kind}" for kind in kinds} <= names
    activation = "embeddings.LayerNorm/LayerNormalization_output"
    assert {f"{activation}_scale", f"{activation}_zero_point"} <= names
    floats = sum(stored(model, f"{path}.weight").nbytes for path in LINEAR_PATHS)
    assert num_bytes(model) - num_bytes(result) > 0.6 * floats


def num_bytes(model: onnx.ModelProto) -> int:
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def test_names_that_are_taken_are_not_used_again():
    tensors = {**weights(), "W_scale": np.ones(FAN_OUT, np.float32)}
    nodes = [
        node("Mul", "x x", "x_quantized", "before"),
        node("MatMul", "x W", "product"),
        node("Mul", "product W_scale", "last_hidden_state", "after"),
        node("Neg", "x_quantized", "unread", "layer/QuantizeLinear"),
    ]
    nodes[3].name = "layer/QuantizeLinear"
    result = quantized(graph(nodes, tensors))
    check(result)
    assert len(by_name(result)) == len(result.graph.node)
    assert stored(result, "W_scale").tolist() == [1.0] * FAN_OUT
    assert "layer/QuantizeLinear_1" in by_name(result)


def test_shapes_of_new_tensors_are_told_where_those_of_old_ones_are():
    model = onnx.shape_inference.infer_shapes(encoder())
    result = quantized(model)
    check(result)
    name = "encoder.layer.0.intermediate/Gelu_output"
    told = {one.name: one.type.tensor_type for one in result.graph.value_info}
    assert told[f"{name}_quantized"].elem_type == TensorProto.UINT8
    assert told[f"{name}_dequantized"].elem_type == TensorProto.FLOAT
    assert told[f"{name}_dequantized"].shape == told[name].shape


# --------------------------------------------------------------------------------- values


def expected_output(model: onnx.ModelProto, integers: str, symmetric: bool) -> np.ndarray:
    """One layer in integers, as the formulas say, in float64."""
    signed = integers.startswith("S")
    scale = np.float32(6 / 127 if symmetric else 10 / 255)
    zero_point = 0 if symmetric else round(4 / float(scale)) - 128 * signed
    low, high = (-128, 127) if signed else (0, 255)
    x = np.clip(np.rint(X / scale) + zero_point, low, high).astype(np.int64)
    tensors = weights()
    steps = np.abs(tensors["W"]).max(axis=0) / np.float32(127)
    w = np.rint(tensors["W"] / steps).astype(np.int64)
    y = (x - zero_point) @ w * scale.astype(np.float64) * steps.astype(np.float64)
    has_bias = any("b" in one.input for one in model.graph.node)
    return y + tensors["b"] if has_bias else y


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("integers", "symmetric"), SCHEMES)
def test_a_layer_computes_what_the_formulas_say(form, integers, symmetric):
    model = linear(form)
    result = quantized(model, integers=integers, symmetric=symmetric)
    check(result)
    expected = expected_output(model, integers, symmetric)
    np.testing.assert_allclose(run_reference(result, x=X), expected, rtol=2e-6, atol=2e-6)
    assert not np.allclose(run_reference(model, x=X), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_scales_follow_the_output_channels_as_stored(form):
    result = quantized(linear(form))
    axis = 0 if form in ("transpose", "gemm_b") else 1
    (dequantize,) = (n for n in of_type(result, "DequantizeLinear") if "W_quantized" in n.input)
    assert helper.get_attribute_value(dequantize.attribute[0]) == axis
    assert stored(result, "W_quantized").shape[axis] == FAN_OUT
    np.testing.assert_allclose(stored(result, "W_scale"), np.abs(weights()["W"]).max(0) / 127)
    assert not {"W"} & {tensor.name for tensor in result.graph.initializer}
    assert not of_type(result, "Constant", "Identity")


@pytest.mark.parametrize(("integers", "symmetric"), SCHEMES)
def test_types_and_zero_points(integers, symmetric):
    result = quantized(linear("matmul"), integers=integers, symmetric=symmetric)
    x_type, w_type = (np.uint8 if one == "U8" else np.int8 for one in (integers[:2], integers[2:]))
    x_zero, w_zero = stored(result, "x_zero_point"), stored(result, "W_zero_point")
    assert (x_zero.dtype, x_zero.shape) == (x_type, ())
    assert (w_zero.dtype, w_zero.shape) == (w_type, (FAN_OUT,))
    assert stored(result, "W_quantized").dtype == w_type
    assert set(w_zero.tolist()) == {128 if w_type == np.uint8 else 0}
    assert (int(x_zero) == 0) is symmetric
    assert stored(result, "x_scale").dtype == stored(result, "W_scale").dtype == np.float32


def test_unsigned_weights_are_the_signed_ones_shifted():
    signed, unsigned = (
        stored(quantized(linear("matmul"), integers=one), "W_quantized") for one in ("U8S8", "U8U8")
    )
    assert np.array_equal(signed.astype(int) + 128, unsigned.astype(int))


def test_weights_in_seven_bits():
    result = quantized(linear("matmul"), reduce_range=True)
    integers = stored(result, "W_quantized")
    assert np.abs(integers.astype(int)).max(axis=0).tolist() == [63] * FAN_OUT
    np.testing.assert_allclose(stored(result, "W_scale"), np.abs(weights()["W"]).max(0) / 63)


def test_a_channel_of_zeros_has_a_scale():
    model = linear("matmul")
    values = weights()["W"]
    values[:, 1] = 0
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "W"))
    result = quantized(model)
    assert np.all(stored(result, "W_scale") > 0)
    assert not stored(result, "W_quantized")[:, 1].any()


def test_float16_graphs_get_float16_scales():
    halves = weights(dtype=np.float16)
    nodes = [node("MatMul", "x W", "product"), node("Add", "product b", "last_hidden_state")]
    model = graph(nodes, halves, float_type=TensorProto.FLOAT16)
    result = quantized(model, bias=np.zeros(FAN_OUT, np.float32))
    check(result)
    assert stored(result, "x_scale").dtype == stored(result, "W_scale").dtype == np.float16
    assert stored(result, "b_replaced").dtype == np.float16


# --------------------------------------------------------------- values that the plan gives


@pytest.mark.parametrize("form", ["matmul", "transpose", "gemm_b"])
def test_other_weights_and_biases_replace_the_graphs_own(form):
    model, other = linear(form), linear(form, seed=1)
    weight, bias = stored(other, "W"), stored(other, "b")
    result = quantized(model, weight=weight, bias=bias)
    check(result)
    np.testing.assert_array_equal(run_reference(result, x=X), run_reference(quantized(other), x=X))
    assert not {"W", "b"} & {tensor.name for tensor in result.graph.initializer}


def test_integers_and_scales_are_taken_as_they_are():
    rng = np.random.default_rng(5)
    integers = rng.integers(-127, 128, (FAN_IN, FAN_OUT)).astype(np.int8)
    scale = rng.uniform(0.1, 1, FAN_OUT).astype(np.float32)
    result = quantized(linear("matmul"), weight_integers=integers, weight_scale=scale)
    np.testing.assert_array_equal(stored(result, "W_quantized"), integers)
    np.testing.assert_array_equal(stored(result, "W_scale"), scale)


def test_a_scale_of_the_plan_rounds_the_graphs_weight():
    scale = np.full(FAN_OUT, 0.05, np.float32)
    result = quantized(linear("matmul"), weight_scale=scale)
    wanted = np.clip(np.rint(weights()["W"] / np.float32(0.05)), -127, 127)
    np.testing.assert_array_equal(stored(result, "W_quantized"), wanted)


DIVISOR = np.geomspace(0.25, 4, FAN_IN).astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
def test_a_smoothed_layer_divides_what_it_reads(form):
    model = linear(form)
    weight = weights()["W"] * DIVISOR[:, None]
    turned = form in ("transpose", "gemm_b")
    result = quantized(model, divisor=DIVISOR, weight=weight.T if turned else weight)
    check(result)
    # The pair reads x / divisor; the weight's own channels are multiplied by it.
    plain = quantized(linear("matmul"), weight=weight)
    expected = run_reference(plain, x=X * (1 / DIVISOR))
    bias = weights()["b"] if form == "matmul_no_bias" else 0
    np.testing.assert_allclose(run_reference(result, x=X) + bias, expected, rtol=1e-5, atol=1e-5)
    assert not np.allclose(run_reference(plain, x=X), expected, atol=0.1)


def test_layers_with_equal_divisors_share_one_pair():
    model = encoder()
    plan = plan_for(model, divisor=np.full(32, 2.0, np.float32))
    query, key, value = plan.layers[:3]
    shared = insert_qdq(model, QdqPlan(layers=(query, key, value)))
    check(shared)
    assert len(of_type(shared, "QuantizeLinear")) == 1
    other = replace(key, divisor=np.full(32, 4.0, np.float32))
    without = replace(value, divisor=None)
    apart = insert_qdq(model, QdqPlan(layers=(query, other, without)))
    check(apart)
    assert len(of_type(apart, "QuantizeLinear")) == 3


@pytest.mark.parametrize("form", ["matmul_no_bias", "gemm_no_bias"])
def test_a_layer_without_bias_gets_one_only_if_the_plan_has_one(form):
    gemm = [node("Gemm", "x W", "last_hidden_state")]
    model = linear(form) if form.startswith("matmul") else graph(gemm, {"W": weights()["W"]})
    bias = np.arange(FAN_OUT, dtype=np.float32)
    without, with_bias = quantized(model), quantized(model, bias=bias)
    check(with_bias)
    assert not of_type(without, "Add")
    assert len(of_type(with_bias, "Add")) == (form == "matmul_no_bias")
    difference = run_reference(with_bias, x=X) - run_reference(without, x=X)
    np.testing.assert_allclose(difference, np.broadcast_to(bias, difference.shape), atol=1e-5)
    np.testing.assert_array_equal(stored(with_bias, "layer.bias"), bias)


def test_a_bias_that_others_read_is_kept_for_them():
    tensors = {**weights(), "V": weights(1)["W"]}
    nodes = [
        node("MatMul", "x W", "p", "one"),
        node("Add", "p b", "y1", "one"),
        node("MatMul", "x V", "q", "two"),
        node("Add", "q b", "y2", "two"),
        node("Sub", "y1 y2", "last_hidden_state", "end"),
    ]
    result = quantized(graph(nodes, tensors), paths={"one"}, bias=np.ones(FAN_OUT, np.float32))
    check(result)
    assert by_name(result)["two/Add"].input[1] == "b"
    np.testing.assert_array_equal(stored(result, "b"), tensors["b"])
    assert stored(result, by_name(result)["one/Add"].input[1]).tolist() == [1.0] * FAN_OUT


def tied() -> onnx.ModelProto:
    """Two layers with one matrix."""
    nodes = [
        node("MatMul", "x W", "y1", "one"),
        node("Neg", "x", "minus"),
        node("MatMul", "minus W", "y2", "two"),
        node("Sub", "y1 y2", "last_hidden_state", "end"),
    ]
    return graph(nodes, {"W": weights()["W"]})


def test_a_weight_that_others_read_is_kept_for_them():
    result = quantized(tied(), paths={"one"})
    check(result)
    assert by_name(result)["two/MatMul"].input[1] == "W"
    np.testing.assert_array_equal(stored(result, "W"), weights()["W"])


def test_equal_integers_of_one_weight_are_stored_once_and_others_twice():
    model = tied()
    once = quantized(model)
    check(once)
    assert len([t for t in once.graph.initializer if t.data_type == TensorProto.INT8]) == 2
    assert "W" not in {tensor.name for tensor in once.graph.initializer}
    plan = plan_for(model)
    other = replace(plan.layers[1], weight=weights(1)["W"])
    twice = insert_qdq(model, QdqPlan(layers=(plan.layers[0], other)))
    check(twice)
    assert not np.array_equal(stored(twice, "W_quantized"), stored(twice, "W_quantized_1"))


def test_a_turned_weight_that_others_read_keeps_its_transposition():
    model = linear("transpose")
    model.graph.node.insert(2, node("ReduceSum", "turned", "total", "elsewhere"))
    model.graph.node.append(node("Mul", "total last_hidden_state", "second", "elsewhere"))
    model.graph.output.append(
        helper.make_tensor_value_info("second", TensorProto.FLOAT, [None, None])
    )
    result = quantized(model)
    check(result)
    assert by_name(result)["elsewhere/ReduceSum"].input[0] == "turned"
    assert {"W", "W_quantized"} <= {tensor.name for tensor in result.graph.initializer}


# ------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("opset", [13, 18])
def test_an_old_opset_is_refused(opset):
    with pytest.raises(CompileError, match=f"opset {opset}") as caught:
        quantized(linear("matmul", opset=opset))
    assert "later opset" in caught.value.hint


def test_opset_19_and_later_are_kept():
    for opset in (19, 21, 23):
        result = quantized(linear("matmul", opset=opset))
        check(result)
        assert result.opset_import[0].version == opset


def test_a_quantized_graph_is_refused():
    once = quantized(linear("matmul"))
    with pytest.raises(CompileError, match="quantized already"):
        insert_qdq(once, QdqPlan(layers=()))


def test_a_plan_for_another_graph_is_refused():
    plan = plan_for(linear("gemm"))
    with pytest.raises(CompileError, match="not in the graph"):
        insert_qdq(linear("matmul"), plan)
    other = replace(plan.layers[0].layer, output_axis=0)
    with pytest.raises(CompileError, match="not in the graph") as caught:
        insert_qdq(linear("gemm"), QdqPlan(layers=(replace(plan.layers[0], layer=other),)))
    assert "another" in caught.value.why


def test_a_layer_twice_is_refused():
    plan = plan_for(linear("matmul"))
    with pytest.raises(CompileError, match="twice"):
        insert_qdq(linear("matmul"), QdqPlan(layers=plan.layers * 2))


@pytest.mark.parametrize("integers", ["U8S8", "U8U8"])
def test_symmetric_needs_signed_integers(integers):
    with pytest.raises(CompileError, match="cannot be symmetric"):
        quantized(linear("matmul"), integers=integers, symmetric=True)


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("weight", np.ones((FAN_OUT, FAN_IN), np.float32), "weight has shape"),
        ("weight", np.full((FAN_IN, FAN_OUT), np.nan, np.float32), "not finite"),
        ("weight_scale", np.ones(FAN_IN, np.float32), "weight_scale has shape"),
        ("weight_scale", np.zeros(FAN_OUT, np.float32), "positive and finite"),
        ("weight_scale", np.full(FAN_OUT, -1, np.float32), "positive and finite"),
        ("weight_scale", np.full(FAN_OUT, np.inf, np.float32), "positive and finite"),
        ("weight_integers", np.ones((FAN_OUT, FAN_IN), np.int8), "weight_integers has shape"),
        ("weight_integers", np.ones((FAN_IN, FAN_OUT), np.int16), "int16"),
        ("divisor", np.ones(FAN_OUT, np.float32), "divisor has shape"),
        ("divisor", np.zeros(FAN_IN, np.float32), "positive and finite"),
        ("divisor", np.full(FAN_IN, np.nan, np.float32), "positive and finite"),
        ("bias", np.ones(FAN_IN, np.float32), "bias has shape"),
        ("bias", np.ones((1, FAN_OUT), np.float32), "bias has shape"),
    ],
)
def test_values_that_do_not_fit_are_refused(field, values, message):
    with pytest.raises(CompileError, match=message) as caught:
        quantized(linear("matmul"), **{field: values})
    assert caught.value.what.startswith("layer:")


def test_integers_of_seven_bits_are_held_to_them():
    integers = np.full((FAN_IN, FAN_OUT), 65, np.int8)
    with pytest.raises(CompileError, match="up to 65"):
        quantized(linear("matmul"), weight_integers=integers, reduce_range=True)
    fits = np.full((FAN_IN, FAN_OUT), -64, np.int8)
    quantized(linear("matmul"), weight_integers=fits, reduce_range=True)


def test_weights_that_were_not_loaded_are_refused():
    model = linear("matmul")
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="elsewhere.bin")
    with pytest.raises(CompileError, match="not in memory"):
        insert_qdq(model, plan_for(model))


def test_a_range_beyond_float16_is_refused():
    halves = {"W": weights(dtype=np.float16)["W"]}
    model = graph(
        [node("MatMul", "x W", "last_hidden_state")], halves, float_type=TensorProto.FLOAT16
    )
    with pytest.raises(CompileError, match="no scale in float16"):
        quantized(model, activation=Range(low=0.0, high=1e9))
