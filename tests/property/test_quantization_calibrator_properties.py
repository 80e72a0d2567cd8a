"""Histograms do not depend on order and split; ranges follow the data's scale and hold zero."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from targets.quantization.calibrators import (
    NUM_ENTROPY_BINS,
    absolute_bins,
    choose_range,
    entropy_divergences,
    squared_errors,
)
from targets.quantization.histogram import StreamingHistogram
from targets.quantization.statistics import StreamingStatistics, TensorStatistics

UNHURRIED = settings(deadline=None)
FEW = settings(deadline=None, max_examples=30)
"""For searches over large samples."""

METHODS = st.sampled_from(["minmax", "percentile", "entropy", "mse"])
PERCENTILES = st.floats(1, 100)

ANY_FLOATS = hnp.arrays(
    np.float32,
    st.integers(1, 60),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)
"""All of float32, down to subnormals and up to its largest."""


def batches(values: np.ndarray) -> st.SearchStrategy[list[np.ndarray]]:
    """Draw an order and a split of values."""
    cuts = st.lists(st.integers(0, values.size), max_size=4).map(sorted)
    return st.tuples(st.permutations(list(range(values.size))), cuts).map(
        lambda drawn: np.split(values[drawn[0]], drawn[1])
    )


def streamed(parts: list[np.ndarray]) -> StreamingHistogram:
    streaming = StreamingHistogram()
    for part in parts:
        streaming.add(part)
    return streaming


def assert_same(one: StreamingHistogram, other: StreamingHistogram) -> None:
    first, second = one.state(), other.state()
    assert int(first["exponent"]) == int(second["exponent"])
    np.testing.assert_array_equal(first["counts"], second["counts"])


def statistics_of(values: np.ndarray) -> TensorStatistics:
    streaming = StreamingStatistics(None)
    streaming.add(np.asarray(values, np.float32))
    return streaming.freeze()


def draw_values(kind: str, size: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal(size)
    values = {
        "normal": normal,
        "relu": np.maximum(normal, 0),
        "gelu": normal / (1 + np.exp(-1.702 * normal)),
        "heavy": rng.standard_t(2, size),
        "negative": -np.abs(normal),
        "shifted": 5 + normal,
        "constant": np.full(size, normal[0]),
        "few": rng.choice(normal[:3], size),
        "outlier": np.append(normal * 1e-4, 30.0),
    }[kind]
    return values.astype(np.float32)


VALUES = st.builds(
    draw_values,
    st.sampled_from(
        ["normal", "relu", "gelu", "heavy", "negative", "shifted", "constant", "few", "outlier"]
    ),
    st.integers(3, 3000),
    st.integers(0, 2**32 - 1),
)
SMOOTH = st.builds(
    draw_values,
    st.sampled_from(["normal", "relu", "gelu", "heavy"]),
    st.just(20_000),
    st.integers(0, 2**32 - 1),
)


# --------------------------------------------------------------------------- histograms


@UNHURRIED
@given(st.data(), ANY_FLOATS)
def test_order_and_split_do_not_matter(data, values):
    assert_same(streamed(data.draw(batches(values))), streamed([values]))


@UNHURRIED
@given(st.data(), ANY_FLOATS)
def test_counts_are_those_of_the_covering_bins(data, values):
    histogram = streamed(data.draw(batches(values))).freeze()
    assert histogram.num_values == values.size
    # In float64 the quotient by a power of two is exact for every float32.
    bins = np.floor(values.astype(np.float64) / histogram.bin_width) - histogram.first_bin
    expected = np.bincount(bins.astype(int), minlength=histogram.counts.size)
    np.testing.assert_array_equal(histogram.counts, expected)


@UNHURRIED
@given(ANY_FLOATS, ANY_FLOATS)
def test_merging_is_adding(one, other):
    merged, reverse = streamed([one]), streamed([other])
    merged.merge(streamed([other]))
    reverse.merge(streamed([one]))
    assert_same(merged, streamed([one, other]))
    assert_same(reverse, merged)


@UNHURRIED
@given(st.data(), ANY_FLOATS)
def test_a_kill_anywhere_changes_nothing(data, values):
    parts = data.draw(batches(values))
    interrupted = StreamingHistogram()
    for part in parts:
        interrupted.add(part)
        interrupted = StreamingHistogram.restore(interrupted.state())
    assert_same(interrupted, streamed(parts))


@UNHURRIED
@given(ANY_FLOATS)
def test_the_larger_side_has_at_least_2048_bins(values):
    assume(np.abs(values).max() >= 2.0**-114)
    histogram = streamed([values]).freeze()
    assert 2048 <= np.abs(values).max().astype(np.float64) / histogram.bin_width < 4096


# ------------------------------------------------------------------------------- ranges


@UNHURRIED
@given(VALUES, METHODS, st.booleans(), PERCENTILES)
def test_ranges_hold_zero_and_nothing_unseen(values, method, symmetric, percentile):
    assume(values.any())
    statistics = statistics_of(values)
    chosen = choose_range(statistics, method, symmetric=symmetric, percentile=percentile)
    assert chosen.low <= 0 <= chosen.high
    assert chosen.low < chosen.high
    if symmetric:
        assert chosen.low == -chosen.high
        assert chosen.high <= statistics.absmax
    else:
        assert chosen.low >= min(statistics.minimum, 0)
        assert chosen.high <= max(statistics.maximum, 0)


@UNHURRIED
@given(ANY_FLOATS, METHODS, st.booleans())
def test_any_finite_values_have_a_range_with_a_usable_scale(values, method, symmetric):
    chosen = choose_range(statistics_of(values), method, symmetric=symmetric)
    assert chosen.low <= 0 <= chosen.high
    scale = np.float32((chosen.high - chosen.low) / 255)
    assert np.finfo(np.float32).tiny <= scale < np.inf


@UNHURRIED
@given(VALUES, METHODS, st.booleans(), st.integers(-40, 40))
def test_a_power_of_two_scales_the_range_exactly(values, method, symmetric, exponent):
    assume(np.abs(values).max() > 1e-6)
    scale = 2.0**exponent
    plain = choose_range(statistics_of(values), method, symmetric=symmetric)
    scaled = choose_range(statistics_of(values * scale), method, symmetric=symmetric)
    assert (scaled.low, scaled.high) == (plain.low * scale, plain.high * scale)


@FEW
@given(VALUES, METHODS)
def test_a_mirror_image_has_the_mirrored_range(values, method):
    assume(values.any())  # zeros have a small range on one side, whatever that side is
    statistics, mirrored = statistics_of(values), statistics_of(-values)
    width = statistics.histogram.bin_width
    one = choose_range(statistics, method, symmetric=False)
    other = choose_range(mirrored, method, symmetric=False)
    if method == "mse":
        # Ties and half-open bins may choose another of two equally good ranges.
        assert (
            error_of(statistics, one.low, one.high)
            <= 1.05 * error_of(statistics, -other.high, -other.low) + 1e-9 * statistics.absmax**2
        )
    elif method != "entropy":
        assert other.high == pytest.approx(-one.low, abs=2 * width)
        assert other.low == pytest.approx(-one.high, abs=2 * width)


def error_of(statistics: TensorStatistics, low: float, high: float) -> float:
    width = statistics.histogram.bin_width
    ends = np.array([low]) / width, np.array([high]) / width
    return float(squared_errors(statistics.histogram, *ends, 256, False)[0]) * width**2


FACTORS = st.floats(1e-6, 1e6)


@FEW
@given(SMOOTH, st.sampled_from(["minmax", "percentile"]), st.booleans(), FACTORS)
def test_any_factor_scales_the_range_within_a_bin(values, method, symmetric, factor):
    statistics = statistics_of(values)
    plain = choose_range(statistics, method, symmetric=symmetric)
    scaled = choose_range(statistics_of(values * factor), method, symmetric=symmetric)
    near = 2 * statistics.histogram.bin_width
    assert scaled.low / factor == pytest.approx(plain.low, abs=near)
    assert scaled.high / factor == pytest.approx(plain.high, abs=near)


@FEW
@given(SMOOTH, FACTORS)
def test_any_factor_gives_a_range_of_nearly_the_same_error(values, factor):
    # Between two ranges that are equally good the choice may change; what it costs may not.
    statistics = statistics_of(values)
    plain = choose_range(statistics, "mse", symmetric=False)
    scaled = choose_range(statistics_of(values * factor), "mse", symmetric=False)
    assert error_of(statistics, scaled.low / factor, scaled.high / factor) <= 1.03 * error_of(
        statistics, plain.low, plain.high
    )


@FEW
@given(SMOOTH, FACTORS)
def test_any_factor_gives_a_threshold_of_nearly_the_same_divergence(values, factor):
    statistics = statistics_of(values)
    divergences = entropy_divergences(absolute_bins(statistics))
    scaled = choose_range(statistics_of(values * factor), "entropy", symmetric=True)
    bins = round(scaled.high / factor / statistics.absmax * NUM_ENTROPY_BINS - 0.5)
    candidate = min(bins, NUM_ENTROPY_BINS) - 128
    # Borders of bins move with the factor, and single candidates diverge without bound.
    near = divergences[max(candidate - 8, 0) : candidate + 9].min()
    assert near <= 1.5 * divergences.min() + 1e-4


@UNHURRIED
@given(VALUES, st.booleans(), PERCENTILES, PERCENTILES)
def test_a_higher_percentile_never_clips_more(values, symmetric, one, other):
    statistics = statistics_of(values)
    smaller, larger = (
        choose_range(statistics, "percentile", symmetric=symmetric, percentile=p)
        for p in sorted((one, other))
    )
    assert larger.low <= smaller.low
    assert smaller.high <= larger.high


@UNHURRIED
@given(VALUES, st.floats(50, 100))
def test_a_percentile_keeps_its_share_of_the_values(values, percentile):
    statistics = statistics_of(values)
    chosen = choose_range(statistics, "percentile", symmetric=False, percentile=percentile)
    width = statistics.histogram.bin_width
    inside = (values >= chosen.low - width) & (values <= chosen.high + width)
    assert inside.sum() >= np.floor(percentile / 100 * values.size)


@FEW
@given(VALUES, st.booleans())
def test_the_least_error_is_not_above_that_of_the_other_methods(values, symmetric):
    statistics = statistics_of(values)
    width = statistics.histogram.bin_width

    def error(method: str) -> float:
        chosen = choose_range(statistics, method, symmetric=symmetric)
        ends = np.array([chosen.low]) / width, np.array([chosen.high]) / width
        return float(squared_errors(statistics.histogram, *ends, 256, symmetric)[0])

    # The widest range is among its candidates; thresholds of others lie between grid points.
    assert error("mse") <= error("minmax") * (1 + 1e-9)
    assert error("mse") <= 1.05 * min(error("percentile"), error("entropy")) + 0.1


@FEW
@given(st.sampled_from(["relu", "negative"]), METHODS, st.integers(0, 999))
def test_one_sided_tensors_spend_no_level_on_the_other_side(kind, method, seed):
    chosen = choose_range(statistics_of(draw_values(kind, 3000, seed)), method, symmetric=False)
    assert (chosen.low if kind == "relu" else chosen.high) == 0


@FEW
@given(st.integers(0, 999), st.sampled_from(["percentile", "entropy", "mse"]))
def test_heavy_tails_are_clipped_and_the_bulk_is_kept(seed, method):
    values = draw_values("heavy", 20_000, seed)
    second, largest = np.sort(np.abs(values))[-2:]
    # Where all others lie below the lowest threshold (128 of 2,048 bins), clipping the largest
    # would put it into a bin that the rounded distribution leaves empty: infinitely divergent.
    assume(method != "entropy" or second > largest / 16)
    chosen = choose_range(statistics_of(values), method, symmetric=True, percentile=99.9)
    assert chosen.high < largest
    assert np.mean(np.abs(values) <= chosen.high) > 0.95


def test_entropy_keeps_a_value_that_stands_alone_beyond_all_thresholds():
    """Four of a thousand seeds draw one; the divergence of two histograms cannot but keep it."""
    values = draw_values("heavy", 20_000, 70)
    second, largest = np.sort(np.abs(values))[-2:]
    assert second < largest / 16
    kept = choose_range(statistics_of(values), "entropy", symmetric=True, percentile=99.9)
    assert kept.high == pytest.approx(largest)
