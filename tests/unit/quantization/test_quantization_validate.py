"""Each rule of a Q/DQ graph, and for each a graph that breaks it and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from contract.tiny_graph import LINEAR_PATHS
from onnx import TensorProto, helper, numpy_helper
from unit.quantization.qdq_cases import (
    FORMS,
    SCHEMES,
    by_name,
    encoder,
    linear,
    lookup,
    plan_for,
    stored,
)

from targets.errors import CompileError
from targets.quantization.layers import read_layers
from targets.quantization.qdq import insert_qdq
from targets.quantization.validate import validate_qdq

FLOAT_LAYER = "encoder.layer.1.output.dense"
EXPECTED = tuple(path for path in LINEAR_PATHS if path != FLOAT_LAYER)
SELF = "encoder.layer.0.attention.self"
QUERY, KEY, VALUE = f"{SELF}.query", f"{SELF}.key", f"{SELF}.value"
HIDDEN = "embeddings.LayerNorm/LayerNormalization_output"
Q, DQ, W_DQ = (
    f"{QUERY}/{one}" for one in ("QuantizeLinear", "DequantizeLinear", "DequantizeLinear_1")
)
Fault = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="module")
def layers():
    return read_layers(encoder())


def valid(integers: str = "U8S8", symmetric: bool = False) -> onnx.ModelProto:
    model = encoder()
    plan = plan_for(model, set(EXPECTED), integers=integers, symmetric=symmetric)
    return insert_qdq(model, plan)


def validate(model: onnx.ModelProto, layers, *, symmetric: bool = False) -> None:
    validate_qdq(model, layers, EXPECTED, symmetric=symmetric)


# ---------------------------------------------------------------------------- valid graphs


@pytest.mark.parametrize(("integers", "symmetric"), SCHEMES)
def test_what_is_inserted_is_valid(layers, integers, symmetric):
    validate(valid(integers, symmetric), layers, symmetric=symmetric)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_layer_is_valid(form):
    model = linear(form)
    result = insert_qdq(model, plan_for(model, integers="S8S8", symmetric=True))
    validate_qdq(result, read_layers(model), ["layer"], symmetric=True)


def smoothed() -> onnx.ModelProto:
    model = encoder()
    return insert_qdq(model, plan_for(model, {QUERY}, divisor=np.full(32, 2.0, np.float32)))


def test_a_smoothed_activation_is_the_layer_s_own(layers):
    validate_qdq(smoothed(), layers, [QUERY], symmetric=False)


def test_a_product_of_two_activations_is_no_smoothing(layers):
    model = smoothed()
    (product,) = (node for node in model.graph.node if f"{HIDDEN}_factor" in node.input)
    product.input[1] = HIDDEN
    with pytest.raises(CompileError, match=rf"'{QUERY}/MatMul' breaks .* its own activation"):
        validate_qdq(model, layers, [QUERY], symmetric=False)


@pytest.mark.parametrize("embeddings", ["int8", "float16"])
def test_small_embeddings_are_valid(embeddings):
    model = lookup()
    result = insert_qdq(model, plan_for(model, embeddings=embeddings))
    validate_qdq(result, read_layers(model), ["layer"], symmetric=False)


def test_a_float_graph_is_valid_where_nothing_is_expected(layers):
    validate_qdq(encoder(), layers, [], symmetric=True)


def test_a_path_that_is_no_layer_is_refused(layers):
    with pytest.raises(CompileError, match="'elsewhere' is expected to be int8"):
        validate_qdq(valid(), layers, [*EXPECTED, "elsewhere"], symmetric=False)


# --------------------------------------------------------------------------------- faults


def put(model: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    """Store a tensor, in place of one of that name."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(values, name))
            return
    model.graph.initializer.append(numpy_helper.from_array(values, name))


def insert_before(model: onnx.ModelProto, reader: str, *nodes: onnx.NodeProto) -> None:
    place = next(i for i, node in enumerate(model.graph.node) if node.name == reader)
    for node in reversed(nodes):
        model.graph.node.insert(place, node)


def rewire(model: onnx.ModelProto, reader: str, old: str, new: str) -> None:
    node = by_name(model)[reader]
    place = list(node.input).index(old)
    node.input[place] = new


def pair(model: onnx.ModelProto, tensor: str, reader: str, parameters: str = HIDDEN) -> None:
    """Put a pair named extra/… between a tensor and one reader."""
    rest = [f"{parameters}_scale", f"{parameters}_zero_point"]
    insert_before(
        model,
        reader,
        helper.make_node("QuantizeLinear", [tensor, *rest], ["extra_q"], name="extra/Q"),
        helper.make_node("DequantizeLinear", ["extra_q", *rest], ["extra_dq"], name="extra/DQ"),
    )
    rewire(model, reader, tensor, "extra_dq")


def extra_pair(tensor: str, reader: str) -> Fault:
    return lambda model: pair(model, tensor, reader)


def store(name: str, values: object, dtype: type = np.float32) -> Fault:
    return lambda model: put(model, name, np.array(values, dtype))


def store_weight_scale(change: Callable[[np.ndarray], np.ndarray]) -> Fault:
    name = f"{QUERY}.weight_scale"
    return lambda model: put(model, name, change(stored(model, name).copy()))


def first(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(scale: np.ndarray) -> np.ndarray:
        scale[3] = value
        return scale

    return change


def old_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 18


def wrong_order(model: onnx.ModelProto) -> None:
    node = by_name(model)[DQ]
    model.graph.node.remove(node)
    model.graph.node.append(node)


def foreign(kind: str, domain: str = "") -> Fault:
    def plant(model: onnx.ModelProto) -> None:
        node = helper.make_node(kind, [HIDDEN], ["foreign"], name="extra/foreign", domain=domain)
        insert_before(model, Q, node)

    return plant


def computed_scale(model: onnx.ModelProto) -> None:
    node = helper.make_node("Identity", [f"{HIDDEN}_scale"], ["made"], name="extra/made")
    insert_before(model, Q, node)
    for name in (Q, DQ):
        by_name(model)[name].input[1] = "made"


def float16_scale(model: onnx.ModelProto) -> None:
    put(model, f"{HIDDEN}_scale", stored(model, f"{HIDDEN}_scale").astype(np.float16))


def float16_weight_scale(model: onnx.ModelProto) -> None:
    name = f"{QUERY}.weight_scale"
    put(model, name, stored(model, name).astype(np.float16))


def no_zero_point(node: str) -> Fault:
    def plant(model: onnx.ModelProto) -> None:
        del by_name(model)[node].input[2]

    return plant


def weight_axis_0(model: onnx.ModelProto) -> None:
    by_name(model)[W_DQ].attribute[0].i = 0


def no_axis(path: str) -> Fault:
    """A weight with one scale for all of it."""

    def plant(model: onnx.ModelProto) -> None:
        put(model, f"{path}.weight_scale", np.array(0.01, np.float32))
        put(model, f"{path}.weight_zero_point", np.array(0, np.int8))

    return plant


def blocks(model: onnx.ModelProto) -> None:
    by_name(model)[W_DQ].attribute.append(helper.make_attribute("block_size", 16))


def per_channel_activation(model: onnx.ModelProto) -> None:
    put(model, f"{HIDDEN}_scale", np.full(32, 0.05, np.float32))
    put(model, f"{HIDDEN}_zero_point", np.full(32, 7, np.uint8))
    for name in (Q, DQ):
        by_name(model)[name].attribute.append(helper.make_attribute("axis", -1))


def other_half(model: onnx.ModelProto) -> None:
    put(model, "other_scale", np.array(0.9, np.float32))
    by_name(model)[DQ].input[1] = "other_scale"


def other_zero_point(model: onnx.ModelProto) -> None:
    put(model, "other_zero_point", np.array(1, np.uint8))
    by_name(model)[DQ].input[2] = "other_zero_point"


def float_weight_rounded_at_run_time(model: onnx.ModelProto) -> None:
    node = by_name(model)[W_DQ]
    put(model, "floats", stored(encoder(), f"{QUERY}.weight"))
    quantize = helper.make_node(
        "QuantizeLinear", ["floats", *node.input[1:]], ["rounded"], name="extra/Q", axis=1
    )
    insert_before(model, W_DQ, quantize)
    node.input[0] = "rounded"


def computed_weight(model: onnx.ModelProto) -> None:
    node = by_name(model)[W_DQ]
    same = helper.make_node("Identity", [node.input[0]], ["same"], name="extra/same")
    insert_before(model, W_DQ, same)
    node.input[0] = "same"


def int32_weight(model: onnx.ModelProto) -> None:
    name = f"{QUERY}.weight_quantized"
    put(model, name, stored(model, name).astype(np.int32))


def second_pair(model: onnx.ModelProto) -> None:
    node = f"{KEY}/MatMul"
    rewire(model, node, f"{HIDDEN}_dequantized", HIDDEN)
    pair(model, HIDDEN, node)


def second_dequantizer(model: onnx.ModelProto) -> None:
    inputs = list(by_name(model)[DQ].input)
    node = helper.make_node("DequantizeLinear", inputs, ["again"], name="extra/DQ")
    insert_before(model, f"{KEY}/MatMul", node)
    rewire(model, f"{KEY}/MatMul", f"{HIDDEN}_dequantized", "again")


def residual_in_integers(model: onnx.ModelProto) -> None:
    rewire(model, "encoder.layer.0.attention.output/Add", HIDDEN, f"{HIDDEN}_dequantized")


def float_activation(model: onnx.ModelProto) -> None:
    for path in (QUERY, KEY, VALUE):
        rewire(model, f"{path}/MatMul", f"{HIDDEN}_dequantized", HIDDEN)
    for name in (Q, DQ):
        model.graph.node.remove(by_name(model)[name])


def float_weight(model: onnx.ModelProto) -> None:
    name = f"{QUERY}.weight"
    put(model, name, stored(encoder(), name))
    rewire(model, f"{QUERY}/MatMul", f"{name}_dequantized", name)
    model.graph.node.remove(by_name(model)[W_DQ])


def another_activation(model: onnx.ModelProto) -> None:
    other = "encoder.layer.0.output.LayerNorm/LayerNormalization_output_dequantized"
    path = "encoder.layer.1.intermediate.dense"
    own = by_name(model)[f"{path}/MatMul"].input[0]
    rewire(model, f"{path}/MatMul", own, other)
    for name in (f"{path}/QuantizeLinear", f"{path}/DequantizeLinear"):
        model.graph.node.remove(by_name(model)[name])


def quantizer_alone(model: onnx.ModelProto) -> None:
    rest = [f"{HIDDEN}_scale", f"{HIDDEN}_zero_point"]
    node = helper.make_node("QuantizeLinear", [HIDDEN, *rest], ["alone"], name="extra/Q")
    insert_before(model, Q, node)


def dequantizer_alone(model: onnx.ModelProto) -> None:
    """Integers that a Cast makes instead of a QuantizeLinear."""
    cast = helper.make_node("Cast", [HIDDEN], ["ints"], name="extra/Cast", to=TensorProto.UINT8)
    insert_before(model, DQ, cast)
    by_name(model)[DQ].input[0] = "ints"
    model.graph.node.remove(by_name(model)[Q])


def unread_dequantizer(model: onnx.ModelProto) -> None:
    for path in (QUERY, KEY, VALUE):
        rewire(model, f"{path}/MatMul", f"{HIDDEN}_dequantized", HIDDEN)


def weight_as_activation(model: onnx.ModelProto) -> None:
    """The stored matrix is added to something instead of being multiplied."""
    name = f"{QUERY}.weight_dequantized"
    node = helper.make_node("Relu", [name], ["relu"], name="extra/Relu")
    insert_before(model, f"{QUERY}/MatMul", node)


def head_weight(model: onnx.ModelProto) -> None:
    node = by_name(model)[W_DQ]
    again = helper.make_node(
        "DequantizeLinear", list(node.input), ["dense"], name="extra/DQ", axis=1
    )
    product = helper.make_node("MatMul", ["last_hidden_state", "dense"], ["d"], name="dense/MatMul")
    model.graph.node.extend([again, product])


def layer_gone(model: onnx.ModelProto) -> None:
    by_name(model)[f"{FLOAT_LAYER}/MatMul"].name = "renamed/MatMul"


def weight_in_place_of_an_activation(model: onnx.ModelProto) -> None:
    rewire(model, f"{KEY}/MatMul", f"{HIDDEN}_dequantized", f"{QUERY}.weight_dequantized")


ATTENTION = f"{SELF}/MatMul"
FAULTS: dict[str, tuple[Fault, str, str]] = {
    "opset": (old_opset, "tiny", "opset 19 or later"),
    "order": (wrong_order, f"{QUERY}/MatMul", "topological order"),
    "dynamic": (foreign("DynamicQuantizeLinear"), "extra/foreign", "written with Q/DQ"),
    "integer product": (foreign("MatMulInteger"), "extra/foreign", "written with Q/DQ"),
    "QLinear": (foreign("QLinearMatMul"), "extra/foreign", "written with Q/DQ"),
    "fused": (foreign("QAttention", "com.microsoft"), "extra/foreign", "written with Q/DQ"),
    "zero scale": (store(f"{HIDDEN}_scale", 0.0), Q, "positive and finite"),
    "negative scale": (store(f"{HIDDEN}_scale", -0.1), Q, "positive and finite"),
    "NaN scale": (store(f"{HIDDEN}_scale", np.nan), Q, "positive and finite"),
    "infinite scale": (store(f"{HIDDEN}_scale", np.inf), Q, "positive and finite"),
    "zero weight scale": (store_weight_scale(first(0.0)), W_DQ, "positive and finite"),
    "negative weight scale": (store_weight_scale(first(-1.0)), W_DQ, "positive and finite"),
    "computed scale": (computed_scale, Q, "stored, positive"),
    "float16 scale": (float16_scale, Q, "float type of the tensor"),
    "float16 weight scale": (float16_weight_scale, W_DQ, "float type of the tensor"),
    "no zero point": (no_zero_point(Q), Q, "stored int8 or uint8"),
    "no weight zero point": (no_zero_point(W_DQ), W_DQ, "stored int8 or uint8"),
    "wide zero point": (store(f"{HIDDEN}_zero_point", 5, np.uint16), Q, "int8 or uint8"),
    "weight zero point": (
        store(f"{QUERY}.weight_zero_point", [1] * 32, np.int8),
        W_DQ,
        "zero point is that of a symmetric tensor",
    ),
    "weight axis": (weight_axis_0, W_DQ, "one scale for each output channel"),
    "weight per tensor": (no_axis(QUERY), W_DQ, "one scale for each output channel"),
    "weight in blocks": (blocks, W_DQ, "one scale for each output channel"),
    "per-channel activation": (per_channel_activation, Q, "one scale for the whole tensor"),
    "scales differ": (other_half, DQ, "same scale and zero point"),
    "zero points differ": (other_zero_point, DQ, "same scale and zero point"),
    "float weight": (float_weight_rounded_at_run_time, "extra/Q", "stored as integers"),
    "computed weight": (computed_weight, W_DQ, "stored int8 matrix"),
    "wide weight": (int32_weight, W_DQ, "stored int8 matrix"),
    "product": (
        extra_pair(f"{QUERY}/MatMul_output", f"{QUERY}/Add"),
        "extra/DQ",
        "only on activations and weights",
    ),
    "after bias": (
        extra_pair(f"{QUERY}/Add_output", f"{SELF}/Reshape"),
        "extra/DQ",
        "only on activations and weights",
    ),
    "softmax": (
        extra_pair(f"{SELF}/Softmax_output", f"{SELF}/MatMul_1"),
        "extra/DQ",
        "only on activations and weights",
    ),
    "attention input": (
        extra_pair(f"{SELF}/Transpose_output", ATTENTION),
        "extra/DQ",
        "only on activations and weights",
    ),
    "attention output": (
        extra_pair(f"{SELF}/MatMul_output", f"{SELF}/Div"),
        "extra/DQ",
        "only on activations and weights",
    ),
    "residual sum": (
        extra_pair(
            "encoder.layer.0.attention.output/Add_output",
            "encoder.layer.0.attention.output.LayerNorm/LayerNormalization",
        ),
        "extra/DQ",
        "only on activations and weights",
    ),
    "residual": (residual_in_integers, DQ, "only on activations and weights"),
    "weight elsewhere": (weight_as_activation, W_DQ, "only on activations and weights"),
    "weight as activation": (
        weight_in_place_of_an_activation,
        W_DQ,
        "only on activations and weights",
    ),
    "second pair": (second_pair, "extra/Q", "one shared pair"),
    "second DQ": (second_dequantizer, "extra/DQ", "one shared pair"),
    "pooling": (
        extra_pair("pooling/Div_output", "normalize/ReduceL2"),
        "extra/Q",
        "behind last_hidden_state",
    ),
    "hidden state": (
        extra_pair("last_hidden_state", "pooling/Mul"),
        "extra/Q",
        "behind last_hidden_state",
    ),
    "dense head": (head_weight, "extra/DQ", "behind last_hidden_state"),
    "float activation": (float_activation, f"{QUERY}/MatMul", "every expected layer is int8"),
    "float weight of one": (float_weight, f"{QUERY}/MatMul", "every expected layer is int8"),
    "one too many": (
        extra_pair("encoder.layer.1.intermediate/Gelu_output", f"{FLOAT_LAYER}/MatMul"),
        f"{FLOAT_LAYER}/MatMul",
        "only the expected layers",
    ),
    "another activation": (
        another_activation,
        "encoder.layer.1.intermediate.dense/MatMul",
        "its own activation",
    ),
    "Q alone": (quantizer_alone, "extra/Q", "come in pairs"),
    "DQ alone": (dequantizer_alone, DQ, "come in pairs"),
    "unread DQ": (unread_dequantizer, DQ, "come in pairs"),
    "layer gone": (layer_gone, f"{FLOAT_LAYER}/MatMul", "still there"),
}


def refusal(model: onnx.ModelProto, layers, *, symmetric: bool = False) -> CompileError:
    with pytest.raises(CompileError) as caught:
        validate(model, layers, symmetric=symmetric)
    return caught.value


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_refused_by_name(layers, name):
    plant, node, rule = FAULTS[name]
    model = valid()
    plant(model)
    error = refusal(model, layers)
    assert error.what.startswith(f"{node!r} breaks the rule: "), error
    assert rule in error.what
    assert error.why
    assert error.hint


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("product", f"output of the product '{QUERY}/MatMul' is read by '{QUERY}/Add'"),
        ("after bias", f"the tensor after the bias '{QUERY}/Add'"),
        ("softmax", f"'{SELF}/Softmax' (Softmax) is read by '{SELF}/MatMul_1'"),
        ("residual sum", "the residual 'encoder.layer.0.attention.output/Add'"),
        ("residual", "is read by 'encoder.layer.0.attention.output/Add' (Add)"),
        ("attention output", f"output of the product '{ATTENTION}'"),
    ],
)
def test_misplaced_pairs_are_described(layers, name, words):
    model = valid()
    FAULTS[name][0](model)
    assert words in refusal(model, layers).why


SYMMETRIC_FAULTS = {
    "zero point": (
        store(f"{HIDDEN}_zero_point", 3, np.int8),
        Q,
        "zero point is that of a symmetric tensor",
    ),
    "unsigned": (store(f"{HIDDEN}_zero_point", 0, np.uint8), Q, "signed where the scheme"),
    "unsigned weight": (
        lambda model: (
            put(model, f"{QUERY}.weight_zero_point", np.full(32, 128, np.uint8)),
            put(model, f"{QUERY}.weight_quantized", np.ones((32, 32), np.uint8)),
        ),
        W_DQ,
        "signed where the scheme",
    ),
}


@pytest.mark.parametrize("name", SYMMETRIC_FAULTS)
def test_what_a_symmetric_scheme_forbids(layers, name):
    plant, node, rule = SYMMETRIC_FAULTS[name]
    model = valid("S8S8", True)
    validate(model, layers, symmetric=True)
    plant(model)
    error = refusal(model, layers, symmetric=True)
    assert error.what.startswith(f"{node!r} ")
    assert rule in error.what


@pytest.mark.parametrize("integers", ["U8S8", "S8S8", "U8U8"])
def test_asymmetric_schemes_are_not_symmetric(layers, integers):
    error = refusal(valid(integers), layers, symmetric=True)
    assert "symmetric" in error.what


def test_two_ranges_on_one_tensor_are_two_pairs(layers):
    model = valid()
    put(model, "other_scale", np.array(0.03, np.float32))
    put(model, "other_zero_point", np.array(9, np.uint8))
    rewire(model, f"{KEY}/MatMul", f"{HIDDEN}_dequantized", HIDDEN)
    pair(model, HIDDEN, f"{KEY}/MatMul", "other")
    validate(model, layers)
