"""Growing histograms: where values land, that none is lost, what a merge and a resume give."""

import numpy as np
import pytest

from targets.errors import CalibrationError
from targets.quantization.histogram import Histogram, StreamingHistogram


def histogram_of(*batches: object) -> Histogram:
    streaming = StreamingHistogram()
    for batch in batches:
        streaming.add(np.asarray(batch, np.float32))
    return streaming.freeze()


def counts_by_bin(histogram: Histogram) -> dict[int, int]:
    occupied = np.flatnonzero(histogram.counts)
    return {int(histogram.first_bin + i): int(histogram.counts[i]) for i in occupied}


def same(one: Histogram, other: Histogram) -> bool:
    return (
        one.bin_width == other.bin_width
        and one.first_bin == other.first_bin
        and np.array_equal(one.counts, other.counts)
    )


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 777.0, 1e6, 1e38])
def test_every_value_lands_in_the_bin_that_covers_it(scale):
    # A broad spread, so that small negative values meet wide bins.
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, 4000) * 10.0 ** rng.uniform(-12, 0, 4000)
    values = np.append(values, [0.0, -0.0, 1.0, -1.0, 2.0**-20]) * scale
    values = values.astype(np.float32)
    histogram = histogram_of(values)
    bins = np.floor(values.astype(np.float64) / histogram.bin_width).astype(int)
    expected = {int(b): int(n) for b, n in zip(*np.unique(bins, return_counts=True), strict=True)}
    assert counts_by_bin(histogram) == expected


def test_tiny_negative_values_stay_below_zero_under_wide_bins():
    # -1e-45 times 1 / width is a float32 zero; it must not be counted among the positive ones.
    assert counts_by_bin(histogram_of([-1e-45, 1e-45, 3e6]))[-1] == 1
    assert counts_by_bin(histogram_of([-1e-45, 1e-45], [3e6]))[-1] == 1


@pytest.mark.parametrize("values", [[-5.0, 3.0], [0.0, 7.99], [-1e-9, 1e-12], [-1e30]])
def test_the_larger_side_spans_2048_to_4096_bins(values):
    histogram = histogram_of(values)
    assert 2048 <= np.abs(values).max() / histogram.bin_width <= 4096
    assert np.log2(histogram.bin_width).is_integer()


def test_growth_over_many_orders_keeps_every_count():
    rng = np.random.default_rng(1)
    batches = [rng.standard_normal(1000) * 10.0**k for k in (-30, -8, -3, 0, 2, 9, 30)]
    histogram = histogram_of(*batches)
    assert histogram.num_values == 7000
    assert histogram.counts.dtype == np.int64
    assert same(histogram, histogram_of(np.concatenate(batches)))


@pytest.mark.parametrize("order", [(0.0, 1.0), (1.0, 0.0)])
def test_a_batch_of_zeros_does_not_coarsen(order):
    histogram = histogram_of(*(np.full(5, value) for value in order), [1e-3])
    assert histogram.bin_width == 2.0**-11
    assert counts_by_bin(histogram) == {0: 5, 2: 1, 2048: 5}


def test_zeros_leave_room_for_the_smallest_values():
    assert same(histogram_of([0.0] * 9, [1e-20]), histogram_of([0.0] * 9 + [1e-20]))
    assert histogram_of([0.0] * 9, [1e-20]).bin_width < 1e-23


def test_zeros_alone_fill_one_bin():
    histogram = histogram_of(np.zeros((3, 4)))
    assert counts_by_bin(histogram) == {0: 12}
    assert histogram.bin_width > 0


def test_a_constant_fills_one_bin():
    histogram = histogram_of(np.full(10, -3.0))
    assert counts_by_bin(histogram) == {-3072: 10}


def test_empty_bins_at_both_ends_are_dropped():
    histogram = histogram_of([1.0, 1.25])
    assert histogram.counts[0] == histogram.counts[-1] == 1
    assert histogram.first_bin == 2048


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_refused_and_nothing_is_counted(wrong):
    streaming = StreamingHistogram()
    streaming.add(np.ones(3, np.float32))
    with pytest.raises(CalibrationError, match="finite") as caught:
        streaming.add(np.array([1e9, wrong], np.float32))
    assert "1 of 2 values" in caught.value.why
    assert same(streaming.freeze(), histogram_of(np.ones(3)))


def test_an_empty_batch_changes_nothing_and_no_values_are_no_histogram():
    streaming = StreamingHistogram()
    streaming.add(np.zeros((0, 4), np.float32))
    with pytest.raises(CalibrationError, match="no values"):
        streaming.freeze()


def test_views_with_strides_are_counted_like_copies():
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    streaming = StreamingHistogram()
    streaming.add(values.T[::2])
    assert same(streaming.freeze(), histogram_of(values.T[::2].copy()))


def test_merge_is_exact_and_leaves_the_other_alone():
    rng = np.random.default_rng(2)
    small, large = rng.standard_normal(500) * 1e-3, rng.standard_normal(500) * 50
    for first, second in ((small, large), (large, small)):
        one, other = StreamingHistogram(), StreamingHistogram()
        one.add(first.astype(np.float32))
        other.add(second.astype(np.float32))
        before = other.freeze()
        one.merge(other)
        assert same(one.freeze(), histogram_of(first, second))
        assert same(other.freeze(), before)


def test_a_resumed_histogram_goes_on_bit_for_bit():
    rng = np.random.default_rng(3)
    first, second = rng.standard_normal(500), rng.standard_normal(500) * 9
    streaming = StreamingHistogram()
    streaming.add(first.astype(np.float32))
    state = streaming.state()
    streaming.add(first[:9].astype(np.float32))  # the state is a copy, not a view
    resumed = StreamingHistogram.restore(state)
    resumed.add(second.astype(np.float32))
    assert same(resumed.freeze(), histogram_of(first, second))


def test_a_resumed_histogram_does_not_share_its_state():
    streaming = StreamingHistogram()
    streaming.add(np.ones(3, np.float32))
    state = streaming.state()
    StreamingHistogram.restore(state).add(np.ones(3, np.float32))
    assert state["counts"].sum() == 3


@pytest.mark.parametrize("missing", ["exponent", "counts"])
def test_a_damaged_state_is_refused(missing):
    state = StreamingHistogram().state()
    del state[missing]
    with pytest.raises(CalibrationError, match="saved state"):
        StreamingHistogram.restore(state)
    short = StreamingHistogram().state() | {"counts": np.zeros(7, np.int64)}
    with pytest.raises(CalibrationError, match="saved state"):
        StreamingHistogram.restore(short)


def test_absolute_folds_at_zero():
    histogram = Histogram(bin_width=0.5, first_bin=-2, counts=np.array([1, 2, 4, 8, 16], np.int64))
    assert histogram.absolute().tolist() == [6, 9, 16]
    far = Histogram(bin_width=0.5, first_bin=-4, counts=np.array([1, 2], np.int64))
    assert far.absolute().tolist() == [0, 0, 2, 1]


def test_absolute_counts_beyond_the_integers_of_float64():
    histogram = Histogram(bin_width=1.0, first_bin=-1, counts=np.array([2**53, 1], np.int64))
    assert histogram.absolute().tolist() == [2**53 + 1]


@pytest.mark.parametrize(
    ("width", "counts"), [(0.0, [1]), (np.nan, [1]), (np.inf, [1]), (1.0, []), (1.0, [1, -1])]
)
def test_impossible_histograms_are_refused(width, counts):
    with pytest.raises(CalibrationError, match="impossible"):
        Histogram(bin_width=width, first_bin=0, counts=np.array(counts, np.int64))
