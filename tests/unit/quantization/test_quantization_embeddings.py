"""Large embedding tables in fewer bytes: same rows, small file, no table made float at run time."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from unit.quantization.qdq_cases import (
    FAN_IN,
    by_name,
    check,
    graph,
    lookup,
    maker,
    node,
    of_type,
    plan_for,
    run_reference,
    stored,
)

from targets.errors import CompileError
from targets.quantization.embeddings_qdq import LARGE_TABLE
from targets.quantization.qdq import QdqPlan, insert_qdq

IDS = np.array([[0, 1, 1499, 700], [3, 3, 0, 1024]])


def with_embeddings(model: onnx.ModelProto, embeddings: str) -> onnx.ModelProto:
    return insert_qdq(model, QdqPlan(layers=(), embeddings=embeddings))


def rows(model: onnx.ModelProto) -> np.ndarray:
    """The rows that the graph looks up."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.insert(
        0, helper.make_tensor_value_info("embedded", TensorProto.FLOAT, [None] * 3)
    )
    return run_reference(shown, input_ids=IDS)


def test_int8_rows_are_within_half_a_step_of_their_own_row():
    result = with_embeddings(lookup(), "int8")
    check(result)
    table = stored(lookup(), "table")
    step = np.abs(table).max(axis=1, keepdims=True) / 127
    error = np.abs(rows(result) - table[IDS])
    assert np.all(error <= 0.5001 * step[IDS])
    assert error.max() > 0
    assert not rows(result)[0, 0].any()


def test_float16_rows_are_the_nearest_halves():
    result = with_embeddings(lookup(), "float16")
    check(result)
    halves = stored(lookup(), "table").astype(np.float16)
    np.testing.assert_array_equal(rows(result), halves[IDS].astype(np.float32))


@pytest.mark.parametrize(("embeddings", "share"), [("int8", 0.25 + 1 / FAN_IN), ("float16", 0.5)])
def test_the_float_table_is_gone(embeddings, share):
    before, after = (
        sum(len(t.raw_data) for t in one.graph.initializer)
        for one in (lookup(), with_embeddings(lookup(), embeddings))
    )
    assert after < before * share * 1.02


def test_only_looked_up_rows_become_float():
    """A DequantizeLinear in front of the lookup would make the whole table float each time."""
    result = with_embeddings(lookup(), "int8")
    assert not of_type(result, "DequantizeLinear")
    nodes = by_name(result)
    assert list(nodes["words/Gather"].input) == ["table_quantized", "input_ids"]
    assert list(nodes["words/Gather_1"].input) == ["table_scale", "input_ids"]
    assert nodes["words/Mul"].output[0] == "embedded"
    assert nodes["words/Cast"].input[0] == nodes["words/Gather"].output[0]


def test_float32_changes_nothing():
    assert with_embeddings(lookup(), "float32") == lookup()


@pytest.mark.parametrize("embeddings", ["int8", "float16"])
def test_small_tables_stay_in_float(embeddings):
    small = lookup(LARGE_TABLE - 1)
    assert with_embeddings(small, embeddings) == small
    assert with_embeddings(lookup(LARGE_TABLE), embeddings) != lookup(LARGE_TABLE)


def test_the_table_and_the_layers_together():
    result = insert_qdq(lookup(), plan_for(lookup(), embeddings="int8"))
    check(result)
    assert {t.name for t in result.graph.initializer} == {
        *(f"{name}_{kind}" for name in ("embedded", "W") for kind in ("scale", "zero_point")),
        *("W_quantized", "b", "table_quantized", "table_scale"),
    }


def test_a_table_with_two_lookups_is_stored_once():
    model = lookup()
    model.graph.node.insert(1, node("Gather", "table input_ids", "again", "types", axis=0))
    model.graph.node.insert(2, node("Add", "embedded again", "sum", "types"))
    model.graph.node[3].input[0] = "sum"
    result = with_embeddings(model, "int8")
    check(result)
    assert [t.name for t in result.graph.initializer if t.data_type == TensorProto.INT8] == [
        "table_quantized"
    ]
    assert [len(of_type(result, kind)) for kind in ("Gather", "Mul", "Cast")] == [4, 2, 2]
    np.testing.assert_allclose(
        run_reference(result, input_ids=IDS), run_reference(model, input_ids=IDS), rtol=0.2, atol=1
    )


def tied() -> onnx.ModelProto:
    """The table is also, turned, the matrix of the last layer."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(1500, FAN_IN)).astype(np.float32)
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])
    nodes = [
        node("Gather", "table input_ids", "embedded", "words", axis=0),
        node("Transpose", "table", "turned", "decoder", perm=[1, 0]),
        node("MatMul", "embedded turned", "last_hidden_state", "decoder"),
    ]
    return graph(nodes, {"table": table}, inputs=(ids,), rank=3)


@pytest.mark.parametrize("embeddings", ["int8", "float16"])
def test_a_table_tied_to_a_float_layer_stays_as_it_is(embeddings):
    assert with_embeddings(tied(), embeddings) == tied()


@pytest.mark.parametrize("embeddings", ["int8", "float16"])
def test_a_table_tied_to_an_int8_layer_is_stored_for_each(embeddings):
    result = insert_qdq(tied(), plan_for(tied(), embeddings=embeddings))
    check(result)
    assert "table" not in {tensor.name for tensor in result.graph.initializer}
    weight = maker(result, maker(result, "last_hidden_state").input[1])
    assert maker(result, weight.input[0]).attribute[0].i == 0
    got, want = (run_reference(one, input_ids=IDS) for one in (result, tied()))
    assert np.corrcoef(got.ravel(), want.ravel())[0, 1] > 0.999


def test_a_tied_layer_in_int8_leaves_a_float_table_alone():
    result = insert_qdq(tied(), plan_for(tied()))
    check(result)
    np.testing.assert_array_equal(stored(result, "table"), stored(tied(), "table"))


def test_a_float16_graph_looks_up_float16_rows():
    model = lookup(dtype=np.float16, float_type=TensorProto.FLOAT16)
    result = with_embeddings(model, "int8")
    check(result)
    assert stored(result, "table_scale").dtype == np.float16
    assert with_embeddings(model, "float16") == model


@pytest.mark.parametrize(
    ("value", "embeddings", "message"),
    [(1e5, "float16", "fit into float16"), (np.inf, "int8", "finite"), (np.nan, "int8", "finite")],
)
def test_tables_that_cannot_be_stored_so_are_refused(value, embeddings, message):
    model = lookup()
    table = stored(model, "table").copy()
    table[5, 2] = value
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(table, "table"))
    with pytest.raises(CompileError, match=message):
        with_embeddings(model, embeddings)
