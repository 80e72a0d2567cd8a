"""Scales and zero points keep their promises for any range and any weight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from targets.quantization.calibrators import Range
from targets.quantization.integers import (
    TensorParameters,
    activation_parameters,
    round_weight,
    weight_limit,
    weight_scale,
)

FLOAT32 = np.dtype(np.float32)
FLOAT16 = np.dtype(np.float16)

ends = st.floats(0, 1e30, allow_subnormal=True)
ranges = st.tuples(ends, ends).filter(any).map(lambda two: Range(low=0.0 - two[0], high=two[1]))
half_ends = st.floats(0, 6e4)
half_ranges = (
    st.tuples(half_ends, half_ends).filter(any).map(lambda p: Range(low=0.0 - p[0], high=p[1]))
)
schemes = st.sampled_from([("U8S8", False), ("S8S8", False), ("S8S8", True), ("U8U8", False)])


def levels(parameters: TensorParameters) -> tuple[float, float]:
    """The least and the largest value that the integers stand for."""
    info = np.iinfo(parameters.zero_point.dtype)
    scale, zero = float(parameters.scale), int(parameters.zero_point)
    return scale * (int(info.min) - zero), scale * (int(info.max) - zero)


def promises(chosen: Range, parameters: TensorParameters, symmetric: bool) -> None:
    scale = float(parameters.scale)
    assert parameters.scale.shape == parameters.zero_point.shape == ()
    assert np.isfinite(parameters.scale)
    assert scale > 0
    low, high = levels(parameters)
    # Zero is an integer, hence exact, and no end is clipped by more than half a step
    # (and the rounding of the scale itself).
    slack = 0.5 * scale + 0.002 * max(high, -low)
    assert low <= 0 <= high
    assert low <= chosen.low + slack
    assert high >= chosen.high - slack
    assert not symmetric or parameters.zero_point == 0


@given(ranges, schemes)
@example(Range(low=0.0, high=1e-45), ("U8S8", False))
@example(Range(low=-1e-45, high=0.0), ("S8S8", True))
@example(Range(low=-5.0, high=0.0), ("S8S8", False))
@example(Range(low=0.0, high=5.0), ("U8S8", False))
def test_any_range_in_float32(chosen: Range, scheme: tuple[str, bool]) -> None:
    integers, symmetric = scheme
    parameters = activation_parameters(chosen, integers, symmetric=symmetric, dtype=FLOAT32)
    promises(chosen, parameters, symmetric)
    assert parameters.scale.dtype == np.float32
    assert parameters.scale >= np.finfo(np.float32).smallest_normal


@given(half_ranges, schemes)
def test_any_range_in_float16(chosen: Range, scheme: tuple[str, bool]) -> None:
    integers, symmetric = scheme
    parameters = activation_parameters(chosen, integers, symmetric=symmetric, dtype=FLOAT16)
    assert parameters.scale.dtype == np.float16
    # Below, float16 has fewer than 8 bits left for a scale.
    if max(chosen.high, -chosen.low) > 0.01:
        promises(chosen, parameters, symmetric)
    assert parameters.scale > 0


@given(ranges)
def test_unsigned_and_signed_stand_for_the_same_values(chosen: Range) -> None:
    signed, unsigned = (
        activation_parameters(chosen, one, symmetric=False, dtype=FLOAT32)
        for one in ("S8S8", "U8S8")
    )
    assert signed.scale == unsigned.scale
    assert int(signed.zero_point) == int(unsigned.zero_point) - 128
    assert levels(signed) == levels(unsigned)


matrices = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    elements=st.floats(-(2.0**99), 2.0**99, width=32),
)


@settings(max_examples=200)
@given(matrices, st.sampled_from([0, 1]), st.booleans())
def test_any_weight(weight: np.ndarray, axis: int, reduce_range: bool) -> None:
    scale = weight_scale(weight, axis, reduce_range=reduce_range)
    integers = round_weight(weight, scale, axis, reduce_range=reduce_range)
    limit = weight_limit(reduce_range)
    assert scale.shape == (weight.shape[axis],)
    assert (integers.dtype, integers.shape) == (np.int8, weight.shape)
    assert np.all(np.isfinite(scale) & (scale > 0))
    assert np.abs(integers.astype(int)).max() <= limit
    step = np.expand_dims(scale.astype(float), 1 - axis)
    # One part in a million for the rounding of the scale in float32.
    assert np.all(np.abs(integers * step - weight) <= step * 0.501 + np.abs(weight) * 1e-6)
    largest = np.abs(integers.astype(int)).max(axis=1 - axis)
    silent = np.abs(weight).max(axis=1 - axis) / limit < np.finfo(np.float32).smallest_normal
    assert np.all((largest == limit) | silent)


@given(matrices)
def test_the_other_axis_is_the_other_matrix(weight: np.ndarray) -> None:
    turned = np.ascontiguousarray(weight.T)
    scale = weight_scale(weight, 1)
    assert np.array_equal(scale, weight_scale(turned, 0))
    assert np.array_equal(round_weight(weight, scale, 1).T, round_weight(turned, scale, 0))


@pytest.mark.parametrize("reduce_range", [False, True])
def test_reduced_weights_cannot_saturate_pairs(reduce_range: bool) -> None:
    """The sum of two products of U8 and S8 in 16 bits, as AVX2's vpmaddubsw adds them."""
    largest = 2 * 255 * weight_limit(reduce_range)
    assert (largest <= np.iinfo(np.int16).max) is reduce_range
