"""The prediction is tight and the simulation exact, for any integers."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from targets.quantization.integers import largest_weight_integer, round_weight, weight_scale
from targets.quantization.overflow import count_saturated, predict, simulate_pairs


@st.composite
def layers(draw, limit: int = 128, multiple: int = 4):
    """Activations [rows, channels] and weights [out, channels]; extremes are frequent."""
    channels = multiple * draw(st.integers(1, 4 if multiple == 4 else 13))
    rows, outputs = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    bytes_ = st.one_of(st.integers(0, 255), st.sampled_from([0, 255]))
    weights = st.one_of(
        st.integers(-limit, min(limit, 127)), st.sampled_from([-limit, min(limit, 127)])
    )
    return (
        draw(hnp.arrays(np.uint8, (rows, channels), elements=bytes_)),
        draw(hnp.arrays(np.int8, (outputs, channels), elements=weights)),
    )


def exact(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return activations.astype(np.int64) @ weights.astype(np.int64).T


def clipped(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    products = activations[:, None, :].astype(np.int64) * weights[None].astype(np.int64)
    if products.shape[-1] % 2:
        products = np.pad(products, ((0, 0), (0, 0), (0, 1)))
    return np.clip(products[..., ::2] + products[..., 1::2], -32768, 32767).sum(axis=-1)


@given(layers(multiple=1))
def test_the_simulation_clips_pairs_and_nothing_else(case):
    np.testing.assert_array_equal(simulate_pairs(*case), clipped(*case))


@given(layers())
def test_rows_within_safe_extremes_are_multiplied_exactly(case):
    activations, weights = case
    found = predict("layer", weights, activations.min(axis=0), activations.max(axis=0))
    assert found.pairs_at_risk <= found.num_pairs
    assert (found.worst > 1) == (found.pairs_at_risk > 0)
    if not found.pairs_at_risk:
        assert count_saturated(activations, weights) == 0
        np.testing.assert_array_equal(simulate_pairs(*case), exact(*case))


@given(layers())
def test_every_pair_at_risk_has_a_row_that_saturates_it(case):
    """No false alarm: the corner of the channels' extremes that a pair's signs ask for."""
    activations, weights = case
    lowest, highest = activations.min(axis=0), activations.max(axis=0)
    found = predict("layer", weights, lowest, highest)
    most = np.where(weights > 0, highest, lowest)
    least = np.where(weights > 0, lowest, highest)
    reached = sum(
        count_saturated(corner[None, pair : pair + 2], weights[None, row, pair : pair + 2])
        for corners in (most, least)
        for row, corner in enumerate(corners)
        for pair in range(0, weights.shape[1], 2)
    )
    assert reached >= found.pairs_at_risk
    assert (reached > 0) == (found.pairs_at_risk > 0)


@given(layers())
def test_the_worst_sum_is_that_of_a_corner(case):
    activations, weights = case
    lowest, highest = activations.min(axis=0), activations.max(axis=0)
    low, high = weights * lowest.astype(int), weights * highest.astype(int)
    corners = [one[:, ::2] + other[:, 1::2] for one in (low, high) for other in (low, high)]
    parts = np.where(np.array(corners) > 0, np.array(corners) / 32767, np.array(corners) / -32768)
    assert predict("layer", weights, lowest, highest).worst == parts.max()


@given(layers(limit=largest_weight_integer(reduce_range=True), multiple=1))
def test_seven_bits_are_multiplied_exactly(case):
    np.testing.assert_array_equal(simulate_pairs(*case), exact(*case))
    assert count_saturated(*case) == 0


@settings(max_examples=50)
@given(
    hnp.arrays(np.float32, (4, 8), elements=st.floats(-1e3, 1e3, width=32)),
    hnp.arrays(np.uint8, (5, 8)),
)
def test_weights_rounded_to_seven_bits_are_safe_whatever_they_were(weight, activations):
    scale = weight_scale(weight, 0, reduce_range=True)
    integers = round_weight(weight, scale, 0, reduce_range=True)
    everything = np.zeros(8, np.uint8), np.full(8, 255, np.uint8)
    assert predict("layer", integers, *everything).pairs_at_risk == 0
    assert count_saturated(activations, integers) == 0
