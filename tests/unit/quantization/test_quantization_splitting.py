"""Channels inside a feed-forward block are repeated, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from targets.quantization.layers import read_layers
from targets.quantization.smoothing import expected_error, smooth
from targets.quantization.splitting import (
    choose_copies,
    repeat_statistics,
    split_channels,
    split_table,
)
from targets.quantization.statistics import StreamingStatistics
from targets.quantization.table import CalibrationTable

WIDTH, INNER = 8, 256
DOWN = "layer.0.output.dense"
HASHES = {"graph_sha256": "a" * 64, "tokenizer_sha256": "b" * 64, "corpus_sha256": "c" * 64}


def block(
    *, function: str = "Relu", also_read: bool = False, inner: int = INNER, plant: bool = True
) -> onnx.ModelProto:
    """x + down(function(up(x))), with one inner channel far louder and heavier than the others."""
    rng = np.random.default_rng(0)
    up, down = rng.normal(size=(WIDTH, inner)), rng.choice([-1.0, 1.0], size=(inner, WIDTH))
    bias = rng.normal(size=inner)
    if plant:
        up[:, 3] *= 60
        down[3] *= 30
    else:  # every channel is as loud as the others
        loudest = (rows_of().reshape(-1, WIDTH) @ up + bias).max(axis=0)
        up, bias = up / loudest, bias / loudest
    stored = {
        "up.w": up,
        "up.b": bias,
        "down.w": down,
        "down.b": rng.normal(size=WIDTH),
    }
    add = "layer.0.intermediate.dense"
    nodes = [
        helper.make_node("MatMul", ["x", "up.w"], ["p"], name=f"{add}/MatMul"),
        helper.make_node("Add", ["p", "up.b"], ["u"], name=f"{add}/Add"),
        helper.make_node(function, ["u"], ["h"], name="layer.0.act/F"),
        helper.make_node("MatMul", ["h", "down.w"], ["q"], name=f"{DOWN}/MatMul"),
        helper.make_node("Add", ["q", "down.b"], ["d"], name=f"{DOWN}/Add"),
        helper.make_node("Add", ["d", "x"], ["last_hidden_state"], name="layer.0.output/Add"),
    ]
    outputs = [
        helper.make_tensor_value_info(
            "last_hidden_state", TensorProto.FLOAT, ["batch", "tokens", WIDTH]
        )
    ]
    if also_read:
        nodes.append(helper.make_node("ReduceSum", ["h"], ["sum"], name="other/ReduceSum"))
        outputs.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, None))
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "tokens", WIDTH])],
        outputs,
        [numpy_helper.from_array(v.astype(np.float32), n) for n, v in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, rows: np.ndarray, output: str = "last_hidden_state") -> np.ndarray:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    changed.graph.output.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(
        changed.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run([output], {"x": rows})[0]


def rows_of(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(4, 50, WIDTH)).astype(np.float32)


def table_of(model: onnx.ModelProto) -> CalibrationTable:
    tensors = {}
    for layer in read_layers(model).linears:
        values = rows_of() if layer.activation == "x" else run(model, rows_of(), layer.activation)
        streaming = StreamingStatistics(values.shape[-1], gram=True)
        streaming.add(values.reshape(-1, values.shape[-1]))
        tensors[layer.activation] = streaming.freeze()
    return CalibrationTable(tensors=tensors, num_texts=4, num_tokens=200, **HASHES)


def split(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    layers = read_layers(model)
    copies = choose_copies(model, layers, table_of(model), symmetric=False)
    return split_channels(model, layers, copies), copies


def test_the_loud_and_heavy_channel_is_had_more_than_once():
    _, copies = split(block())
    assert list(copies) == [DOWN]
    assert int(np.argmax(copies[DOWN])) == 3
    assert copies[DOWN].sum() == INNER + 16


def test_nothing_is_split_where_it_gains_nothing():
    model = block(plant=False)
    same, copies = split(model)
    assert copies == {}
    assert same is model


def test_a_narrow_block_is_left_as_it_is():
    """Sixteen channels more would be a fourth of it."""
    assert split(block(inner=64))[1] == {}
    assert split(block(inner=256))[1] != {}


@pytest.mark.parametrize("function", ["Relu", "Gelu", "Tanh"])
def test_the_graph_computes_the_same(function):
    model = block(function=function)
    wide, copies = split(model)
    assert copies
    before, after = run(model, rows_of(2)), run(wide, rows_of(2))
    assert np.allclose(before, after, rtol=1e-5, atol=1e-3)
    onnx.checker.check_model(wide, full_check=True)
    assert read_layers(wide) == read_layers(model)


def test_a_wrong_share_would_show():
    """The twin: copies that do not add up to the original change the result."""
    model = block()
    wide, copies = split(model)
    tensor = next(one for one in wide.graph.initializer if one.name == "down.w")
    values = numpy_helper.to_array(tensor) * np.repeat(copies[DOWN], copies[DOWN])[:, None]
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), "down.w"))
    assert not np.allclose(run(model, rows_of(2)), run(wide, rows_of(2)), rtol=1e-2, atol=1e-1)


def test_a_channel_that_somebody_else_reads_is_left_alone():
    _, copies = split(block(also_read=True))
    assert copies == {}


def test_a_gate_is_no_element_wise_function():
    """Softmax looks at all channels, so repeating one would change the others."""
    _, copies = split(block(function="Softmax"))
    assert copies == {}


def test_statistics_are_those_of_the_wide_graph():
    model = block()
    wide, copies = split(model)
    told = split_table(table_of(model), read_layers(model), copies).tensors["h"]
    seen = table_of(wide).tensors["h"]
    assert np.array_equal(told.channel_maximum, seen.channel_maximum)
    assert np.array_equal(told.channel_minimum, seen.channel_minimum)
    assert np.allclose(told.channel_mean, seen.channel_mean)
    assert np.allclose(told.gram, seen.gram, rtol=1e-4, atol=1e-4)


def test_the_expected_error_falls():
    model = block()
    wide, copies = split(model)
    errors = []
    for graph, statistics in (
        (model, table_of(model).tensors["h"]),
        (wide, split_table(table_of(model), read_layers(model), copies).tensors["h"]),
    ):
        weight = next(
            numpy_helper.to_array(one).T for one in graph.graph.initializer if one.name == "down.w"
        )
        divisor = smooth(statistics, weight, symmetric=False)
        errors.append(expected_error(statistics, weight, divisor, symmetric=False).total)
    assert errors[1] < 0.5 * errors[0]


def test_repeating_nothing_changes_nothing():
    statistics = table_of(block()).tensors["h"]
    same = repeat_statistics(statistics, np.ones(INNER, np.int64))
    assert np.array_equal(same.gram, statistics.gram)
    assert replace(same, histogram=statistics.histogram).channel_mean is not None
