"""Statistics of a stream of rows against numpy on all rows at once."""

import numpy as np
import pytest

from targets.errors import CalibrationError
from targets.quantization.histogram import Histogram
from targets.quantization.statistics import StreamingStatistics, TensorStatistics

SPREAD = np.array([1.0, 0.01, 100.0, 3.0, 0.5], np.float32)


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    return (rng.standard_normal((600, 5)).astype(np.float32) + 0.3) * SPREAD


def streamed(*batches, num_channels=5, gram=True):
    streaming = StreamingStatistics(num_channels, gram=gram)
    for batch in batches:
        streaming.add(batch)
    return streaming


def same_bits(one, other):
    first, second = one.state(), other.state()
    return first.keys() == second.keys() and all(
        first[name].tobytes() == second[name].tobytes() for name in first
    )


def test_it_agrees_with_numpy(rows):
    statistics = streamed(rows[:100], rows[100:101], rows[101:]).freeze()
    exact = rows.astype(np.float64)
    assert statistics.count == rows.size == statistics.histogram.num_values
    assert statistics.minimum == rows.min()
    assert statistics.maximum == rows.max()
    assert statistics.absmax == np.abs(rows).max()
    np.testing.assert_array_equal(statistics.channel_minimum, rows.min(axis=0))
    np.testing.assert_array_equal(statistics.channel_maximum, rows.max(axis=0))
    np.testing.assert_array_equal(statistics.channel_absmax, np.abs(rows).max(axis=0))
    np.testing.assert_allclose(statistics.channel_mean, exact.mean(axis=0), rtol=1e-14)
    gram = exact.T @ exact / len(rows)
    # An error relative to the two channels' own sizes, as that of a float32 product is.
    size = np.sqrt(np.outer(gram.diagonal(), gram.diagonal()))
    assert (np.abs(statistics.gram - gram) <= 5e-7 * size).all()


def test_dtypes_are_those_of_the_contract(rows):
    statistics = streamed(rows).freeze()
    for name in ("channel_absmax", "channel_minimum", "channel_maximum", "gram"):
        assert getattr(statistics, name).dtype == np.float32
    assert statistics.channel_mean.dtype == np.float64
    assert type(statistics.minimum) is float


def test_the_mean_does_not_drift_where_float32_sums_would():
    rows = np.full((1000, 2), [16777217.0, 0.1], np.float32)
    statistics = streamed(*[rows] * 50, num_channels=2, gram=False).freeze()
    np.testing.assert_allclose(statistics.channel_mean, rows[0].astype(np.float64), rtol=1e-12)


def test_without_channels_any_shape_is_taken(rows):
    streaming = StreamingStatistics(None)
    streaming.add(rows.reshape(2, 3, 100, 5))
    streaming.add(rows[0])
    statistics = streaming.freeze()
    assert statistics.count == rows.size + 5
    assert (statistics.minimum, statistics.maximum) == (rows.min(), rows.max())
    assert statistics.channel_absmax is statistics.channel_mean is statistics.gram is None


def test_views_with_strides_are_taken_like_copies():
    rng = np.random.default_rng(1)
    wide = rng.standard_normal((600, 160)).astype(np.float32)
    views = wide[::2, 1::2], wide[:80].T[:, ::-1], np.asfortranarray(wide[:300, :80])
    for view in views:
        streaming = streamed(view, num_channels=80)
        assert same_bits(streaming, streamed(view.copy(order="C"), num_channels=80))
        assert np.array_equal(streaming.freeze().gram, streaming.freeze().gram.T)


def test_a_resumed_pass_gives_the_same_bits(rows):
    whole = streamed(rows[:200], rows[200:350], rows[350:])
    killed = streamed(rows[:200])
    state = killed.state()
    killed.add(rows[:3])  # the state is a copy, not a view
    resumed = StreamingStatistics.restore(state)
    resumed.add(rows[200:350])
    resumed = StreamingStatistics.restore(resumed.state())
    resumed.add(rows[350:])
    assert same_bits(resumed, whole)
    assert not same_bits(killed, whole)


@pytest.mark.parametrize(
    ("num_channels", "gram"), [(None, False), (5, False), (5, True), (1, True)]
)
def test_the_state_remembers_what_is_kept(num_channels, gram):
    streaming = StreamingStatistics(num_channels, gram=gram)
    streaming.add(np.ones((3, num_channels or 4), np.float32))
    resumed = StreamingStatistics.restore(streaming.state())
    resumed.add(np.ones((2, num_channels or 4), np.float32))
    frozen = resumed.freeze()
    assert (frozen.channel_mean is None) == (num_channels is None)
    assert (frozen.gram is None) == (not gram)


def test_restoring_does_not_share_the_state(rows):
    state = streamed(rows[:10]).state()
    before = {name: array.copy() for name, array in state.items()}
    StreamingStatistics.restore(state).add(rows)
    assert all(np.array_equal(state[name], before[name]) for name in state)


@pytest.mark.parametrize("name", ["minimum", "maximum", "histogram.counts", "histogram.exponent"])
def test_a_state_without_a_part_is_refused(rows, name):
    state = streamed(rows).state()
    del state[name]
    with pytest.raises(CalibrationError, match="saved state"):
        StreamingStatistics.restore(state)


def test_a_state_of_other_shapes_is_refused(rows):
    state = streamed(rows).state()
    with pytest.raises(CalibrationError, match="saved state"):
        StreamingStatistics.restore(state | {"gram": np.zeros((4, 4))})
    with pytest.raises(CalibrationError, match="saved state"):
        StreamingStatistics.restore(state | {"surplus": np.zeros(4)})
    with pytest.raises(CalibrationError, match="saved state"):
        StreamingStatistics.restore({})


def test_merge_adds_up_and_leaves_the_other_alone(rows):
    one, other = streamed(rows[:77]), streamed(rows[77:])
    before = other.state()
    one.merge(other)
    merged, whole = one.freeze(), streamed(rows[:77], rows[77:]).freeze()
    assert merged.count == whole.count
    np.testing.assert_array_equal(merged.histogram.counts, whole.histogram.counts)
    np.testing.assert_array_equal(merged.channel_absmax, whole.channel_absmax)
    np.testing.assert_array_equal(merged.channel_mean, whole.channel_mean)
    np.testing.assert_array_equal(merged.gram, whole.gram)
    assert all(np.array_equal(before[name], other.state()[name]) for name in before)


@pytest.mark.parametrize(("num_channels", "gram"), [(None, False), (5, False), (4, True)])
def test_statistics_of_different_tensors_do_not_merge(rows, num_channels, gram):
    with pytest.raises(CalibrationError, match="different tensors") as caught:
        streamed(rows).merge(StreamingStatistics(num_channels, gram=gram))
    assert "5 channels with second moments" in caught.value.why


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_non_finite_values_name_the_channel_and_change_nothing(rows, wrong):
    streaming = streamed(rows)
    broken = rows.copy()
    broken[7, 3] = wrong
    with pytest.raises(CalibrationError, match="NaN or infinity") as caught:
        streaming.add(broken)
    assert caught.value.why == "1 of 3000 values, first in channel 3 of 5"
    assert same_bits(streaming, streamed(rows))


def test_overflowing_second_moments_are_refused_and_change_nothing(rows):
    streaming = streamed(rows)
    with pytest.raises(CalibrationError, match="overflow"):
        streaming.add(rows * np.float32(1e30))
    assert same_bits(streaming, streamed(rows))


@pytest.mark.parametrize("shape", [(3, 4), (5,), (2, 3, 5), (5, 3)])
def test_rows_of_another_shape_are_refused(shape):
    with pytest.raises(CalibrationError, match="do not fit"):
        streamed(np.ones(shape, np.float32))


def test_nothing_and_moments_without_channels_are_refused():
    with pytest.raises(CalibrationError, match="no values"):
        streamed(np.zeros((0, 5), np.float32)).freeze()
    with pytest.raises(CalibrationError, match="need channels"):
        StreamingStatistics(None, gram=True)


GOOD = {
    "count": 3,
    "minimum": 1.0,
    "maximum": 1.0,
    "histogram": Histogram(bin_width=1.0, first_bin=1, counts=np.array([3], np.int64)),
}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"count": 4}, "counts 3 of 4"),
        ({"minimum": 2.0}, "between 2.0 and 1.0"),
        ({"maximum": np.inf}, "between 1.0 and inf"),
        ({"channel_absmax": np.ones(2, np.float32)}, "different shapes"),
        ({"gram": np.array([[1, 2], [3, 4]], np.float32)}, "not symmetric"),
        ({"gram": np.ones((2, 3), np.float32)}, "not symmetric"),
    ],
)
def test_contradictions_are_refused(wrong, why):
    assert TensorStatistics(**GOOD).absmax == 1.0
    with pytest.raises(CalibrationError) as caught:
        TensorStatistics(**(GOOD | wrong))
    assert why in caught.value.why
