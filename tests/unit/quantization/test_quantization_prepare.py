"""From a calibration table to int8 forms of layers, and their file."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from contract.tiny_graph import make_tokens, write_tiny_graph
from contract.tiny_plans import calibrated_table
from unit.quantization.qdq_cases import FAN_IN, linear, plan_for, run_reference, stored

from targets.errors import CalibrationError, CompileError
from targets.quantization.calibrators import choose_range
from targets.quantization.correction import corrected_bias, round_compensated
from targets.quantization.integers import round_weight, weight_scale
from targets.quantization.layers import read_layers
from targets.quantization.plan import LayerPlan, QdqPlan
from targets.quantization.plans_file import Prepared, load_prepared, save_prepared
from targets.quantization.prepare import RANGE_MARGIN, Method, Preparation, by_activation
from targets.quantization.qdq import insert_qdq
from targets.quantization.statistics import StreamingStatistics
from targets.quantization.table import CalibrationTable

PLAIN = Method(calibrator="minmax", smooth=False, correct=False)
SMOOTHED = replace(PLAIN, smooth=True)
FULL = Method()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[onnx.ModelProto, CalibrationTable]:
    graph = write_tiny_graph(tmp_path_factory.mktemp("tiny")).artifact
    return onnx.load(graph.path), calibrated_table(graph, make_tokens(60))


@pytest.fixture(scope="module")
def preparation(tiny) -> Preparation:
    model, table = tiny
    return Preparation(model, read_layers(model), table)


def save_plans(plans: Iterable[LayerPlan], path: Path) -> None:
    save_prepared(Prepared(plans=tuple(plans)), path)


def load_plans(path: Path) -> tuple[LayerPlan, ...]:
    return load_prepared(path).plans


def by_path(plans: tuple[LayerPlan, ...]) -> dict[str, LayerPlan]:
    return {plan.layer.path: plan for plan in plans}


def differing(one: LayerPlan, other: LayerPlan) -> set[str]:
    """Names of the fields in which two plans of a layer differ."""
    return {
        field.name
        for field in fields(LayerPlan)
        if not np.array_equal(getattr(one, field.name), getattr(other, field.name))
    }


def table_of(statistics: Mapping[str, Any]) -> CalibrationTable:
    return CalibrationTable(
        tensors=dict(statistics),
        graph_sha256="g",
        tokenizer_sha256="t",
        corpus_sha256="c",
        num_texts=1,
        num_tokens=1,
    )


# --------------------------------------------------------------------------------- groups


def test_readers_of_one_tensor_are_one_group(tiny) -> None:
    groups = by_activation(read_layers(tiny[0]).linears)
    assert [[layer.path.split(".")[-1] for layer in group] for group in groups[:4]] == [
        ["query", "key", "value"],
        ["dense"],
        ["dense"],
        ["dense"],
    ]
    assert [len(group) for group in groups] == [3, 1, 1, 1] * 2
    assert by_activation([]) == ()


def test_readers_far_apart_are_one_group_still() -> None:
    layers = [plan.layer for plan in plan_for(linear("matmul")).layers] * 4
    apart = [replace(one, node=str(n), activation="ab"[n % 2]) for n, one in enumerate(layers)]
    groups = by_activation(apart)
    assert [[layer.node for layer in group] for group in groups] == [["0", "2"], ["1", "3"]]


def test_query_key_and_value_share_what_belongs_to_their_input(preparation) -> None:
    for method in (FULL, SMOOTHED, PLAIN):
        plans = by_path(preparation.plans(method))
        for layer in (0, 1):
            q, k, v = (
                plans[f"encoder.layer.{layer}.attention.self.{one}"]
                for one in ("query", "key", "value")
            )
            for other in (k, v):
                assert not differing(q, other) & {"activation", "divisor"}
                assert {"weight_scale", "weight_integers"} <= differing(q, other)
        one, two = (plans[f"encoder.layer.{n}.intermediate.dense"] for n in (0, 1))
        assert "activation" in differing(one, two), "other inputs have other ranges"


def test_plans_come_in_execution_order(tiny, preparation) -> None:
    order = [layer.node for layer in read_layers(tiny[0]).linears]
    assert [plan.layer.node for plan in preparation.plans(FULL)] == order


def test_progress_counts_activations(preparation) -> None:
    seen: list[tuple[int, int]] = []
    preparation.plans(PLAIN, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(number, 8) for number in range(1, 9)]


# -------------------------------------------------------------------------------- methods


def test_nearest_rounding_of_the_graph_s_own_weights(tiny, preparation) -> None:
    model, table = tiny
    for plan in preparation.plans(PLAIN):
        weight = stored(model, plan.layer.weight)
        np.testing.assert_array_equal(plan.weight_scale, weight_scale(weight, 1))
        np.testing.assert_array_equal(
            plan.weight_integers, round_weight(weight, plan.weight_scale, 1)
        )
        assert plan.divisor is None
        assert plan.bias is None
        statistics = table.tensors[plan.layer.activation]
        assert plan.activation == choose_range(statistics, "minmax", symmetric=False)


@pytest.mark.parametrize("calibrator", ["percentile", "entropy", "mse"])
def test_a_calibrator_changes_ranges_and_nothing_else(preparation, calibrator) -> None:
    plans = preparation.plans(replace(PLAIN, calibrator=calibrator))
    changed = [differing(*pair) for pair in zip(preparation.plans(PLAIN), plans, strict=True)]
    assert set().union(*changed) == {"activation"}


def test_a_calibrator_has_no_effect_on_smoothed_ranges(preparation) -> None:
    plans = preparation.plans(replace(SMOOTHED, calibrator="mse"))
    for pair in zip(preparation.plans(SMOOTHED), plans, strict=True):
        assert differing(*pair) == set()


def test_smoothing_changes_all_but_the_bias(preparation) -> None:
    for one, other in zip(preparation.plans(PLAIN), preparation.plans(SMOOTHED), strict=True):
        assert differing(one, other) == {
            "activation",
            "divisor",
            "weight_scale",
            "weight_integers",
        }


def test_correction_changes_integers_and_bias_only(preparation) -> None:
    changed = [
        differing(*pair)
        for pair in zip(preparation.plans(SMOOTHED), preparation.plans(FULL), strict=True)
    ]
    assert set().union(*changed) == {"weight_integers", "bias"}


def test_smoothed_ranges_hold_every_channel_s_extremes(tiny, preparation) -> None:
    """And a margin for texts that are louder than those seen."""
    for plan in preparation.plans(SMOOTHED):
        statistics = tiny[1].tensors[plan.layer.activation]
        high = (statistics.channel_maximum / plan.divisor).max()
        low = (statistics.channel_minimum / plan.divisor).min()
        assert plan.activation.high == pytest.approx(RANGE_MARGIN * high, rel=1e-6)
        assert plan.activation.low == pytest.approx(RANGE_MARGIN * low, rel=1e-6)
    assert 1 <= RANGE_MARGIN < 1.2


def test_a_symmetric_range_is_as_wide_on_both_sides(preparation) -> None:
    for method in (FULL, PLAIN):
        for plan in preparation.plans(replace(method, integers="S8S8", symmetric=True)):
            assert plan.activation.low == -plan.activation.high
            assert (plan.symmetric, plan.integers) == (True, "S8S8")
    skewed = [plan.activation for plan in preparation.plans(FULL)]
    assert any(one.low != -one.high for one in skewed)


def test_seven_bits_for_some_layers_only(preparation) -> None:
    def wanted(layer) -> bool:
        return layer.path.endswith(".key")

    for method in (FULL, PLAIN):
        plans = preparation.plans(method, reduce_range=wanted)
        for plan, before in zip(plans, preparation.plans(method), strict=True):
            largest = np.abs(plan.weight_integers.astype(int)).max()
            assert plan.reduce_range == wanted(plan.layer)
            assert largest == (63 if plan.reduce_range else 127)
            if not wanted(plan.layer):
                assert not differing(plan, before) - {"weight_integers", "bias"}


def test_compensation_knows_the_inputs_as_the_weight_sees_them(tiny, preparation) -> None:
    """Moments behind the divisor, and the noise of the smoothed activation's own step."""
    model, table = tiny
    for plan in preparation.plans(FULL):
        divisor = plan.divisor.astype(np.float64)
        moments = table.tensors[plan.layer.activation].gram / np.outer(divisor, divisor)
        step = (plan.activation.high - plan.activation.low) / 255
        weight = (stored(model, plan.layer.weight).T * plan.divisor).astype(np.float32)
        expected = round_compensated(weight, plan.weight_scale, moments, step**2 / 12)
        assert (expected == plan.weight_integers.T).mean() > 0.999


def test_the_bias_keeps_the_mean_output(tiny, preparation) -> None:
    model, table = tiny
    for plan in preparation.plans(FULL):
        mean = table.tensors[plan.layer.activation].channel_mean / plan.divisor
        weight = (stored(model, plan.layer.weight).T * plan.divisor).astype(np.float32)
        rounded = (plan.weight_integers * plan.weight_scale).T
        expected = corrected_bias(weight, rounded, mean, stored(model, plan.layer.bias))
        np.testing.assert_allclose(plan.bias, expected, rtol=1e-6, atol=1e-7)


def test_methods_in_words() -> None:
    assert FULL.words == "smoothed, compensated rounding"
    assert replace(PLAIN, calibrator="mse").words == "mse, nearest rounding"


# ---------------------------------------------------------------------------- orientation


def statistics_of_x(gram: bool = True, channels: int = FAN_IN, apart: bool = True):
    rows = np.random.default_rng(3).normal(size=(200, channels)).astype(np.float32)
    rows[:, 0] *= 20
    found = StreamingStatistics(channels if apart else None, gram=gram)
    found.add(rows)
    return found.freeze()


@pytest.mark.parametrize("form", ["matmul", "matmul_no_bias", "transpose", "gemm", "gemm_b"])
@pytest.mark.parametrize("method", [FULL, SMOOTHED, PLAIN], ids=lambda one: one.words)
def test_weights_keep_the_order_they_are_stored_in(form: str, method: Method) -> None:
    """The same layer in every form: the same integers, turned as it is stored; the graph runs."""
    model, plain = linear(form), linear("matmul")
    (plan,) = Preparation(model, read_layers(model), table_of({"x": statistics_of_x()})).plans(
        method
    )
    (same,) = Preparation(plain, read_layers(plain), table_of({"x": statistics_of_x()})).plans(
        method
    )
    turned = form in ("transpose", "gemm_b")
    assert plan.weight_integers.shape == stored(model, "W").shape
    np.testing.assert_array_equal(
        plan.weight_integers.T if turned else plan.weight_integers, same.weight_integers
    )
    assert (plan.bias is not None) == (method.correct and form != "matmul_no_bias")
    x = np.random.default_rng(4).normal(size=(7, FAN_IN)).astype(np.float32)
    x[:, 0] *= 10
    exact = run_reference(model, x=x)
    found = run_reference(insert_qdq(model, QdqPlan(layers=(plan,))), x=x)
    close = 0.05 if method.smooth else 0.2  # one channel is far louder than the others
    assert np.abs(found - exact).max() < close * np.abs(exact).max()
    assert np.abs(found - exact).max() > 0


def test_without_second_moments_rounding_is_nearest() -> None:
    """A table that was made without them still serves."""
    model = linear("matmul")
    table = table_of({"x": statistics_of_x(gram=False)})
    preparation = Preparation(model, read_layers(model), table)
    (full,), (nearest,) = preparation.plans(replace(PLAIN, correct=True)), preparation.plans(PLAIN)
    assert differing(full, nearest) == {"bias"}


# ------------------------------------------------------------------------------- refusals


def test_a_missing_activation_is_named(tiny) -> None:
    model, table = tiny
    gone = read_layers(model).linears[3].activation
    tensors = {name: one for name, one in table.tensors.items() if name != gone}
    with pytest.raises(CalibrationError) as caught:
        Preparation(model, read_layers(model), replace(table, tensors=tensors))
    assert gone in caught.value.what
    assert "encoder.layer.0.attention.output.dense" in caught.value.why
    assert "calibrate" in caught.value.hint


def test_statistics_of_another_width_are_refused() -> None:
    model = linear("matmul")
    table = table_of({"x": statistics_of_x(channels=FAN_IN + 1)})
    with pytest.raises(CalibrationError, match="6 channels, there are 7"):
        Preparation(model, read_layers(model), table).plans(SMOOTHED)


def test_smoothing_without_channels_is_refused() -> None:
    model = linear("matmul")
    table = table_of({"x": statistics_of_x(gram=False, apart=False)})
    preparation = Preparation(model, read_layers(model), table)
    assert preparation.plans(PLAIN)[0].weight_integers is not None
    with pytest.raises(CalibrationError, match="there are none"):
        preparation.plans(SMOOTHED)


@pytest.mark.parametrize("method", [FULL, SMOOTHED, PLAIN], ids=lambda one: one.words)
def test_an_input_of_zeros(method: Method) -> None:
    model = linear("matmul")
    found = StreamingStatistics(FAN_IN, gram=True)
    found.add(np.zeros((9, FAN_IN), np.float32))
    (plan,) = Preparation(model, read_layers(model), table_of({"x": found.freeze()})).plans(method)
    result = insert_qdq(model, QdqPlan(layers=(plan,)))
    x = np.zeros((2, FAN_IN), np.float32)
    np.testing.assert_allclose(run_reference(result, x=x), run_reference(model, x=x), rtol=1e-6)


# ------------------------------------------------------------------------------- the file


@pytest.mark.parametrize("method", [FULL, PLAIN], ids=lambda one: one.words)
def test_a_file_gives_back_every_bit(preparation, tmp_path: Path, method: Method) -> None:
    plans = preparation.plans(method, reduce_range=lambda layer: layer.ends_ffn)
    save_plans(plans, tmp_path / "plans.npz")
    loaded = load_plans(tmp_path / "plans.npz")
    assert len(loaded) == len(plans)
    for plan, again in zip(plans, loaded, strict=True):
        assert again.layer == plan.layer
        assert again.activation == plan.activation
        assert differing(plan, again) == set()
        for field in fields(LayerPlan):
            one, other = getattr(plan, field.name), getattr(again, field.name)
            if isinstance(one, np.ndarray):
                assert (other.dtype, other.tobytes()) == (one.dtype, one.tobytes()), field.name


def test_every_array_of_a_plan_is_kept(preparation, tmp_path: Path) -> None:
    plan = replace(preparation.plans(FULL)[0], weight=np.ones((32, 32), np.float32))
    save_plans([plan], tmp_path / "plans.npz")
    (again,) = load_plans(tmp_path / "plans.npz")
    assert differing(plan, again) == set()


def test_copies_of_channels_are_kept(preparation, tmp_path: Path) -> None:
    path = tmp_path / "plans.npz"
    copies = {"encoder.layer.0.output.dense": np.array([1, 3, 1]), "ü.1": np.array([2])}
    save_prepared(Prepared(plans=preparation.plans(PLAIN), copies=copies), path)
    again = load_prepared(path)
    assert list(again.copies) == list(copies)
    for name, times in copies.items():
        np.testing.assert_array_equal(again.copies[name], times)
    assert len(again.plans) == 12
    save_plans([], path)
    assert load_prepared(path).copies == {}


def test_shifts_of_norms_are_kept(preparation, tmp_path: Path) -> None:
    path = tmp_path / "plans.npz"
    shifts = {"/encoder/layer.0/LayerNorm/Add_1": np.array([0.5, -1.25], np.float32)}
    save_prepared(Prepared(plans=preparation.plans(PLAIN), shifts=shifts), path)
    again = load_prepared(path)
    assert list(again.shifts) == list(shifts) and again.copies == {}
    np.testing.assert_array_equal(again.shifts[next(iter(shifts))], [0.5, -1.25])
    save_plans([], path)
    assert load_prepared(path).shifts == {}


def test_the_same_plans_give_the_same_bytes(preparation, tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_plans(preparation.plans(FULL), tmp_path / f"{name}.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_no_plans_are_a_file_too(tmp_path: Path) -> None:
    save_plans([], tmp_path / "plans.npz")
    assert load_plans(tmp_path / "plans.npz") == ()


def damage(path: Path, kind: str) -> None:
    """Make something else of a good file."""
    content = path.read_bytes()
    if kind == "missing":
        path.unlink()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "flipped":  # inside an array: the zip's own check sum tells
        path.write_bytes(content[:4000] + bytes([content[4000] ^ 1]) + content[4001:])
    elif kind == "text":
        path.write_text("not plans\n")
    elif kind == "array":
        with path.open("wb") as file:
            np.save(file, np.arange(3))
    elif kind == "other arrays":
        np.savez(path, x=np.arange(3))
    elif kind == "other zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("about.npy", "nothing")
    else:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(arrays["about"].tobytes())
        if kind == "version":
            about["version"] += 1
        elif kind == "no version":
            about = about["plans"]
        elif kind == "another field":
            about["plans"][0]["layer"]["colour"] = "red"
        elif kind == "range":
            about["plans"][0]["activation"]["low"] = 1.0
        arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
        np.savez(path, **arrays)


DAMAGES = (
    "missing",
    "empty",
    "truncated",
    "flipped",
    "text",
    "array",
    "version",
    "range",
    "other arrays",
    "other zip",
    "no version",
    "another field",
)


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_is_no_file_of_plans_is_refused(preparation, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "plans.npz"
    save_plans(preparation.plans(FULL)[:2], path)
    damage(path, kind)
    with pytest.raises(CalibrationError) as caught:
        load_plans(path)
    assert str(path) in caught.value.what
    assert caught.value.hint == "prepare them again"
    if kind == "version":
        assert "version 4, this program reads 3" in caught.value.why


def test_plans_of_another_graph_do_not_fit(preparation, tmp_path: Path) -> None:
    path = tmp_path / "plans.npz"
    save_plans(preparation.plans(FULL), path)
    with pytest.raises(CompileError, match="not in the graph"):
        insert_qdq(linear("matmul"), QdqPlan(layers=load_plans(path)))
