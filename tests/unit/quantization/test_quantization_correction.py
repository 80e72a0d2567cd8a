"""Weights rounded so that a layer's output moves least, and biases that keep its mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targets.errors import CalibrationError
from targets.quantization.correction import _DAMPING, corrected_bias, round_compensated
from targets.quantization.integers import round_weight, weight_scale

NOISE = 1e-3


def correlated(seed: int, channels: int, rank: int = 4) -> np.ndarray:
    """Inputs [tokens, channels] whose channels move together, with an offset."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(400, min(rank, channels)))
    rows = hidden @ rng.normal(size=(hidden.shape[1], channels))
    rows += 0.3 * rng.normal(size=rows.shape) + 0.5 * rng.normal(size=channels)
    return rows.astype(np.float32)


def layer(
    seed: int, channels: int, outputs: int = 8
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, weight, steps (coarse, so that rounding shows), second moments."""
    rows = correlated(seed, channels)
    rng = np.random.default_rng(seed + 1)
    weight = rng.normal(size=(outputs, channels)).astype(np.float32)
    scale = (np.abs(weight).max(axis=1) / 7 * rng.uniform(0.5, 1, outputs)).astype(np.float32)
    moments = (rows.T @ rows / len(rows)).astype(np.float32)
    return rows, weight, scale, moments


def damped(moments: np.ndarray, noise: float) -> np.ndarray:
    """The quadratic form that is minimized."""
    channels = len(moments)
    added = noise + _DAMPING * np.trace(moments.astype(np.float64)) / channels
    return moments.astype(np.float64) + added * np.eye(channels)


def literal_gptq(
    weight: np.ndarray, scale: np.ndarray, moments: np.ndarray, noise: float, limit: int
) -> np.ndarray:
    """Algorithm 1 of the paper without its speed-ups, after sections 3.1 and 3.2.

    After each column, the inverse Hessian loses it by one step of Gaussian elimination (equation
    3), and what is still float moves by equation 2. No blocks, no Cholesky factor.
    """
    hessian = damped(moments, noise)
    order = sorted(range(len(hessian)), key=lambda channel: -hessian[channel, channel])
    float_weight = weight.astype(np.float64).copy()
    inverse = np.linalg.inv(hessian)
    integers = np.zeros(weight.shape, np.int64)
    for place, q in enumerate(order):
        for row in range(len(weight)):
            step = float(scale[row])
            nearest = min(max(round(float_weight[row, q] / step), -limit), limit)
            integers[row, q] = nearest
            error = (float_weight[row, q] - nearest * step) / inverse[q, q]
            for later in order[place:]:
                float_weight[row, later] -= error * inverse[q, later]
        inverse = inverse - np.outer(inverse[:, q], inverse[q, :]) / inverse[q, q]
    return integers


def form(weight: np.ndarray, integers: np.ndarray, scale: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Value of the quadratic form for each output channel, shape [out]."""
    error = weight.astype(np.float64) - integers * scale[:, None].astype(np.float64)
    return np.einsum("oi,ij,oj->o", error, h, error)


def nearest(weight: np.ndarray, scale: np.ndarray, limit: int = 127) -> np.ndarray:
    return np.clip(np.rint(weight / scale[:, None]), -limit, limit).astype(np.int8)


# ----------------------------------------------------------------------- the algorithm


@pytest.mark.parametrize("channels", [1, 2, 17, 127, 128, 129, 300])
def test_blocks_are_the_paper_s_algorithm(channels: int) -> None:
    _, weight, scale, moments = layer(channels, channels, outputs=3)
    found = round_compensated(weight, scale, moments, NOISE)
    assert found.dtype == np.int8
    assert found.shape == weight.shape
    expected = literal_gptq(weight, scale, moments, NOISE, 127)
    # One tie that falls to the other side in float64 changes what comes behind it.
    assert (found == expected).mean() > 0.999
    assert (found != nearest(weight, scale)).any() or channels == 1


def test_another_damping_is_another_rounding() -> None:
    """The twin: the reference tells dampings apart."""
    _, weight, scale, moments = layer(0, 129)
    more = np.trace(moments) / 129
    found = round_compensated(weight, scale, moments, NOISE)
    assert (found != literal_gptq(weight, scale, moments, NOISE + more, 127)).any()


def test_channels_may_come_in_any_order() -> None:
    _, weight, scale, moments = layer(1, 40)
    order = np.random.default_rng(0).permutation(40)
    found = round_compensated(weight, scale, moments, NOISE)
    turned = round_compensated(weight[:, order], scale, moments[np.ix_(order, order)], NOISE)
    np.testing.assert_array_equal(turned, found[:, order])


def test_output_channels_do_not_know_of_each_other() -> None:
    _, weight, scale, moments = layer(2, 40)
    found = round_compensated(weight, scale, moments, NOISE)
    alone = round_compensated(weight[3:4], scale[3:4], moments, NOISE)
    np.testing.assert_array_equal(alone, found[3:4])


# --------------------------------------------------------------------------- never worse


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), channels=st.integers(1, 160), noise=st.floats(0, 1))
def test_it_lowers_the_quadratic_form(seed: int, channels: int, noise: float) -> None:
    """Greedy rounding may lose on one row by bad luck, but not on 32 of them together."""
    _, weight, scale, moments = layer(seed, channels, outputs=32)
    h = damped(moments, noise)
    found = round_compensated(weight, scale, moments, noise)
    compensated = form(weight, found, scale, h).sum()
    assert compensated <= form(weight, nearest(weight, scale), scale, h).sum() * (1 + 1e-6)


def test_real_outputs_move_less() -> None:
    rows, weight, scale, moments = layer(5, 96, outputs=32)
    found = round_compensated(weight, scale, moments, NOISE)
    moved = {
        name: np.square(rows @ (weight - one * scale[:, None]).T).mean()
        for name, one in (("compensated", found), ("nearest", nearest(weight, scale)))
    }
    assert moved["compensated"] < 0.5 * moved["nearest"]


def test_inputs_of_other_texts_are_not_made_up_for() -> None:
    """The twin: with the moments of other inputs, nothing is gained."""
    rows, weight, scale, _ = layer(6, 96, outputs=32)
    other = correlated(99, 96)
    found = round_compensated(weight, scale, other.T @ other / len(other), NOISE)
    moved = {
        name: np.square(rows @ (weight - one * scale[:, None]).T).mean()
        for name, one in (("compensated", found), ("nearest", nearest(weight, scale)))
    }
    assert moved["compensated"] > 0.9 * moved["nearest"]


@pytest.mark.parametrize("channels", [1, 5, 130])
def test_independent_inputs_are_rounded_to_nearest(channels: int) -> None:
    _, weight, scale, moments = layer(7, channels)
    found = round_compensated(weight, scale, np.diag(np.diag(moments)), NOISE)
    np.testing.assert_array_equal(found, nearest(weight, scale))


def test_inputs_of_zero_are_rounded_to_nearest() -> None:
    _, weight, scale, _ = layer(8, 20)
    found = round_compensated(weight, scale, np.zeros((20, 20), np.float32), 0.0)
    np.testing.assert_array_equal(found, nearest(weight, scale))


def test_it_agrees_with_the_product_s_nearest_rounding() -> None:
    """Steps from `weight_scale`, as a plan has them."""
    _, weight, _, _ = layer(9, 30)
    scale = weight_scale(weight, 0)
    found = round_compensated(weight, scale, np.eye(30, dtype=np.float32), NOISE)
    np.testing.assert_array_equal(found, round_weight(weight, scale, 0))


# --------------------------------------------------------------------------------- limits


@pytest.mark.parametrize("limit", [127, 63, 5])
def test_integers_keep_to_a_limit(limit: int) -> None:
    _, weight, scale, moments = layer(10, 150)
    found = round_compensated(weight, scale / 40, moments, NOISE, limit)
    assert np.abs(found.astype(int)).max() == limit
    expected = literal_gptq(weight[:2], scale[:2] / 40, moments, NOISE, limit)
    assert (found[:2] == expected).mean() > 0.99


def test_each_row_keeps_to_its_own_limit() -> None:
    _, weight, scale, moments = layer(11, 150, outputs=6)
    limits = np.array([127, 63, 127, 63, 1, 10])
    found = round_compensated(weight, scale / 40, moments, NOISE, limits)
    np.testing.assert_array_equal(np.abs(found.astype(int)).max(axis=1), limits)
    for row, limit in enumerate(limits):
        one = round_compensated(weight[row : row + 1], scale[row : row + 1] / 40, moments, NOISE,
                                int(limit))  # fmt: skip
        np.testing.assert_array_equal(one, found[row : row + 1])


# -------------------------------------------------------------------------------- refusals


def test_moments_of_another_layer_are_refused() -> None:
    _, weight, scale, moments = layer(12, 20)
    with pytest.raises(CalibrationError, match=r"\(19, 19\) for a weight of 20 channels"):
        round_compensated(weight, scale, moments[:19, :19], NOISE)


@pytest.mark.parametrize("damage", ["indefinite", "negative", "nan", "infinite"])
def test_moments_of_no_inputs_are_refused(damage: str) -> None:
    _, weight, scale, moments = layer(13, 20)
    if damage == "indefinite":
        moments[2, 7] = moments[7, 2] = 40 * np.abs(moments).max()
    elif damage == "negative":
        moments = -moments
    else:
        moments[2, 7] = moments[7, 2] = np.nan if damage == "nan" else np.inf
    with pytest.raises(CalibrationError, match="no covariance") as caught:
        round_compensated(weight, scale, moments, NOISE)
    assert "calibrate again" in caught.value.hint


def test_arguments_are_left_as_they_are() -> None:
    _, weight, scale, moments = layer(14, 20)
    kept = [one.copy() for one in (weight, scale, moments)]
    round_compensated(weight, scale, moments, NOISE)
    for one, before in zip((weight, scale, moments), kept, strict=True):
        np.testing.assert_array_equal(one, before)
    wide = moments.astype(np.float64)
    round_compensated(weight, scale, wide, NOISE)
    np.testing.assert_array_equal(wide, moments)


# ---------------------------------------------------------------------------------- biases


@pytest.mark.parametrize("with_bias", [True, False])
def test_the_bias_keeps_the_mean_output(with_bias: bool) -> None:
    rows, weight, scale, _ = layer(15, 50)
    rounded = nearest(weight, scale) * scale[:, None]
    bias = np.linspace(-1, 1, 8).astype(np.float32) if with_bias else None
    mean = rows.astype(np.float64).mean(axis=0)
    found = corrected_bias(weight, rounded, mean, bias)
    assert found.dtype == np.float32
    own = 0 if bias is None else bias.astype(np.float64)
    exact = (rows.astype(np.float64) @ weight.T.astype(np.float64) + own).mean(axis=0)
    now = (rows.astype(np.float64) @ rounded.T.astype(np.float64)).mean(axis=0)
    # The bias itself is float32.
    np.testing.assert_allclose(now + found, exact, atol=4e-7 * np.abs(exact).max() + 1e-7)
    assert np.abs(now + own - exact).max() > 1e-3, "without the correction the mean moves"


def test_exact_weights_need_no_correction() -> None:
    _, weight, _, _ = layer(16, 50)
    bias = np.ones(8, np.float32)
    found = corrected_bias(weight, weight.copy(), np.ones(50), bias)
    np.testing.assert_array_equal(found, bias)
