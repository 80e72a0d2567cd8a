from __future__ import annotations

import numpy as np
import pytest
from judge_sets import estimate

from exporter.judge.gate import decide, gate, gate_point, samples_to_decide
from exporter.judge.intervals import allow_for_unseen, mean_estimates


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.95, 0.99, "pass"),
        (0.949, 0.99, "inconclusive"),
        (0.90, 0.95, "inconclusive"),
        (0.90, 0.9499, "fail"),
    ],
)
def test_the_rule(low, high, verdict):
    assert decide(estimate((low + high) / 2, low, high), 0.95) == verdict


def test_an_inconclusive_check_says_what_would_decide_it():
    check = gate("overlap@10", estimate(0.96, 0.94, 0.98, 100), 0.95, samples="queries")
    assert check.verdict == "inconclusive"
    assert "about 400 queries" in check.reason
    assert "0.94 to 0.98" in check.reason


def test_a_failed_check_says_where_the_figure_lies():
    check = gate("overlap@10", estimate(0.90, 0.89, 0.91), 0.95, samples="queries")
    assert check.verdict == "fail"
    assert "0.89 to 0.91 lies below 0.95" in check.reason


def test_an_estimate_on_its_threshold_is_not_worth_waiting_for():
    for value in (0.95, 0.95001, 0.94999):
        found = gate("overlap@10", estimate(value, 0.94, 0.96), 0.95, samples="queries")
        assert found.verdict == "inconclusive"
        assert "too close" in found.reason


def test_perfect_queries_need_72_for_an_overlap_of_95_percent():
    for count, verdict in ((5, "inconclusive"), (71, "inconclusive"), (72, "pass")):
        perfect = allow_for_unseen(estimate(1.0, 1.0, 1.0, count), worst=0.0, best=1.0)
        check = gate("overlap@10", perfect, 0.95, samples="queries", unseen=0.0)
        assert check.verdict == verdict
        assert ("about 72 queries" in check.reason) == (verdict == "inconclusive")


def test_a_figure_without_a_lower_bound_names_the_least_sample():
    check = gate("p1", estimate(0.99, -1.0, 0.999, 20), 0.97, samples="texts", min_samples=368)
    assert check.verdict == "inconclusive"
    assert "about 368 texts" in check.reason


def test_the_number_promised_does_decide():
    rng = np.random.default_rng(0)
    (few,) = mean_estimates(rng.binomial(10, 0.96, (400, 1)) / 10, seed=0)
    needed = samples_to_decide(few, 0.95)
    assert 400 < needed < 40_000
    (more,) = mean_estimates(rng.binomial(10, few.value, (2 * needed, 1)) / 10, seed=0)
    assert decide(more, 0.95) == "pass"


def simulated_verdicts(true_overlap: float, num_queries: int) -> list[str]:
    rng = np.random.default_rng(7)
    overlaps = rng.binomial(10, true_overlap, (num_queries, 150)) / 10
    estimates = mean_estimates(overlaps, seed=0, num_resamples=1000)
    return [decide(allow_for_unseen(one, worst=0.0, best=1.0), 0.95) for one in estimates]


def test_error_rates_of_the_gate():
    good, bad = simulated_verdicts(0.97, 1000), simulated_verdicts(0.93, 1000)
    assert good.count("fail") == 0
    assert good.count("pass") > 0.95 * len(good)
    assert bad.count("pass") == 0
    assert bad.count("fail") > 0.95 * len(bad)


@pytest.mark.parametrize("num_queries", [30, 300])
def test_on_the_threshold_the_gate_errs_rarely(num_queries):
    verdicts = simulated_verdicts(0.95, num_queries)
    assert verdicts.count("pass") <= 0.06 * len(verdicts)
    assert verdicts.count("fail") <= 0.06 * len(verdicts)


def test_a_point_is_simply_compared():
    assert gate_point("stability", 0.999, 0.999, why="moved").verdict == "pass"
    failed = gate_point("stability", 0.99, 0.999, why="moved")
    assert (failed.verdict, failed.reason) == ("fail", "moved")
    assert gate_point("stability", float("nan"), 0.999, why="moved").verdict == "fail"
