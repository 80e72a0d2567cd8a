"""Divisors go into the operation in front where that changes nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from contract.tiny_graph import HIDDEN, LINEAR_PATHS, make_tokens
from unit.quantization.qdq_cases import (
    FAN_IN,
    FAN_OUT,
    SCHEMES,
    by_name,
    check,
    encoder,
    graph,
    node,
    of_type,
    plan_for,
    run_reference,
    stored,
)

from targets.quantization.folding import fold_divisors
from targets.quantization.plan import QdqPlan
from targets.quantization.qdq import insert_qdq

OUT = "encoder.layer.0.attention.output.dense"
VALUE = "encoder.layer.0.attention.self.value"
RNG = np.random.default_rng(5)
DIVISOR = np.exp(RNG.normal(size=HIDDEN)).astype(np.float32)
NORM_DIVISOR = np.exp(RNG.normal(size=FAN_IN)).astype(np.float32)
X = RNG.normal(size=(5, FAN_IN)).astype(np.float32)


def smoothed(plan: QdqPlan, *paths: str, divisor: np.ndarray = DIVISOR) -> QdqPlan:
    """The plan with a divisor for the layers of those paths."""
    layers = (
        replace(one, divisor=divisor) if one.layer.path in paths else one for one in plan.layers
    )
    return replace(plan, layers=tuple(layers))


def run(model: onnx.ModelProto) -> np.ndarray:
    tokens = make_tokens(3)
    length = int(tokens.lengths.max())
    ids = np.zeros((3, length), np.int64)
    for row, text in enumerate(tokens):
        ids[row, : len(text)] = text
    mask = (ids != 0).astype(np.int64)
    return run_reference(
        model, input_ids=ids, attention_mask=mask, token_type_ids=np.zeros_like(ids)
    )


def undivided(model: onnx.ModelProto, divisor: np.ndarray) -> onnx.ModelProto:
    """The folded float graph with the division made up for in the layer behind."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.name == f"{OUT}.weight":
            values = stored(model, tensor.name) * divisor[:, None]
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return changed


# ------------------------------------------------------------------------- attention


def test_attention_s_output_is_divided_by_the_value_layer() -> None:
    model = encoder()
    folded, plan, paths = fold_divisors(model, smoothed(plan_for(model, {OUT}), OUT))
    assert paths == (OUT,)
    assert plan.layers[0].divisor is None
    for name in (f"{VALUE}.weight", f"{VALUE}.bias"):
        np.testing.assert_allclose(stored(folded, name) * DIVISOR, stored(model, name), rtol=1e-6)
    np.testing.assert_allclose(run(undivided(folded, DIVISOR)), run(model), atol=1e-5)
    wrong = undivided(folded, DIVISOR[::-1].copy())
    assert not np.allclose(run(wrong), run(model), atol=1e-2)


@pytest.mark.parametrize(("integers", "symmetric"), SCHEMES)
def test_the_value_layer_s_integers_stay(integers: str, symmetric: bool) -> None:
    model = encoder()
    plain = plan_for(model, {OUT, VALUE}, integers=integers, symmetric=symmetric)
    before, after = insert_qdq(model, plain), insert_qdq(model, smoothed(plain, OUT))
    check(after)
    assert not of_type(after, "Mul") or len(of_type(after, "Mul")) == len(of_type(before, "Mul"))
    name = f"{VALUE}.weight_quantized"
    np.testing.assert_array_equal(stored(before, name), stored(after, name))
    scale = f"{VALUE}.weight_scale"
    np.testing.assert_allclose(stored(after, scale) * DIVISOR, stored(before, scale), rtol=1e-6)


def test_a_planned_form_of_the_value_layer_is_divided_too() -> None:
    model = encoder()
    plain = plan_for(model, {OUT, VALUE})
    value = next(one for one in plain.layers if one.layer.path == VALUE)
    given = replace(
        value,
        weight=2 * stored(model, f"{VALUE}.weight"),
        weight_scale=np.full(HIDDEN, 0.02, np.float32),
        bias=np.ones(HIDDEN, np.float32),
    )
    plan = replace(plain, layers=tuple(given if x is value else x for x in plain.layers))
    _, folded, _ = fold_divisors(model, smoothed(plan, OUT))
    after = next(one for one in folded.layers if one.layer.path == VALUE)
    np.testing.assert_allclose(after.weight * DIVISOR, given.weight, rtol=1e-6)
    np.testing.assert_allclose(after.weight_scale * DIVISOR, given.weight_scale, rtol=1e-6)
    np.testing.assert_allclose(after.bias * DIVISOR, 1.0, rtol=1e-6)


def test_where_the_residual_or_a_function_lies_in_front_the_product_stays() -> None:
    model = encoder()
    plan = smoothed(plan_for(model), *(p for p in LINEAR_PATHS if p.endswith("output.dense")))
    narrow = [one for one in plan.layers if one.layer.ends_ffn]
    wide = np.ones(64, np.float32) * 2
    layers = tuple(replace(x, divisor=wide) if x in narrow else x for x in plan.layers)
    query = smoothed(replace(plan, layers=layers), "encoder.layer.1.attention.self.query")
    _, after, paths = fold_divisors(model, query)
    assert sorted(paths) == [OUT, OUT.replace(".0.", ".1.")]
    left = {one.layer.path for one in after.layers if one.divisor is not None}
    assert left == {
        "encoder.layer.0.output.dense",
        "encoder.layer.1.output.dense",
        "encoder.layer.1.attention.self.query",
    }


@pytest.mark.parametrize("fault", ["perm", "read twice", "bad divisor"])
def test_another_shape_of_attention_is_left_alone(fault: str) -> None:
    model = encoder()
    nodes = by_name(model)
    divisor = DIVISOR
    path = VALUE.rpartition(".")[0]
    if fault == "perm":
        turn = next(
            n for n in nodes.values() if n.op_type == "Transpose" and n.name.startswith(path)
        )
        turns = [n for n in nodes.values() if n.op_type == "Transpose" and n.name.startswith(path)]
        for turn in turns:
            turn.attribute[0].ints[:] = [0, 2, 3, 1]
    elif fault == "read twice":
        extra = onnx.helper.make_node("Neg", [f"{VALUE}/Add_output"], ["spare"], name="spare/Neg")
        model.graph.node.append(extra)
    else:
        divisor = np.zeros_like(DIVISOR)
    plan = smoothed(plan_for(model, {OUT}), OUT, divisor=divisor)
    same, after, paths = fold_divisors(model, plan)
    assert same is model
    assert after == plan
    assert paths == ()


# ------------------------------------------------------------------------ layer norms


def normed(*, residual: bool = False) -> onnx.ModelProto:
    """LayerNorm, two linear layers that read it, their sum (and the LayerNorm's own output)."""
    rng = np.random.default_rng(1)
    nodes = [
        node("LayerNormalization", "x scale shift", "normed", "norm", axis=-1),
        node("MatMul", "normed W1", "first", "one"),
        node("MatMul", "normed W2", "second", "two"),
        node("Add", "first second", "sum", "sum"),
        node("Identity", "sum", "last_hidden_state", "end"),
    ]
    tensors = {
        "scale": rng.normal(size=FAN_IN).astype(np.float32),
        "shift": rng.normal(size=FAN_IN).astype(np.float32),
        "W1": rng.normal(size=(FAN_IN, FAN_OUT)).astype(np.float32),
        "W2": rng.normal(size=(FAN_IN, FAN_OUT)).astype(np.float32),
    }
    if residual:
        nodes.insert(1, node("ReduceSum", "normed", "rest", "rest", keepdims=0))
        nodes[-1] = node("Add", "sum rest", "last_hidden_state", "end")
    return graph(nodes, tensors)


def test_a_layer_norm_that_only_linear_layers_read_takes_the_divisor() -> None:
    model = normed()
    plan = smoothed(plan_for(model), "one", "two", divisor=NORM_DIVISOR)
    folded, after, paths = fold_divisors(model, plan)
    assert paths == ("one", "two")
    assert all(one.divisor is None for one in after.layers)
    for name in ("scale", "shift"):
        np.testing.assert_allclose(
            stored(folded, name) * NORM_DIVISOR, stored(model, name), rtol=1e-6
        )
    for tensor in folded.graph.initializer:
        if tensor.name in ("W1", "W2"):
            values = stored(folded, tensor.name) * NORM_DIVISOR[:, None]
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    np.testing.assert_allclose(run_reference(folded, x=X), run_reference(model, x=X), atol=1e-5)
    assert not of_type(insert_qdq(model, plan), "Mul")


def test_a_layer_norm_that_others_read_stays() -> None:
    model = normed(residual=True)
    plan = smoothed(plan_for(model), "one", "two", divisor=NORM_DIVISOR)
    assert fold_divisors(model, plan)[2] == ()
    assert len(of_type(insert_qdq(model, plan), "Mul")) == 1


def test_readers_with_other_divisors_or_none_keep_the_product() -> None:
    model = normed()
    one = smoothed(plan_for(model), "one", divisor=NORM_DIVISOR)
    assert fold_divisors(model, one)[2] == ()
    other = smoothed(one, "two", divisor=NORM_DIVISOR[::-1].copy())
    assert fold_divisors(model, other)[2] == ()
