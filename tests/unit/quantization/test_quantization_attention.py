"""Attention in int8: found by structure, written whole, each rule broken by a planted fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest
from contract.tiny_graph import HEADS, HIDDEN, LINEAR_PATHS
from onnx import helper
from unit.quantization.qdq_cases import by_name, check, encoder, of_type, plan_for, stored

from targets.errors import CalibrationError, CompileError
from targets.quantization.attention import (
    FOLDED_MARGIN,
    AttentionPlan,
    plan_attention,
    read_attention,
)
from targets.quantization.calibrators import Range
from targets.quantization.layers import read_layers
from targets.quantization.plans_file import Prepared, load_prepared, save_prepared
from targets.quantization.qdq import insert_qdq
from targets.quantization.statistics import StreamingStatistics
from targets.quantization.table import CalibrationTable
from targets.quantization.validate import validate_qdq

SELF = "encoder.layer.0.attention.self"
SCORES, MIX = f"{SELF}/MatMul", f"{SELF}/MatMul_1"
OUT = "encoder.layer.0.attention.output.dense"
QUERY, KEY, VALUE = (f"{SELF}/Transpose{n}_output" for n in ("", "_1", "_2"))
SOFTMAX = f"{SELF}/Softmax_output"
ABSMAX = np.linspace(0.5, 2.0, HIDDEN, dtype=np.float32)
NARROW = Range(low=-2.0, high=2.0)
Fault = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    return encoder()


def attention_plans(model: onnx.ModelProto) -> tuple[AttentionPlan, ...]:
    return tuple(
        AttentionPlan(block=one, query=NARROW, key=NARROW, value=NARROW, value_absmax=ABSMAX)
        for one in read_attention(model, read_layers(model))
    )


def quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    plan = plan_for(model, integers="S8S8", symmetric=True)
    return insert_qdq(model, replace(plan, attention=attention_plans(model)))


def validate(result: onnx.ModelProto, model: onnx.ModelProto, count: int = 2) -> None:
    layers = read_layers(model)
    blocks = read_attention(model, layers)[:count]
    validate_qdq(result, layers, LINEAR_PATHS, symmetric=True, attention=blocks)


# ------------------------------------------------------------------------------- structure


def test_each_attention_is_found_with_its_operands(model):
    one, two = read_attention(model, read_layers(model))
    assert one.operands == (
        (SCORES, 0, QUERY),
        (SCORES, 1, KEY),
        (MIX, 0, SOFTMAX),
        (MIX, 1, VALUE),
    )
    assert (one.path, one.num_heads, one.head_size) == (SELF, HEADS, HIDDEN // HEADS)
    assert two.path == SELF.replace("0", "1")


def test_weights_need_not_be_in_memory(model):
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for tensor in bare.graph.initializer:
        if tensor.name.endswith(".weight"):
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value="elsewhere")
    assert read_attention(bare, read_layers(bare)) == read_attention(model, read_layers(model))


def test_an_attention_without_softmax_is_refused(model):
    other = onnx.ModelProto()
    other.CopyFrom(model)
    by_name(other)[f"{SELF}/Softmax"].op_type = "Sigmoid"
    del by_name(other)[f"{SELF}/Softmax"].attribute[:]
    with pytest.raises(CompileError, match=f"'{SCORES}' cannot be quantized"):
        read_attention(other, read_layers(other))


def test_a_graph_of_fused_operators_is_refused(model):
    layers = replace(read_layers(model), attention=(f"{SELF}/Softmax",))
    with pytest.raises(CompileError, match="Softmax is no product"):
        read_attention(model, layers)


# ------------------------------------------------------------------------------ what is written


def test_all_four_operands_get_a_pair_and_softmax_its_fixed_scale(model):
    result = quantized(model)
    check(result)
    validate(result, model)
    makers = {out: node for node in result.graph.node for out in node.output}
    for name, tensor, scale in (
        (SCORES, QUERY, 2 / 127),
        (SCORES, KEY, 2 / 127),
        (MIX, SOFTMAX, 1 / 127),
        (MIX, VALUE, 2 / 127),
    ):
        pairs = [makers[read] for read in by_name(result)[name].input]
        (pair,) = (one for one in pairs if makers[one.input[0]].input[0] == tensor)
        assert stored(result, pair.input[1]) == np.float32(scale)
        assert stored(result, pair.input[2]) == np.int8(0)
    before = len(of_type(insert_qdq(model, plan_for(model)), "QuantizeLinear"))
    assert len(of_type(result, "QuantizeLinear")) == before + 8


def test_a_value_that_is_smoothed_away_gets_the_range_of_what_is_left(model):
    divisor = np.linspace(0.25, 4.0, HIDDEN, dtype=np.float32)
    plan = plan_for(model, {OUT}, integers="S8S8", symmetric=True, divisor=divisor)
    result = insert_qdq(model, replace(plan, attention=attention_plans(model)))
    wanted = FOLDED_MARGIN * float((ABSMAX / divisor).max()) / 127
    assert stored(result, f"{VALUE}_scale") == pytest.approx(wanted, rel=1e-6)
    untouched = VALUE.replace("0", "1", 1)
    assert stored(result, f"{untouched}_scale") == np.float32(2 / 127)


def test_a_plan_of_another_graph_is_refused(model):
    plan, other = attention_plans(model)
    wrong = replace(plan, block=replace(plan.block, query=other.block.query))
    with pytest.raises(CompileError, match=f"attention '{SELF}' is not in the graph"):
        insert_qdq(model, replace(plan_for(model), attention=(wrong,)))


# ------------------------------------------------------------------------------------ faults


def through(product: str, place: int) -> Fault:
    """Let a product read its float operand."""

    def plant(result: onnx.ModelProto) -> None:
        makers = {out: node for node in result.graph.node for out in node.output}
        node = by_name(result)[product]
        pair = makers[node.input[place]]
        quantizer = makers[pair.input[0]]
        node.input[place] = quantizer.input[0]
        result.graph.node.remove(pair)
        result.graph.node.remove(quantizer)

    return plant


def scale(name: str, value: float) -> Fault:
    def plant(result: onnx.ModelProto) -> None:
        tensor = next(one for one in result.graph.initializer if one.name == name)
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(value, np.float32), name))

    return plant


def behind_the_product(result: onnx.ModelProto) -> None:
    """Quantize the attention's result where it leaves the second product."""
    place = next(i for i, node in enumerate(result.graph.node) if node.name == MIX)
    reader = result.graph.node[place + 1]
    rest = [f"{VALUE}_scale", f"{VALUE}_zero_point"]
    made = result.graph.node[place].output[0]
    result.graph.node.insert(
        place + 1, helper.make_node("DequantizeLinear", ["xq", *rest], ["xdq"], name="extra/DQ")
    )
    result.graph.node.insert(
        place + 1, helper.make_node("QuantizeLinear", [made, *rest], ["xq"], name="extra/Q")
    )
    for number, name in enumerate(reader.input):
        if name == made:
            reader.input[number] = "xdq"


FAULTS = {
    "query": (through(SCORES, 0), "all four operands .* int8", f"the query of {SELF} is float"),
    "key": (through(SCORES, 1), "all four operands .* int8", f"the key of {SELF} is float"),
    "softmax": (through(MIX, 0), "all four operands .* int8", f"the softmax of {SELF} is float"),
    "value": (through(MIX, 1), "all four operands .* int8", f"the value of {SELF} is float"),
    "softmax scale": (scale(f"{SOFTMAX}_scale", 0.9 / 127), "softmax has the scale 1/127", "0.00"),
    "zero scale": (scale(f"{QUERY}_scale", 0.0), "positive and finite", "0.0"),
    "result": (behind_the_product, "Q/DQ only on", f"the output of the product '{MIX}'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found_by_name(model, fault):
    plant, rule, why = FAULTS[fault]
    result = quantized(model)
    plant(result)
    with pytest.raises(CompileError, match=rule) as caught:
        validate(result, model)
    assert why in caught.value.why


def test_another_s_query_is_found(model):
    result = quantized(model)
    plant_from = by_name(result)[SCORES.replace("0", "1")]
    plant_from.input[0] = by_name(result)[SCORES].input[0]
    with pytest.raises(CompileError, match="breaks the rule"):
        validate(result, model)


def test_attention_that_should_stay_in_float_is_found(model):
    with pytest.raises(CompileError, match="Q/DQ only on"):
        validate(quantized(model), model, count=1)


def test_attention_that_is_not_there_is_found(model):
    result = insert_qdq(model, plan_for(model, integers="S8S8", symmetric=True))
    validate(result, model, count=0)
    with pytest.raises(CompileError, match="all four operands"):
        validate(result, model)


# ----------------------------------------------------------------------------------- plans


def table_of(model: onnx.ModelProto, *, without: str = "") -> CalibrationTable:
    rng = np.random.default_rng(0)
    tensors = {}
    for block in read_attention(model, read_layers(model)):
        for name in (block.query, block.key, block.value):
            one = StreamingStatistics(HIDDEN)
            one.add(rng.normal(size=(50, HIDDEN)).astype(np.float32))
            tensors[name] = one.freeze()
    tensors.pop(without, None)
    return CalibrationTable(
        tensors=tensors,
        graph_sha256="g",
        tokenizer_sha256="t",
        corpus_sha256="c",
        num_texts=1,
        num_tokens=50,
    )


def test_ranges_are_symmetric_and_what_the_calibrator_says(model):
    blocks, table = read_attention(model, read_layers(model)), table_of(model)
    widest, tighter = (plan_attention(blocks, table, name)[0] for name in ("minmax", "mse"))
    assert widest.query == Range(low=-table.tensors[QUERY].absmax, high=table.tensors[QUERY].absmax)
    assert tighter.key.high < widest.key.high
    assert tighter.key.low == -tighter.key.high


def test_a_table_without_attention_is_refused(model):
    blocks = read_attention(model, read_layers(model))
    with pytest.raises(CalibrationError, match="no statistics of") as caught:
        plan_attention(blocks, table_of(model, without=KEY), "minmax")
    assert KEY in caught.value.what


def test_plans_travel_in_a_file(model, tmp_path):
    layers = plan_for(model).layers
    prepared = Prepared(plans=layers, attention=attention_plans(model))
    save_prepared(prepared, tmp_path / "plans.npz")
    found = load_prepared(tmp_path / "plans.npz")
    for one, other in zip(found.attention, prepared.attention, strict=True):
        assert (one.block, one.ranges) == (other.block, other.ranges)
        np.testing.assert_array_equal(one.value_absmax, other.value_absmax)
    save_prepared(Prepared(plans=layers), tmp_path / "bare.npz")
    assert load_prepared(tmp_path / "bare.npz").attention == ()
