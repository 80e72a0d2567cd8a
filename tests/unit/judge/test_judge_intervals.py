from __future__ import annotations

import numpy as np
import pytest
from judge_sets import estimate
from scipy.stats import bootstrap

from exporter.judge.intervals import (
    allow_for_unseen,
    mean_estimates,
    median_estimate,
    quantile_estimate,
    resample_counts,
    samples_to_see,
    unseen_share,
)


def test_resamples_draw_every_sample_equally_often():
    counts = np.concatenate(list(resample_counts(40, seed=0, num_resamples=4000)))
    assert counts.shape == (4000, 40)
    np.testing.assert_array_equal(counts.sum(axis=1), 40)
    np.testing.assert_allclose(counts.mean(axis=0), 1.0, atol=0.1)
    assert counts.var() == pytest.approx(1 - 1 / 40, rel=0.03)


def test_chunks_do_not_change_the_number_of_resamples():
    counts = list(resample_counts(3000, seed=0, num_resamples=1000))
    assert len(counts) > 1
    assert sum(map(len, counts)) == 1000


def test_mean_interval_agrees_with_scipy():
    values = np.random.default_rng(0).beta(8, 1, 400)
    (found,) = mean_estimates(values[:, None], seed=1, num_resamples=8000)
    expected = bootstrap(
        (values,), np.mean, n_resamples=8000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    width = expected.high - expected.low
    assert found.value == pytest.approx(values.mean())
    assert found.interval.low == pytest.approx(expected.low, abs=0.05 * width)
    assert found.interval.high == pytest.approx(expected.high, abs=0.05 * width)


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).normal(size=(50, 1))
    assert mean_estimates(values, seed=3) == mean_estimates(values, seed=3)
    assert mean_estimates(values, seed=3) != mean_estimates(values, seed=4)


def test_few_samples_are_covered_where_the_plain_percentile_is_not():
    rng = np.random.default_rng(0)
    covered = [
        found.interval.low <= 0.0 <= found.interval.high
        for found in mean_estimates(rng.normal(size=(6, 600)), seed=0)
    ]
    assert np.mean(covered) > 0.90


def test_what_may_go_unseen_is_the_rule_of_three():
    assert unseen_share(1000) == pytest.approx(-np.log(0.025) / 1000, rel=0.01)
    assert unseen_share(1) == pytest.approx(0.975)
    assert samples_to_see(0.01) == 368
    assert unseen_share(368) <= 0.01 < unseen_share(367)


def test_perfect_queries_are_not_certain():
    perfect = allow_for_unseen(estimate(1.0, 1.0, 1.0, 5), worst=0.0, best=1.0)
    assert perfect.interval.low == pytest.approx(0.025 ** (1 / 5))
    assert perfect.interval.high == 1.0


def test_wide_intervals_stay_as_they_are():
    wide = estimate(0.96, 0.95, 0.97, 5000)
    assert allow_for_unseen(wide, worst=0.0, best=1.0) == wide


def test_quantile_interval_covers():
    rng = np.random.default_rng(0)
    truth = -np.log(0.99)
    covered = []
    for _ in range(600):
        found = quantile_estimate(rng.exponential(size=500), 0.01, lowest=0.0, highest=np.inf)
        assert found.interval.low <= found.value <= found.interval.high
        covered.append(found.interval.low <= truth <= found.interval.high)
    assert np.mean(covered) >= 0.945


@pytest.mark.parametrize(("num_samples", "bounded"), [(20, False), (367, False), (368, True)])
def test_p1_has_no_lower_bound_below_368_samples(num_samples, bounded):
    values = np.linspace(0.9, 1.0, num_samples)
    found = quantile_estimate(values, 0.01, lowest=-1.0, highest=1.0)
    assert (found.interval.low > -1.0) is bounded
    assert found.interval.high < 1.0


@pytest.mark.parametrize("rounds", [2, 3, 5, 6, 7, 15, 40])
@pytest.mark.parametrize("outliers", [False, True])
def test_median_interval_covers(rounds, outliers):
    rng = np.random.default_rng(rounds)
    noise = rng.standard_t(2, (1500, rounds)) if outliers else rng.normal(size=(1500, rounds))
    found = [median_estimate(row) for row in noise]
    covered = np.mean([f.interval.low <= 0.0 <= f.interval.high for f in found])
    assert covered >= 0.93
    assert all(f.interval.low <= f.value <= f.interval.high for f in found)


def test_median_interval_is_tighter_than_the_range_from_seven_on():
    values = np.array([0.1, 1.0, 1.01, 1.02, 1.03, 1.04, 9.0])
    found = median_estimate(values)
    assert found.value == 1.02
    assert 0.5 < found.interval.low < 1.0
    assert 1.04 < found.interval.high < 5.0


def test_interpolation_agrees_with_its_published_weights():
    # n = 7: depth 1 covers 1 - 2/128, depth 2 covers 1 - 16/128.
    share = (126 / 128 - 0.95) / (14 / 128)
    weight = 6 * share / (1 + 5 * share)
    found = median_estimate(np.arange(7.0))
    assert found.interval.low == pytest.approx(weight)
    assert found.interval.high == pytest.approx(6 - weight)
