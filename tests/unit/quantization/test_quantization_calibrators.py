"""Calibrators against ONNX Runtime, SciPy, numpy and brute force on the raw samples."""

import numpy as np
import pytest
import scipy.stats

from targets.contract import CALIBRATORS
from targets.errors import CalibrationError
from targets.quantization.calibrators import (
    ZERO_TENSOR_WIDTH,
    Range,
    absolute_bins,
    choose_range,
    entropy_divergences,
    squared_errors,
)
from targets.quantization.histogram import Histogram
from targets.quantization.statistics import StreamingStatistics, TensorStatistics

METHODS = [method for method in CALIBRATORS if method != "auto"]


def statistics_of(values) -> TensorStatistics:
    streaming = StreamingStatistics(None)
    streaming.add(np.asarray(values, np.float32))
    return streaming.freeze()


def gelu(values):
    return values * scipy.stats.norm.cdf(values)


def sample(kind: str, size: int = 100_000, seed: int = 0):
    rng = np.random.default_rng(seed)
    draw = {
        "normal": lambda: rng.standard_normal(size),
        "shifted": lambda: 3 + 0.1 * rng.standard_normal(size),
        "relu": lambda: np.maximum(rng.standard_normal(size), 0),
        "gelu": lambda: gelu(rng.standard_normal(size)),
        "laplace": lambda: rng.laplace(size=size),
        "heavy": lambda: rng.standard_t(2, size),
    }
    return draw[kind]().astype(np.float32)


KINDS = ["normal", "shifted", "relu", "gelu", "laplace", "heavy"]


# ----------------------------------------------------------------------------- all ways


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_zero_tensor_gets_a_tiny_range(method, symmetric):
    chosen = choose_range(statistics_of(np.zeros(9)), method, symmetric=symmetric)
    assert chosen.high == ZERO_TENSOR_WIDTH
    assert chosen.low == (-ZERO_TENSOR_WIDTH if symmetric else 0)
    assert np.float16((chosen.high - chosen.low) / 255) > 0


@pytest.mark.parametrize("method", METHODS)
def test_values_too_small_for_a_scale_count_as_zero(method):
    # A 255th part of 1e-44 is no float32.
    chosen = choose_range(statistics_of([1e-44, -1e-45]), method, symmetric=True)
    assert chosen.high == ZERO_TENSOR_WIDTH


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("constant", [3.0, -3.0, 1e-30])
def test_a_constant_is_representable(method, constant):
    # Within a bin, which is at most a 2048th of the constant.
    statistics = statistics_of(np.full(9, constant))
    chosen = choose_range(statistics, method, symmetric=False)
    near, far = sorted((chosen.low, chosen.high), key=abs)
    assert near == 0
    assert far == pytest.approx(statistics.minimum, rel=1 / 2048)
    both = choose_range(statistics, method, symmetric=True)
    # Signed integers reach one step further below zero than above.
    reach = 127 / 128 if constant < 0 and method == "mse" else 1.0
    assert both.high == -both.low == pytest.approx(reach * abs(constant), rel=1 / 2048)


@pytest.mark.parametrize("method", METHODS)
def test_a_lone_outlier_among_zeros_leaves_a_range(method):
    values = np.zeros(1_000_000)
    values[7] = -5
    chosen = choose_range(statistics_of(values), method, symmetric=False)
    assert -5 <= chosen.low < 0
    assert chosen.high == 0


def test_unknown_methods_are_refused():
    for method in ("auto", "median"):
        with pytest.raises(CalibrationError, match=method) as caught:
            choose_range(statistics_of([1.0]), method, symmetric=True)
        assert "minmax, percentile, entropy, mse" in caught.value.hint


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 0.0), (1.0, 2.0), (-2.0, -1.0), (0.0, np.inf), (np.nan, 1.0)]
)
def test_what_is_no_range_is_refused(low, high):
    with pytest.raises(CalibrationError, match="is no range"):
        Range(low=low, high=high)


def test_minmax_is_everything_and_zero():
    statistics = statistics_of([1.5, 4.0])
    assert choose_range(statistics, "minmax", symmetric=False) == Range(low=0.0, high=4.0)
    assert choose_range(statistics, "minmax", symmetric=True) == Range(low=-4.0, high=4.0)
    below = choose_range(statistics_of([-1.5, -4.0]), "minmax", symmetric=False)
    assert below == Range(low=-4.0, high=0.0)


# --------------------------------------------------------------------------- percentile


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.99])
def test_percentile_agrees_with_numpy_within_a_bin(kind, percentile):
    values = sample(kind)
    statistics = statistics_of(values)
    width = statistics.histogram.bin_width
    cut = (1 - percentile / 100) / 2
    ends = np.quantile(values, [cut, 1 - cut], method="inverted_cdf")
    chosen = choose_range(statistics, "percentile", symmetric=False, percentile=percentile)
    assert chosen.low == pytest.approx(min(ends[0], 0), abs=width)
    assert chosen.high == pytest.approx(max(ends[1], 0), abs=width)
    threshold = np.quantile(np.abs(values), percentile / 100, method="inverted_cdf")
    chosen = choose_range(statistics, "percentile", symmetric=True, percentile=percentile)
    assert chosen.high == pytest.approx(threshold, abs=width)


@pytest.mark.parametrize("kind", ["normal", "laplace", "heavy", "gelu"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_percentile_agrees_with_onnxruntime_within_a_bin(kind, symmetric):
    collector_type = onnxruntime_collector()
    # A prime number of values: no percentile falls exactly between two of them.
    statistics = statistics_of(sample(kind, 99_991))
    histogram, width = statistics.histogram, statistics.histogram.bin_width
    counts = histogram.absolute() if symmetric else histogram.counts
    first = 0 if symmetric else histogram.first_bin
    edges = ((first + np.arange(counts.size + 1)) * width).astype(np.float32)
    collector = collector_type("percentile", symmetric, 2048, 128, 99.9, None)
    ends = np.array([statistics.minimum, statistics.maximum], np.float32)
    collector.histogram_dict = {"x": (counts, edges, *ends)}
    low, high = collector.compute_percentile()["x"][:2]
    chosen = choose_range(statistics, "percentile", symmetric=symmetric, percentile=99.9)
    # It returns the lower edge of the bin that the percentile falls into, and its symmetric range
    # is none where it meets the minimum.
    assert chosen.high == pytest.approx(float(high), abs=width)
    assert chosen.low == pytest.approx(-float(high) if symmetric else float(low), abs=width)


def test_all_per_cent_are_everything():
    statistics = statistics_of(sample("gelu"))
    for symmetric in (False, True):
        everything = choose_range(statistics, "minmax", symmetric=symmetric)
        assert everything == choose_range(
            statistics, "percentile", symmetric=symmetric, percentile=100
        )


@pytest.mark.parametrize("percentile", [0.0, -1.0, 100.1, np.nan])
def test_impossible_percentiles_are_refused(percentile):
    with pytest.raises(CalibrationError, match="no percentile"):
        choose_range(statistics_of([1.0]), "percentile", symmetric=True, percentile=percentile)


# ------------------------------------------------------------------------------ entropy


def onnxruntime_collector():
    return pytest.importorskip("onnxruntime.quantization.calibrate").HistogramCollector


def published_divergence(counts, num_bins: int, num_levels: int) -> float:
    """Follow the pseudocode of Migacz (GTC 2017) line by line for one candidate."""
    reference = counts[:num_bins].astype(float)
    reference[-1] += counts[num_bins:].sum()
    candidate = np.zeros(num_bins)
    levels = np.array([j * num_levels // num_bins for j in range(num_bins)])
    for level in range(num_levels):
        members = levels == level
        occupied = members & (reference > 0)
        if occupied.any():
            candidate[occupied] = counts[:num_bins][members].sum() / occupied.sum()
    if candidate.sum() == 0:
        return np.inf
    return float(scipy.stats.entropy(reference, candidate))


@pytest.mark.parametrize("kind", KINDS)
def test_divergences_agree_with_scipy(kind):
    counts = absolute_bins(statistics_of(sample(kind)))
    divergences = entropy_divergences(counts)
    assert divergences.shape == (2048 - 128 + 1,)
    for num_bins in (128, 129, 191, 256, 300, 777, 1024, 1025, 2000, 2047, 2048):
        expected = published_divergence(counts, num_bins, 128)
        assert divergences[num_bins - 128] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_divergences_agree_with_scipy_on_sparse_counts():
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.02, 500) * rng.integers(1, 1000, 500).astype(float)
    counts[:5], counts[-1] = 1000, 3
    expected = [published_divergence(counts, i, 16) for i in range(16, 501)]
    assert np.isinf(expected).any()
    np.testing.assert_allclose(entropy_divergences(counts, 16), expected, rtol=1e-9, atol=1e-12)


def test_the_publications_own_example():
    # P = [1, 0, 2, 3, 5, 3, 1, 7] into two levels: Q = [6/3, 0, 6/3, 6/3, 16/4, 16/4, 16/4, 16/4].
    counts = np.array([1, 0, 2, 3, 5, 3, 1, 7], float)
    expected = scipy.stats.entropy(counts, [2, 0, 2, 2, 4, 4, 4, 4])
    assert entropy_divergences(counts, 2)[-1] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["normal", "laplace", "heavy", "t3", "t5", "lognormal"])
def test_entropy_agrees_with_onnxruntime_within_a_step(kind):
    """ONNX Runtime divides 2 i + 1 bins into 128 levels and leaves the remainder empty in Q.

    There is always one, it holds outliers of one side, and so it punishes clipping harder, least
    at i = 64, 128, … bins of one sign. Among these its threshold is ours or the next.
    """
    rng = np.random.default_rng(1)
    draw = {"t3": 3, "t5": 5}
    if kind in draw:
        values = rng.standard_t(draw[kind], 1_000_000)
    elif kind == "lognormal":
        values = np.exp(rng.standard_normal(1_000_000))
    else:
        values = sample(kind, 1_000_000)
    counts, edges = np.histogram(np.abs(values), 1024, (0, np.abs(values).max()))
    divergences = entropy_divergences(counts.astype(float), 64)
    even = np.arange(64, 1025, 64)
    ours = even[np.argmin(divergences[even - 64])]
    assert -10 <= onnxruntime_threshold(counts, edges) - ours <= 64 + 10


def onnxruntime_threshold(counts, edges) -> int:
    """Let ONNX Runtime choose on the mirrored histogram; in bins."""
    # Its Q is rounded down to integers: many counts keep that small.
    mirrored = np.concatenate([counts[::-1], counts]) * 1000
    both = np.concatenate([-edges[:0:-1], edges]).astype(np.float32)
    collector = onnxruntime_collector()("entropy", False, 2048, 128, 99.99, None)
    ends = (both[0], both[-1], both[-1])
    high = collector.get_entropy_threshold((mirrored, both, *ends), 128)[1]
    return round(float(high / edges[1])) - 1


def test_the_absolute_bins_hold_every_value():
    values = sample("normal")
    statistics = statistics_of(values)
    counts = absolute_bins(statistics)
    assert counts.shape == (2048,)
    assert counts.sum() == pytest.approx(values.size, abs=1e-6)
    exact, _ = np.histogram(np.abs(values), 2048, (0, statistics.absmax))
    # A bin's share is moved, never more than what lies in two narrow bins.
    cumulative = np.abs(np.cumsum(counts) - np.cumsum(exact)).max()
    assert cumulative <= statistics.histogram.absolute().max()
    assert counts[-1] > 0


def test_empty_bins_stay_empty():
    counts = absolute_bins(statistics_of([0.0, 0.5, -0.5, 1.0]))
    assert np.count_nonzero(counts) <= 5
    assert counts[2047] == 1


def test_entropy_clips_outliers_and_not_what_is_even():
    bulk = sample("normal")
    with_outliers = np.append(bulk, [30.0, -40.0])
    clipped = choose_range(statistics_of(with_outliers), "entropy", symmetric=True)
    assert 2 < clipped.high < 10
    even = np.linspace(-1, 1, 100_001)
    assert choose_range(statistics_of(even), "entropy", symmetric=True).high > 0.99


@pytest.mark.parametrize("kind", ["normal", "gelu", "laplace", "heavy"])
def test_the_entropy_threshold_is_the_middle_of_the_published_bin(kind):
    statistics = statistics_of(sample(kind))
    best = 128 + int(np.argmin(entropy_divergences(absolute_bins(statistics))))
    expected = min((best + 0.5) * statistics.absmax / 2048, statistics.absmax)
    chosen = choose_range(statistics, "entropy", symmetric=True)
    assert chosen.high == pytest.approx(expected, rel=1e-12)


def test_of_equal_divergences_the_widest_is_taken():
    # At 205 bins everything lies in the last one, which is as good as losing nothing.
    statistics = statistics_of([0.1, 1.0])
    divergences = entropy_divergences(absolute_bins(statistics))
    assert np.sum(divergences <= divergences.min() + 1e-12) > 1
    assert choose_range(statistics, "entropy", symmetric=True).high == 1


def test_entropy_does_not_clip_most_of_a_tensor_far_from_zero():
    values = sample("shifted")
    chosen = choose_range(statistics_of(values), "entropy", symmetric=True)
    assert np.mean(values > chosen.high) < 0.5


def test_an_asymmetric_entropy_range_is_clipped_to_the_threshold():
    statistics = statistics_of(sample("gelu"))
    threshold = choose_range(statistics, "entropy", symmetric=True).high
    chosen = choose_range(statistics, "entropy", symmetric=False)
    assert chosen.low == statistics.minimum
    assert chosen.high == threshold < statistics.maximum


# -------------------------------------------------------------------------------- error


def quantization_error(values, low: float, high: float, symmetric: bool, num_levels=256) -> float:
    """Quantize the samples themselves."""
    values = values.astype(np.float64)
    if symmetric:
        scale, smallest = high / (num_levels // 2 - 1), -(num_levels // 2)
    else:
        scale = (high - low) / (num_levels - 1)
        smallest = -np.rint(-low / scale)
    integers = np.clip(np.rint(values / scale), smallest, smallest + num_levels - 1)
    return float(np.mean((integers * scale - values) ** 2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_levels", [256, 128])
def test_mse_symmetric_is_as_good_as_brute_force(kind, num_levels):
    values = sample(kind, 20_000)
    statistics = statistics_of(values)
    chosen = choose_range(statistics, "mse", symmetric=True, num_levels=num_levels)
    grid = statistics.absmax * np.linspace(0.02, 1, 150)
    best = min(quantization_error(values, -t, t, True, num_levels) for t in grid)
    ours = quantization_error(values, chosen.low, chosen.high, True, num_levels)
    assert ours <= 1.01 * best
    everything = quantization_error(values, -statistics.absmax, statistics.absmax, True, num_levels)
    assert ours <= 1.001 * everything


@pytest.mark.parametrize("kind", KINDS)
def test_mse_asymmetric_is_as_good_as_brute_force(kind):
    values = sample(kind, 20_000)
    statistics = statistics_of(values)
    chosen = choose_range(statistics, "mse", symmetric=False)
    lows = np.unique(min(statistics.minimum, 0) * np.linspace(0.1, 1, 19))
    highs = max(statistics.maximum, 0) * np.linspace(0.1, 1, 19)
    best = min(quantization_error(values, a, b, False) for a in lows for b in highs)
    assert quantization_error(values, chosen.low, chosen.high, False) <= 1.01 * best


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_error_of_the_histogram_is_that_of_the_samples(kind, symmetric):
    values = sample(kind)
    statistics = statistics_of(values)
    width = statistics.histogram.bin_width
    low, high = min(statistics.minimum, 0.0), statistics.maximum
    for part in (0.2, 0.5, 1.0):
        lows, highs = np.array([low * part / width]), np.array([high * part / width])
        estimate = squared_errors(statistics.histogram, lows, highs, 256, symmetric)[0] * width**2
        exact = quantization_error(values, low * part, high * part, symmetric)
        # Exact zeros count as spread over their bin, which costs a third of its square.
        assert estimate == pytest.approx(exact, rel=0.03, abs=width**2 / 3)


def test_a_step_that_divides_a_bin_is_not_free_of_error():
    # 255 steps of half a bin: every centre of a bin is a level, but the values are not.
    histogram = Histogram(bin_width=1.0, first_bin=0, counts=np.ones(127, np.int64))
    error = squared_errors(histogram, np.zeros(1), np.array([127.5]), 256, False)[0]
    assert error == pytest.approx(0.5**2 / 12, rel=1e-9)


def test_mse_clips_harder_with_fewer_levels():
    statistics = statistics_of(sample("laplace"))
    fine = choose_range(statistics, "mse", symmetric=True, num_levels=256).high
    coarse = choose_range(statistics, "mse", symmetric=True, num_levels=16).high
    assert coarse < 0.8 * fine
