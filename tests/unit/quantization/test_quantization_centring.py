"""Outputs of LayerNorms are moved, and the graph computes the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from targets.quantization.centring import (
    Centre,
    NormSample,
    centre_table,
    choose_centres,
    middle_of,
    movable_norms,
    shift_norms,
)
from targets.quantization.graph import to_array
from targets.quantization.integers import activation_parameters
from targets.quantization.layers import read_layers
from targets.quantization.prepare import Method, Preparation, smoothed_range
from targets.quantization.smoothing import expected_error
from targets.quantization.statistics import StreamingStatistics
from targets.quantization.table import CalibrationTable

WIDTH, INNER = 8, 24
NORM, UP, DOWN = "n", "layer.0.intermediate.dense", "layer.0.output.dense"
HASHES = {"graph_sha256": "a" * 64, "tokenizer_sha256": "b" * 64, "corpus_sha256": "c" * 64}
OFFSET = np.linspace(-6, 6, WIDTH)
"""Where the channels lie; they spread by one."""


def block(
    *,
    up_bias: bool = True,
    norm_bias: bool = True,
    down_bias: bool = True,
    residual: bool = True,
    also_read: bool = False,
    is_output: bool = False,
    bias_twice: bool = False,
    turned: bool = False,
) -> onnx.ModelProto:
    """n = LayerNorm(x); n + down(relu(up(n)))."""
    rng = np.random.default_rng(0)
    stored = {
        "n.w": np.ones(WIDTH),
        "n.b": OFFSET,
        "up.w": rng.normal(size=(INNER, WIDTH) if turned else (WIDTH, INNER)),
        "up.b": rng.normal(size=INNER),
        "down.w": rng.normal(size=(INNER, WIDTH)),
        "down.b": rng.normal(size=WIDTH),
    }
    norm = ["x", "n.w", *(["n.b"] if norm_bias else [])]
    nodes = [helper.make_node("LayerNormalization", norm, ["n"], name="norm/LayerNorm")]
    if turned:
        inputs = ["n", "up.w", "up.b"]
        nodes.append(helper.make_node("Gemm", inputs, ["u"], name=f"{UP}/Gemm", transB=1))
    else:
        nodes.append(helper.make_node("MatMul", ["n", "up.w"], ["p"], name=f"{UP}/MatMul"))
        bias = "up.b" if up_bias else "p"
        nodes.append(helper.make_node("Add", ["p", bias], ["u"], name=f"{UP}/Add"))
    nodes.append(helper.make_node("Relu", ["u"], ["h"], name="layer.0.act/Relu"))
    nodes.append(helper.make_node("MatMul", ["h", "down.w"], ["q"], name=f"{DOWN}/MatMul"))
    bias = "down.b" if down_bias else "q"
    nodes.append(helper.make_node("Add", ["q", bias], ["d"], name=f"{DOWN}/Add"))
    other = "n" if residual else "x"
    nodes.append(helper.make_node("Add", ["d", other], ["last_hidden_state"], name="sum/Add"))
    rank = 2 if turned else 3
    shape = ["tokens", WIDTH] if turned else ["batch", "tokens", WIDTH]
    outputs = [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, shape)]
    if also_read:
        nodes.append(helper.make_node("ReduceSum", ["n"], ["s"], name="other/ReduceSum"))
        outputs.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, None))
    if is_output:
        outputs.append(helper.make_tensor_value_info("n", TensorProto.FLOAT, [None] * rank))
    if bias_twice:
        nodes.append(helper.make_node("Relu", ["up.b"], ["t"], name="other/Relu"))
        outputs.append(helper.make_tensor_value_info("t", TensorProto.FLOAT, None))
    graph = helper.make_graph(
        nodes,
        "block",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        outputs,
        [numpy_helper.from_array(v.astype(np.float32), n) for n, v in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, rows: np.ndarray, output: str = "last_hidden_state") -> np.ndarray:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    if output not in {one.name for one in changed.graph.output}:
        changed.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(
        changed.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run([output], {"x": rows})[0]


def rows_of(*, flat: bool = False) -> np.ndarray:
    rows = np.random.default_rng(1).normal(size=(4, 50, WIDTH)).astype(np.float32)
    return rows.reshape(-1, WIDTH) if flat else rows


def moved(model: onnx.ModelProto, shift: np.ndarray | None = None) -> onnx.ModelProto:
    shift = np.arange(1, WIDTH + 1, dtype=np.float32) if shift is None else shift
    return shift_norms(model, read_layers(model), {NORM: shift})


def statistics_of(values: np.ndarray) -> StreamingStatistics:
    streaming = StreamingStatistics(values.shape[-1], gram=True)
    streaming.add(values.reshape(-1, values.shape[-1]))
    return streaming


def table_of(model: onnx.ModelProto) -> CalibrationTable:
    tensors = {
        layer.activation: statistics_of(run(model, rows_of(), layer.activation)).freeze()
        for layer in read_layers(model).linears
    }
    return CalibrationTable(tensors=tensors, num_texts=4, num_tokens=200, **HASHES)


def sample_of(model: onnx.ModelProto, table: CalibrationTable) -> NormSample:
    values = run(model, rows_of(), NORM)
    middle = middle_of(table.tensors[NORM])
    centred = StreamingStatistics(None)
    centred.add(values - middle)
    return NormSample(
        middle=middle, first=values[0, 0].astype(np.float64), centred=centred.freeze()
    )


def centre_of(
    model: onnx.ModelProto, *, symmetric: bool = False
) -> tuple[Centre, CalibrationTable]:
    table = table_of(model)
    centres = choose_centres(
        model,
        read_layers(model),
        table,
        {NORM: sample_of(model, table)},
        integers="S8S8" if symmetric else "U8S8",
        symmetric=symmetric,
    )
    return centres[NORM], centre_table(table, centres)


# ------------------------------------------------------------------------------- the graph


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("residual", [True, False])
def test_a_moved_graph_computes_the_same(turned: bool, residual: bool):
    model = block(turned=turned, residual=residual)
    changed = moved(model)
    rows = rows_of(flat=turned)
    shift = np.arange(1, WIDTH + 1)
    np.testing.assert_allclose(run(changed, rows, "n"), run(model, rows, "n") - shift, atol=1e-5)
    np.testing.assert_allclose(run(changed, rows), run(model, rows), atol=1e-4)


def test_without_what_repays_the_residual_it_would_not():
    model, rows = block(), rows_of()
    changed = moved(model)
    bias = next(one for one in changed.graph.initializer if one.name == "down.b")
    bias.CopyFrom(next(one for one in model.graph.initializer if one.name == "down.b"))
    assert np.abs(run(changed, rows) - run(model, rows)).max() > 0.9


def test_the_graph_that_was_given_is_not_changed():
    model = block()
    before = model.SerializeToString(deterministic=True)
    moved(model)
    assert model.SerializeToString(deterministic=True) == before


def test_only_stored_vectors_change():
    model = block()
    changed = moved(model)
    assert list(changed.graph.node) == list(model.graph.node)
    different = {
        one.name
        for one, other in zip(model.graph.initializer, changed.graph.initializer, strict=True)
        if not np.array_equal(to_array(one), to_array(other))
    }
    assert different == {"n.b", "up.b", "down.b"}


@pytest.mark.parametrize(
    "kind", ["up_bias", "norm_bias", "down_bias", "also_read", "is_output", "bias_twice"]
)
def test_what_would_need_an_operation_stays_where_it_is(kind: str):
    model = block(**{kind: kind not in ("up_bias", "norm_bias", "down_bias")})
    assert movable_norms(model, read_layers(model)) == ()
    assert moved(model) is model


def test_a_block_without_a_bias_is_moved_where_no_residual_asks_for_one():
    model = block(down_bias=False, residual=False)
    (norm,) = movable_norms(model, read_layers(model))
    assert norm.repays is None
    (norm,) = movable_norms(block(), read_layers(block()))
    assert norm.repays is not None and norm.repays.path == DOWN


# -------------------------------------------------------------------------- what is chosen


def test_statistics_of_the_moved_tensor_are_those_of_its_values():
    model = block()
    _centre, table = centre_of(model)
    wanted = statistics_of(
        run(model, rows_of(), NORM) - middle_of(table_of(model).tensors[NORM])
    ).freeze()
    found = table.tensors[NORM]
    for field in ("channel_absmax", "channel_minimum", "channel_maximum", "channel_mean", "gram"):
        np.testing.assert_allclose(getattr(found, field), getattr(wanted, field), atol=1e-4)
    assert found.minimum == pytest.approx(wanted.minimum, abs=1e-5)
    assert found.maximum == pytest.approx(wanted.maximum, abs=1e-5)
    assert table.tensors["h"].maximum == table_of(model).tensors["h"].maximum


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_first_token_lies_on_integers(symmetric: bool):
    model = block()
    centre, table = centre_of(model, symmetric=symmetric)
    chosen = smoothed_range(table.tensors[NORM], centre.divisor, symmetric=symmetric)
    scale = float(
        activation_parameters(
            chosen,
            "S8S8" if symmetric else "U8S8",
            symmetric=symmetric,
            dtype=np.dtype(np.float32),
        ).scale
    )
    values = run(model, rows_of(), NORM)
    first, second = (
        (values[0, token] - centre.shift) / (centre.divisor * scale) for token in (0, 1)
    )
    np.testing.assert_allclose(first, np.rint(first), atol=1e-3)
    assert np.abs(second - np.rint(second)).max() > 0.2
    away = (centre.shift - middle_of(table_of(model).tensors[NORM])) / (centre.divisor * scale)
    assert np.abs(away).max() <= 0.5 + 1e-4


def test_a_plan_keeps_the_step_that_the_shift_was_chosen_for():
    model = block()
    centre, table = centre_of(model)
    layers = read_layers(model)
    changed = shift_norms(model, layers, {NORM: centre.shift})
    plans = Preparation(changed, layers, table, {NORM: centre.divisor}).plans(Method())
    plan = next(one for one in plans if one.layer.activation == NORM)
    np.testing.assert_array_equal(plan.divisor, centre.divisor)
    assert plan.activation == smoothed_range(table.tensors[NORM], centre.divisor, symmetric=False)


def test_less_error_is_expected_of_the_moved_tensor():
    model = block()
    centre, table = centre_of(model)
    weight = np.ascontiguousarray(
        to_array(next(one for one in model.graph.initializer if one.name == "up.w")).T
    )
    plain = Preparation(model, read_layers(model), table_of(model)).plans(Method())
    divisor = next(one for one in plain if one.layer.activation == NORM).divisor
    before = expected_error(table_of(model).tensors[NORM], weight, divisor, symmetric=False)
    after = expected_error(table.tensors[NORM], weight, centre.divisor, symmetric=False)
    assert after.total < 0.5 * before.total


def test_a_tensor_without_a_sample_or_channels_stays_where_it_is():
    model = block()
    table, layers = table_of(model), read_layers(model)
    scheme = {"integers": "U8S8", "symmetric": False}
    assert choose_centres(model, layers, table, {}, **scheme) == {}
    bare = replace(
        table.tensors[NORM],
        channel_absmax=None,
        channel_minimum=None,
        channel_maximum=None,
        channel_mean=None,
    )
    assert middle_of(bare) is None


def test_a_tensor_of_zeros_stays_at_zero():
    model = block()
    for one in model.graph.initializer:
        if one.name in ("n.w", "n.b"):
            one.CopyFrom(numpy_helper.from_array(np.zeros(WIDTH, np.float32), one.name))
    centre, _ = centre_of(model)
    np.testing.assert_array_equal(centre.shift, np.zeros(WIDTH))
