"""Which pairs of 8-bit products can leave 16 bits, and what saturation makes of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from targets.errors import CalibrationError
from targets.quantization.calibrators import Range
from targets.quantization.integers import (
    REDUCED_WEIGHT_LIMIT,
    activation_parameters,
    largest_weight_integer,
)
from targets.quantization.layers import LinearLayer
from targets.quantization.overflow import (
    Saturation,
    channel_codes,
    count_saturated,
    layers_at_risk,
    predict,
    predict_plan,
    simulate_pairs,
    unsigned_codes,
)
from targets.quantization.plan import LayerPlan
from targets.quantization.statistics import StreamingStatistics, TensorStatistics


def u8(*values) -> np.ndarray:
    return np.array(values, np.uint8)


def s8(*rows) -> np.ndarray:
    return np.array(rows, np.int8)


def by_instruction(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """VPMADDUBSW, VPMADDWD with ones and VPADDD, spelled out byte by byte."""
    result = np.zeros((len(activations), len(weights)), np.int32)
    for row, out in np.ndindex(result.shape):
        products = activations[row].astype(int) * weights[out].astype(int)
        padded = [*products, *[0] * (-len(products) % 4)]
        for four in range(0, len(padded), 4):
            words = [
                max(-32768, min(32767, padded[at] + padded[at + 1])) for at in (four, four + 2)
            ]
            result[row, out] += sum(words)
    return result


def everything(channels: int) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(channels, np.uint8), np.full(channels, 255, np.uint8)


# -------------------------------------------------------------------------- simulation


@pytest.mark.parametrize(
    ("activations", "weights", "saturated", "exact"),
    [
        ([255, 255, 0, 0], [127, 127, 0, 0], 32767, 64770),
        ([255, 255, 0, 0], [-128, -128, 0, 0], -32768, -65280),
        ([0, 255, 255, 0], [0, 127, 127, 0], 64770, 64770),  # of two pairs
        ([255, 0, 255, 0], [127, 0, 127, 0], 64770, 64770),
        ([255, 255, 255, 255], [127, 127, -128, -128], -1, -510),
        ([255, 255], [127, -127], 0, 0),
    ],
)
def test_neighbours_saturate_and_others_do_not(activations, weights, saturated, exact):
    assert simulate_pairs(u8(activations), s8(weights)) == saturated
    assert np.dot(activations, weights) == exact


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7, 8, 33])
def test_the_simulation_is_that_of_the_instructions(channels):
    rng = np.random.default_rng(channels)
    activations = rng.integers(0, 256, (9, channels)).astype(np.uint8)
    weights = rng.integers(-128, 128, (7, channels)).astype(np.int8)
    simulated = simulate_pairs(activations, weights)
    assert simulated.dtype == np.int32
    np.testing.assert_array_equal(simulated, by_instruction(activations, weights))
    exact = activations.astype(np.int32) @ weights.astype(np.int32).T
    assert (simulated == exact).all() == (count_saturated(activations, weights) == 0)


def test_saturated_pairs_are_counted():
    activations = u8([255, 255, 255, 255], [255, 255, 0, 0], [1, 1, 1, 1])
    weights = s8([127, 127, -128, -128], [1, 1, 1, 1])
    assert count_saturated(activations, weights) == 3
    assert count_saturated(activations[2:], weights) == 0
    assert count_saturated(activations[:0], weights) == 0
    assert simulate_pairs(activations[:0], weights).shape == (0, 2)


# ---------------------------------------------------------------------------- seven bits


def test_seven_bits_never_saturate():
    """All corners: a sum of products is largest and smallest there."""
    for limit in (REDUCED_WEIGHT_LIMIT, largest_weight_integer(reduce_range=True)):
        for left, right in itertools.product((-limit, 0, limit), repeat=2):
            found = predict("layer", s8([left, right, 0, 0]), *everything(4))
            assert found.pairs_at_risk == 0
            assert found.worst < 1
    assert predict("layer", s8([63, 63, 0, 0]), *everything(4)).worst == 32130 / 32767


def test_one_more_than_seven_bits_may():
    assert predict("layer", s8([65, 65, 0, 0]), *everything(4)).pairs_at_risk == 1
    assert predict("layer", s8([-65, -65, 0, 0]), *everything(4)).pairs_at_risk == 1


# ---------------------------------------------------------------------------- prediction


def test_pairs_are_counted_for_each_output_channel():
    weights = s8([127, 127, 0, 0], [127, 0, 127, 0], [0, 0, -128, -128], [127, 127, 127, 127])
    found = predict("layer", weights, *everything(4))
    assert (found.pairs_at_risk, found.num_pairs) == (4, 8)
    assert found.worst == 65280 / 32768
    assert found.path == "layer"


def test_quiet_channels_are_safe():
    weights = s8([127, 127, 127, 127])
    lowest, highest = u8(0, 0, 0, 0), u8(255, 3, 0, 255)
    assert predict("layer", weights, lowest, highest).pairs_at_risk == 0
    assert predict("layer", weights, lowest, u8(255, 4, 0, 255)).pairs_at_risk == 1


def test_the_smallest_code_counts_too():
    """Behind a GELU with a zero point, zero itself is a large byte in every channel."""
    weights = s8([127, 127, 0, 0], [127, -127, 0, 0])
    found = predict("layer", weights, u8(200, 200, 0, 0), u8(201, 201, 0, 0))
    assert found.pairs_at_risk == 1
    assert found.worst == 2 * 201 * 127 / 32767


def test_the_limits_themselves_are_no_overflow():
    none, highest = np.zeros(4, np.uint8), u8(255, 191, 0, 0)
    assert predict("layer", s8([127, 2, 0, 0]), none, highest).worst == 1.0
    assert predict("layer", s8([127, 2, 0, 0]), none, highest).pairs_at_risk == 0
    assert predict("layer", s8([127, 2, 0, 0]), none, u8(255, 192, 0, 0)).pairs_at_risk == 1
    at_the_limit = s8([-128, -1, 0, 0])
    assert predict("layer", at_the_limit, u8(255, 128, 0, 0), u8(255, 128, 0, 0)).worst == 1.0
    assert predict("layer", at_the_limit, none, u8(255, 128, 0, 0)).pairs_at_risk == 0
    assert predict("layer", at_the_limit, none, u8(255, 129, 0, 0)).pairs_at_risk == 1


def test_any_neighbours_may_meet_where_four_does_not_divide_the_channels():
    weights = s8([0, 127, 127, 0, 0, 0])
    assert predict("layer", weights, *everything(6)).pairs_at_risk == 1
    assert predict("layer", np.pad(weights, ((0, 0), (0, 2))), *everything(8)).pairs_at_risk == 0


@pytest.mark.parametrize("channels", [0, 1])
def test_a_single_channel_is_safe(channels):
    found = predict("layer", np.full((3, channels), -128, np.int8), *everything(channels))
    assert found == Saturation(path="layer", pairs_at_risk=0, num_pairs=0, worst=0.0)


def test_extremes_of_another_width_are_refused():
    with pytest.raises(CalibrationError, match="layer: extremes of 6 channels for a weight of 4"):
        predict("layer", s8([1, 2, 3, 4]), *everything(6))


def test_layers_at_risk_are_named_in_order():
    found = [
        Saturation(path=path, pairs_at_risk=int(worst > 1), num_pairs=9, worst=worst)
        for path, worst in (("b", 1.2), ("a", 1.0), ("c", 0.95), ("d", 1.00001))
    ]
    assert layers_at_risk(found) == ("b", "d")
    assert layers_at_risk(found, limit=0.9) == ("b", "a", "c", "d")
    assert layers_at_risk([]) == ()


# ---------------------------------------------------------------------------- codes, plans


def statistics_of(*rows, num_channels: int | None = 4) -> TensorStatistics:
    streaming = StreamingStatistics(num_channels)
    streaming.add(np.array(rows, np.float32))
    return streaming.freeze()


def test_codes_are_those_of_quantizelinear():
    chosen = Range(low=-1.0, high=1.55)
    parameters = activation_parameters(chosen, "U8S8", symmetric=False, dtype=np.dtype(np.float32))
    values = np.array([-1.0, 0.0, 0.01, 1.55, -7.0, 9.0], np.float32)
    assert unsigned_codes(values, parameters).tolist() == [0, 100, 101, 255, 0, 255]


@pytest.mark.parametrize("symmetric", [False, True])
def test_signed_codes_are_shifted_as_the_kernels_do(symmetric):
    chosen = Range(low=-1.28, high=1.27)
    parameters = activation_parameters(
        chosen, "S8S8", symmetric=symmetric, dtype=np.dtype(np.float32)
    )
    values = np.array([-1.27, 0.0, 1.27], np.float32)
    expected = [2, 128, 254] if symmetric else [1, 128, 255]
    assert unsigned_codes(values, parameters).tolist() == expected


def test_channels_keep_their_own_extremes_and_divisors():
    statistics = statistics_of([0, 1, 2, 0], [0, 2, -1, 4])
    parameters = activation_parameters(
        Range(low=-51.0, high=204.0), "U8S8", symmetric=False, dtype=np.dtype(np.float32)
    )
    lowest, highest = channel_codes(statistics, parameters)
    assert (lowest.tolist(), highest.tolist()) == ([51, 52, 50, 51], [51, 53, 53, 55])
    divisor = np.array([1, 0.5, 1, 2], np.float32)
    lowest, highest = channel_codes(statistics, parameters, divisor)
    assert (lowest.tolist(), highest.tolist()) == ([51, 53, 50, 51], [51, 55, 53, 53])


def test_statistics_without_channels_are_refused():
    statistics = statistics_of([0, 1, 2, 0], num_channels=None)
    parameters = activation_parameters(
        Range(low=0.0, high=2.0), "U8S8", symmetric=False, dtype=np.dtype(np.float32)
    )
    with pytest.raises(CalibrationError, match="extremes of every channel"):
        channel_codes(statistics, parameters)


STORED = np.array([[1, 1, 0, 0], [0.5, 0, 1, 0]], np.float32)


def plan(output_axis: int = 0, **changes) -> LayerPlan:
    layer = LinearLayer(
        path="dense",
        node="dense/MatMul",
        activation="x",
        weight="w",
        output_axis=output_axis,
        transposed=output_axis == 0,
        bias=None,
        output="y",
        ends_ffn=False,
    )
    whole: dict = {
        "layer": layer,
        "activation": Range(low=0.0, high=2.55),
        "integers": "U8S8",
        "symmetric": False,
    }
    return LayerPlan(**(whole | changes))


LOUD = statistics_of([0, 0, 0, 0], [2.55, 2.55, 2.55, 2.55])


@pytest.mark.parametrize("output_axis", [0, 1])
def test_a_plan_is_judged_by_its_own_integers(output_axis):
    stored = STORED if output_axis == 0 else STORED.T
    found = predict_plan(plan(output_axis), stored, LOUD)
    assert (found.path, found.pairs_at_risk, found.num_pairs) == ("dense", 1, 4)
    assert found.worst == 2 * 255 * 127 / 32767
    given = (STORED * 60).astype(np.int8)
    given = given if output_axis == 0 else given.T
    found = predict_plan(plan(output_axis, weight_integers=given), stored, LOUD)
    assert found.worst == 2 * 255 * 60 / 32767


def test_a_reduced_range_and_unsigned_weights_are_safe():
    for safe in (plan(reduce_range=True), plan(integers="U8U8")):
        found = predict_plan(safe, STORED, LOUD)
        assert (found.pairs_at_risk, found.num_pairs) == (0, 4)
        assert layers_at_risk([found]) == ()
    assert layers_at_risk([predict_plan(plan(integers="S8S8"), STORED, LOUD)]) == ("dense",)


def test_a_plans_divisor_quietens_its_channels():
    divisor = np.array([1, 100, 1, 1], np.float32)
    assert predict_plan(plan(divisor=divisor), STORED, LOUD).pairs_at_risk == 0
    assert predict_plan(plan(divisor=divisor / 50), STORED, LOUD).pairs_at_risk == 1
