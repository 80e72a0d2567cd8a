from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from exporter.judge.latency import (
    relative_spread,
    samples_for_percentile,
    summarize,
    supported_percentile,
)
from exporter.values import TimedSeries
from targets.errors import StepError


def series(texts_per_sample: int = 1, **samples_ms: np.ndarray) -> TimedSeries:
    return TimedSeries(
        workload="mix-single",
        texts_per_sample=texts_per_sample,
        samples_ms={name: np.asarray(rows, float) for name, rows in samples_ms.items()},
    )


def test_loadgen_asks_for_64_samples_for_p90_and_662_for_p99():
    assert samples_for_percentile(0.90) == 64
    assert samples_for_percentile(0.99) == 662


@pytest.mark.parametrize("percentile", [0.5, 0.9, 0.95, 0.97, 0.99])
@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_the_bound_is_the_smallest_number_that_holds(percentile, confidence):
    needed = samples_for_percentile(percentile, confidence)
    assert binom.cdf(1, needed, 1 - percentile) < 1 - confidence
    assert binom.cdf(1, needed - 1, 1 - percentile) >= 1 - confidence


def test_a_percentile_appears_with_the_sample_that_supports_it():
    samples = np.arange(1.0, 65.0)
    assert supported_percentile(samples[:63], 0.90) is None
    assert supported_percentile(samples, 0.90) == pytest.approx(np.quantile(samples, 0.9))
    assert supported_percentile(samples, 0.99) is None


def test_figures_of_one_artifact():
    rows = np.array([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0], [1.5, 2.5, 3.5]])
    found = summarize(series(8, fp32=rows), "fp32", None)
    assert found.workload == "mix-single"
    assert found.num_samples == 9
    assert found.texts_per_sample == 8
    assert found.median_ms == 2.5
    assert found.mean_ms == 2.5
    assert found.p90_ms is None
    assert found.texts_per_s == pytest.approx(24 / 7.5e-3)
    assert found.spread == pytest.approx(1.5 / 7.5)
    assert found.speedup is None


def test_speedup_is_paired_by_round():
    # The machine gets three times slower while it runs; the ratio stays what it is.
    mood = np.linspace(1, 3, 7)[:, None]
    found = summarize(series(fp32=4 * mood, fast=2 * mood), "fast", "fp32")
    assert found.speedup.value == pytest.approx(2.0)
    assert found.speedup.interval.low == pytest.approx(2.0)
    assert found.speedup.interval.high == pytest.approx(2.0)
    assert found.speedup.num_samples == 7
    assert found.spread > 0.3


def test_the_baseline_is_as_fast_as_itself():
    rows = np.random.default_rng(0).uniform(1, 2, (7, 5))
    found = summarize(series(fp32=rows), "fp32", "fp32").speedup
    assert (found.value, found.interval.low, found.interval.high) == (1.0, 1.0, 1.0)


def test_swapping_the_artifacts_inverts_the_speedup():
    rng = np.random.default_rng(0)
    both = series(a=rng.lognormal(size=(9, 3)), b=rng.lognormal(size=(9, 3)))
    there, back = summarize(both, "a", "b").speedup, summarize(both, "b", "a").speedup
    assert there.value == pytest.approx(1 / back.value)
    assert there.interval.low == pytest.approx(1 / back.interval.high)
    assert there.interval.high == pytest.approx(1 / back.interval.low)


@pytest.mark.parametrize("rounds", [3, 5, 7, 12])
def test_the_interval_covers_the_true_speedup(rounds):
    rng = np.random.default_rng(rounds)
    covered = []
    for _ in range(400):
        noise = rng.lognormal(sigma=0.1, size=(2, rounds, 4))
        interval = summarize(series(fp32=3 * noise[0], fast=2 * noise[1]), "fast", "fp32").speedup
        covered.append(interval.interval.low <= 1.5 <= interval.interval.high)
    assert np.mean(covered) >= 0.92


def test_a_noisy_machine_widens_the_interval_and_not_the_claim():
    rng = np.random.default_rng(0)
    widths, values = [], []
    for sigma in (0.01, 0.05, 0.25):
        noise = rng.lognormal(sigma=sigma, size=(2, 101, 1))
        found = summarize(series(fp32=3 * noise[0], fast=2 * noise[1]), "fast", "fp32").speedup
        widths.append(found.interval.high - found.interval.low)
        values.append(found.value)
    assert widths == sorted(widths)
    assert widths[2] > 5 * widths[0]
    np.testing.assert_allclose(values, 1.5, rtol=0.12)


def test_one_slow_round_of_seven_does_not_hide_a_clear_speedup():
    fast = np.full((7, 1), 2.0)
    fast[3] = 6.0
    found = summarize(series(fp32=np.full((7, 1), 4.0), fast=fast), "fast", "fp32").speedup
    assert found.value == pytest.approx(2.0)
    assert 1.0 < found.interval.low < 2.0


def test_few_rounds_are_wide_and_one_has_no_speedup():
    rng = np.random.default_rng(0)
    noise = rng.lognormal(sigma=0.05, size=(2, 7, 1))
    found = [
        summarize(series(fp32=2 * noise[0][:n], fast=noise[1][:n]), "fast", "fp32").speedup
        for n in (2, 7)
    ]
    width = [one.interval.high / one.interval.low for one in found]
    assert width[0] > width[1]
    one = series(fp32=noise[0][:1], fast=noise[1][:1])
    assert summarize(one, "fast", "fp32").speedup is None


def test_spread_of_one_round_is_zero():
    assert relative_spread(np.array([3.0])) == 0.0


@pytest.mark.parametrize(
    "rows", [np.zeros((0, 3)), np.ones(4), [[1.0, np.nan]], [[1.0, 0.0]], [[1.0, -2.0]]]
)
def test_unusable_samples_are_refused(rows):
    with pytest.raises(StepError, match="'fast' are unusable"):
        summarize(series(fast=rows), "fast", None)


def test_missing_samples_name_what_is_there():
    with pytest.raises(StepError, match="no latency samples of 'slow'") as caught:
        summarize(series(fp32=np.ones((2, 2)), fast=np.ones((2, 2))), "slow", None)
    assert "fast, fp32" in caught.value.why


def test_rounds_that_do_not_pair_are_refused():
    with pytest.raises(StepError, match="cannot be paired"):
        summarize(series(fp32=np.ones((3, 2)), fast=np.ones((2, 2))), "fast", "fp32")
