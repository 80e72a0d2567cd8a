"""Divisors that move outliers of activations into weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targets.errors import CalibrationError
from targets.quantization import smoothing
from targets.quantization.calibrators import Range
from targets.quantization.integers import activation_parameters, round_weight, weight_scale
from targets.quantization.smoothing import expected_error, smooth
from targets.quantization.statistics import StreamingStatistics, TensorStatistics

ALPHAS = (0.5, 0.65, 0.75, 0.85, 0.95, 1.0)


def seen(rows: np.ndarray, gram: bool = True) -> TensorStatistics:
    found = StreamingStatistics(rows.shape[1], gram=gram)
    found.add(rows.astype(np.float32))
    return found.freeze()


def random_layer(
    seed: int, channels: int = 24, outputs: int = 16, spread: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [tokens, channels] whose channels differ in size and offset, a weight [out, in]."""
    rng = np.random.default_rng(seed)
    sizes = np.exp(spread * rng.normal(size=channels))
    rows = (rng.normal(size=(300, channels)) + rng.normal(size=channels)) * sizes
    weight = rng.normal(size=(outputs, channels)) * np.exp(0.5 * rng.normal(size=channels))
    return rows.astype(np.float32), weight.astype(np.float32)


def with_outlier(seed: int = 3, size: float = 60.0) -> tuple[np.ndarray, np.ndarray]:
    """A layer like those of trained encoders: one channel far louder than all others."""
    rows, weight = random_layer(seed, channels=64, outputs=48, spread=0.2)
    rows[:, 5] *= size
    return rows, weight


def smoothquant(rows: np.ndarray, weight: np.ndarray, alpha: float) -> np.ndarray:
    """Equation 4 of the paper, written down again."""
    loud, heavy = np.abs(rows).max(axis=0), np.abs(weight).max(axis=0)
    return (loud**alpha / heavy ** (1 - alpha)).astype(np.float32)


def int8_error(
    rows: np.ndarray, weight: np.ndarray, divisor: np.ndarray, *, symmetric: bool = False
) -> float:
    """Mean square by which outputs move in int8, nearest rounding, summed over outputs."""
    smoothed = (rows / divisor).astype(np.float32)
    low, high = min(float(smoothed.min()), 0.0), max(float(smoothed.max()), 0.0)
    if symmetric:
        low, high = -max(-low, high), max(-low, high)
    parameters = activation_parameters(
        Range(low=low, high=high),
        "S8S8" if symmetric else "U8S8",
        symmetric=symmetric,
        dtype=np.dtype(np.float32),
    )
    step, zero = float(parameters.scale), int(parameters.zero_point)
    ends = (-128, 127) if symmetric else (0, 255)
    x = (np.clip(np.rint(smoothed / step) + zero, *ends) - zero) * step
    scaled = (weight * divisor).astype(np.float32)
    steps = weight_scale(scaled, 0)
    w = round_weight(scaled, steps, 0) * steps[:, None]
    exact = rows.astype(np.float64) @ weight.T.astype(np.float64)
    return float(np.square(x.astype(np.float64) @ w.T - exact).mean(axis=0).sum())


# ------------------------------------------------------------------------------ gradient


def soft_log_error(layer: smoothing._Layer, log: np.ndarray, norm: float) -> float:
    """Log of the expected error with p-norms instead of maxima, written down again."""
    divisor = np.exp(log)

    def largest(values: np.ndarray) -> np.ndarray:
        top = values.max(axis=-1, keepdims=True)
        return (top * ((values / top) ** norm).sum(axis=-1, keepdims=True) ** (1 / norm))[..., 0]

    high, low = layer.high / divisor, layer.low / divisor
    both = 2 * largest(np.maximum(high, low))
    span = both if layer.symmetric else largest(high) + largest(low)
    e_x = (span / 255) ** 2 / 12 * np.square(layer.weight * divisor).sum()
    steps = largest(np.abs(layer.weight * divisor)) / 127
    e_w = np.square(steps).sum() / 12 * (layer.square / divisor**2).sum()
    return float(np.log(e_x + smoothing.ROUNDING_GAIN * e_w))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("norm", [12.0, 48.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_slope_is_that_of_the_error(symmetric: bool, norm: float, seed: int) -> None:
    rows, weight = random_layer(seed, channels=11)
    layer = smoothing._layer(seen(rows), weight, symmetric)
    log = np.random.default_rng(seed).normal(size=11)
    found = smoothing._slope(layer, smoothing._Rows.of(layer.weight, norm), log, norm)
    step = 1e-5
    numeric = [
        (soft_log_error(layer, log + way, norm) - soft_log_error(layer, log - way, norm)) / 2 / step
        for way in np.eye(11) * step
    ]
    np.testing.assert_allclose(found, numeric, rtol=1e-5, atol=1e-7)
    # All divisors together change nothing, so the slopes cancel.
    assert abs(found.sum()) < 1e-9


def test_the_slope_of_another_norm_is_another() -> None:
    """The twin: numeric differentiation tells norms apart."""
    rows, weight = random_layer(0, channels=11)
    layer = smoothing._layer(seen(rows), weight, False)
    log = np.zeros(11)
    one, other = (
        smoothing._slope(layer, smoothing._Rows.of(layer.weight, n), log, n) for n in (12.0, 48.0)
    )
    assert not np.allclose(one, other, rtol=1e-2, atol=1e-4)


# --------------------------------------------------------------------------- never worse


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    channels=st.integers(1, 20),
    outputs=st.integers(1, 12),
    spread=st.floats(0.0, 3.0),
    symmetric=st.booleans(),
    gram=st.booleans(),
)
def test_nothing_simpler_expects_less_error(
    seed: int, channels: int, outputs: int, spread: float, symmetric: bool, gram: bool
) -> None:
    rows, weight = random_layer(seed, channels, outputs, spread)
    statistics = seen(rows, gram)

    def total(divisor: np.ndarray | None) -> float:
        return expected_error(statistics, weight, divisor, symmetric=symmetric).total

    found = smooth(statistics, weight, symmetric=symmetric)
    assert found.dtype == np.float32
    assert np.isfinite(found).all() and (found > 0).all()
    assert np.exp(np.log(found.astype(np.float64)).mean()) == pytest.approx(1, rel=1e-5)
    # Divisors are rounded to float32 in the end, hence 1e-5.
    simpler = [total(None), *(total(smoothquant(rows, weight, alpha)) for alpha in ALPHAS)]
    assert total(found) <= min(simpler) * (1 + 1e-5)


def test_descent_beats_the_best_single_strength() -> None:
    """Two loud channels that need different strengths: one meets heavy weights, one light ones."""
    rows, weight = with_outlier()
    rows[:, 9] *= 30
    weight[:, 9] *= 10
    statistics = seen(rows)
    best = min(
        expected_error(statistics, weight, smoothquant(rows, weight, a), symmetric=False).total
        for a in ALPHAS
    )
    found = smooth(statistics, weight, symmetric=False)
    assert expected_error(statistics, weight, found, symmetric=False).total < 0.95 * best


# ----------------------------------------------------------------------------- the layer


def test_the_layer_computes_the_same_in_float() -> None:
    rows, weight = with_outlier()
    divisor = smooth(seen(rows), weight, symmetric=False)
    exact = rows.astype(np.float64) @ weight.T.astype(np.float64)
    smoothed = (rows.astype(np.float64) / divisor) @ (weight.astype(np.float64) * divisor).T
    np.testing.assert_allclose(smoothed, exact, rtol=1e-12, atol=1e-10)
    assert not np.allclose((rows / divisor) @ weight.T, exact, rtol=0.1)


def test_an_outlier_gets_a_divisor_that_narrows_the_range() -> None:
    rows, weight = with_outlier()
    divisor = smooth(seen(rows), weight, symmetric=False)
    assert divisor.argmax() == 5
    assert divisor[5] > 5 * np.median(divisor)
    assert np.ptp(rows / divisor) < 0.2 * np.ptp(rows)


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_error_in_int8_is_the_expected_one_and_falls_as_expected(symmetric: bool) -> None:
    """The formulas stand for what happens: within a third, before and after."""
    rows, weight = with_outlier()
    statistics = seen(rows)
    ones = np.ones(64, np.float32)
    divisor = smooth(statistics, weight, symmetric=symmetric)
    measured, expected = {}, {}
    for name, one in (("before", ones), ("after", divisor)):
        measured[name] = int8_error(rows, weight, one, symmetric=symmetric)
        found = expected_error(statistics, weight, one, symmetric=symmetric)
        expected[name] = found.activations + found.weights  # nearest rounding: no gain
        assert measured[name] == pytest.approx(expected[name], rel=1 / 3), name
    assert expected["after"] < expected["before"] / 10
    assert measured["after"] < measured["before"] / 10


def test_divisors_the_wrong_way_round_are_worse() -> None:
    """The twin: the same divisors upside down."""
    rows, weight = with_outlier()
    divisor = smooth(seen(rows), weight, symmetric=False)
    before = int8_error(rows, weight, np.ones(64, np.float32))
    assert int8_error(rows, weight, 1 / divisor) > 2 * before


def test_layers_that_share_an_activation_are_weighed_together() -> None:
    rows, weight = random_layer(1)
    heavy = weight.copy()
    heavy[:, 3] *= 50
    statistics = seen(rows)
    alone = smooth(statistics, weight, symmetric=False)
    together = smooth(statistics, np.concatenate([weight, heavy]), symmetric=False)
    assert together[3] < 0.5 * alone[3], "what one layer's weight cannot take is not put into it"


# ------------------------------------------------------------------------------- symmetry


@pytest.mark.parametrize(("x", "w"), [(1.0, 2.0**10), (2.0**-20, 1.0), (2.0**30, 2.0**-12)])
def test_units_do_not_matter(x: float, w: float) -> None:
    rows, weight = random_layer(4)
    one = smooth(seen(rows), weight, symmetric=False)
    other = smooth(seen(rows * np.float32(x)), weight * np.float32(w), symmetric=False)
    np.testing.assert_allclose(other, one, rtol=1e-4)


def test_the_order_of_channels_does_not_matter() -> None:
    rows, weight = random_layer(5)
    order = np.random.default_rng(0).permutation(rows.shape[1])
    one = smooth(seen(rows), weight, symmetric=False)
    other = smooth(seen(rows[:, order]), weight[:, order], symmetric=False)
    np.testing.assert_allclose(other, one[order], rtol=1e-4)


def test_signs_do_not_matter_to_a_symmetric_scheme() -> None:
    rows, weight = random_layer(6)
    flip = np.where(np.arange(rows.shape[1]) % 2, 1, -1).astype(np.float32)
    one = smooth(seen(rows), weight, symmetric=True)
    np.testing.assert_allclose(smooth(seen(rows * flip), weight, symmetric=True), one, rtol=1e-4)
    skewed = smooth(seen(np.abs(rows)), weight, symmetric=False)
    mixed = smooth(seen(np.abs(rows) * flip), weight, symmetric=False)
    assert not np.allclose(skewed, mixed, rtol=1e-2), "with a zero point they do"


# --------------------------------------------------------------------------- odd layers


def test_silent_channels_stay_in_bounds() -> None:
    rows, weight = random_layer(7)
    rows[:, [0, 9]] = 0
    weight[:, [2, 9]] = 0
    divisor = smooth(seen(rows), weight, symmetric=False)
    assert np.isfinite(divisor).all() and (divisor > 0).all()
    assert np.isfinite(int8_error(rows, weight, divisor))
    assert int8_error(rows, weight, divisor) <= int8_error(rows, weight, np.ones_like(divisor))


@pytest.mark.parametrize("value", [0.0, 3.0, -0.5])
def test_constant_tensors(value: float) -> None:
    weight = random_layer(8)[1]
    rows = np.full((10, weight.shape[1]), value, np.float32)
    divisor = smooth(seen(rows), weight, symmetric=False)
    assert np.isfinite(divisor).all() and (divisor > 0).all()


@pytest.mark.parametrize("value", [0.0, 1e-30])
def test_weights_of_nothing_need_no_divisor(value: float) -> None:
    """A pruned layer: nothing to gain, and no division of nothing by nothing."""
    rows, weight = random_layer(9)
    divisor = smooth(seen(rows), np.full_like(weight, value), symmetric=False)
    assert np.isfinite(divisor).all() and (divisor > 0).all()


def test_rows_of_zeros_among_others_are_harmless() -> None:
    rows, weight = random_layer(10)
    padded = np.concatenate([weight, np.zeros_like(weight)])
    one, other = (smooth(seen(rows), each, symmetric=False) for each in (weight, padded))
    np.testing.assert_allclose(one, other, rtol=1e-4)


def test_a_single_channel_is_left_alone() -> None:
    rows, weight = random_layer(11, channels=1)
    np.testing.assert_allclose(smooth(seen(rows), weight, symmetric=False), [1.0], rtol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_one_sided_data(sign: int) -> None:
    """Behind a ReLU or GELU, zero is an end of the range, and all steps go to one side."""
    rows, weight = with_outlier()
    rows = sign * np.abs(rows)
    statistics = seen(rows)
    divisor = smooth(statistics, weight, symmetric=False)
    assert divisor.argmax() == 5
    free = expected_error(statistics, weight, divisor, symmetric=False).activations
    bound = expected_error(statistics, weight, divisor, symmetric=True).activations
    # Half of a symmetric scheme's steps lie where no value is: four times the mean square.
    assert bound == pytest.approx(4 * free, rel=1e-6)


@pytest.mark.parametrize("function", [smooth, lambda *a, **k: expected_error(*a, None, **k)])
def test_statistics_that_do_not_fit_are_refused(function) -> None:
    rows, weight = random_layer(12)
    with pytest.raises(CalibrationError, match="24 channels, there are 23"):
        function(seen(rows[:, :23]), weight, symmetric=False)
    whole = StreamingStatistics(None)
    whole.add(rows)
    with pytest.raises(CalibrationError, match="24 channels, there are none") as caught:
        function(whole.freeze(), weight, symmetric=False)
    assert "calibrate again" in caught.value.hint
