from __future__ import annotations

import numpy as np
import pytest
from judge_sets import estimate, latency

from exporter.judge.latency import summarize
from exporter.judge.policy import Policy
from exporter.judge.speed import REAL_MIXES, judge_int8_gain, judge_speed, mean_speedup
from exporter.values import TimedSeries


def mixes(single, batched):
    return [latency("mix-single", single), latency("mix-batched", batched)]


def test_the_figure_is_the_geometric_mean_of_the_mixes():
    found = mean_speedup(mixes(estimate(2.0, 1.8, 2.2, 7), estimate(8.0, 5.0, 9.0, 5)))
    assert found.value == pytest.approx(4.0)
    assert found.interval.low == pytest.approx(3.0)
    assert found.num_samples == 5


def test_fixed_shapes_do_not_count():
    shapes = [latency("32x128", estimate(4.0, 3.9, 4.1))]
    assert mean_speedup(shapes) is None
    (check,) = judge_speed(
        [*shapes, *mixes(estimate(0.9, 0.88, 0.92), estimate(0.9, 0.88, 0.92))],
        Policy(),
        is_baseline=False,
    )
    assert check.verdict == "fail"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(1.2, 1.4, "pass"), (0.9, 1.7, "inconclusive"), (0.8, 0.95, "fail")],
)
def test_speed_against_fp32(low, high, verdict):
    speedup = estimate((low + high) / 2, low, high, 7)
    (check,) = judge_speed(mixes(speedup, speedup), Policy(), is_baseline=False)
    assert (check.name, check.verdict, check.unit) == ("speedup", verdict, "x")
    assert ("rounds would decide" in check.reason) == (verdict == "inconclusive")
    assert check.details["mix-single"] == f"{speedup.value:.2f}x"


@pytest.mark.parametrize(("asked", "verdict"), [(0.9, "pass"), (1.0, "pass"), (1.2, "fail")])
def test_the_baseline_is_as_fast_as_itself_and_no_faster(asked, verdict):
    timed = mixes(estimate(1, 1, 1), estimate(1, 1, 1))
    (check,) = judge_speed(timed, Policy(min_speedup=asked), is_baseline=True)
    assert (check.name, check.verdict, check.threshold) == ("speedup", verdict, asked)
    assert check.value is None
    assert "FP32 itself" in check.reason
    assert ("1.2x" in check.reason) == (verdict == "fail")


@pytest.mark.parametrize("latencies", [[], mixes(None, None), [latency("1x16", estimate(2, 2, 2))]])
def test_speed_that_nobody_measured_is_not_run(latencies):
    (check,) = judge_speed(latencies, Policy(), is_baseline=False)
    assert check.verdict == "not_run"
    assert "mix-single" in check.reason


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [((1.5, 1.4, 1.6), "pass"), ((1.02, 0.97, 1.07), "inconclusive"), ((0.9, 0.85, 0.95), "fail")],
)
def test_int8_must_beat_the_best_float(gain, verdict):
    check = judge_int8_gain(mixes(estimate(*gain, 7), estimate(*gain, 7)))
    assert (check.name, check.verdict) == ("int8_gain", verdict)
    assert check.value == pytest.approx(gain[0])
    assert ("not faster than the device's best float" in check.reason) == (verdict == "fail")


def test_without_a_float_beside_it_no_gain_is_claimed():
    assert judge_int8_gain([latency("mix-batched", None)]).verdict == "not_run"


def timed_by_chance(rng, *, together: float) -> TimedSeries:
    """int8 1.5 times as fast as bfloat16, with noise of each and noise that slows all alike."""
    times = {"fp32": 6.0, "bf16": 3.0, "int8": 2.0}
    noise = rng.lognormal(sigma=0.05, size=(3, 7, 2))
    moods = rng.lognormal(sigma=together, size=(7, 1))
    samples = {name: ms * noise[i] * moods for i, (name, ms) in enumerate(times.items())}
    return TimedSeries(workload="mix-single", texts_per_sample=1, samples_ms=samples)


@pytest.mark.parametrize("together", [0.0, 0.5])
def test_the_gains_interval_covers_and_what_slows_all_does_not_widen_it(together):
    rng = np.random.default_rng(0)
    checks = [
        judge_int8_gain([summarize(timed_by_chance(rng, together=together), "int8", "bf16")])
        for _ in range(400)
    ]
    assert np.mean([one.interval.low <= 1.5 <= one.interval.high for one in checks]) >= 0.93
    assert np.mean([one.verdict == "pass" for one in checks]) >= 0.95


@pytest.mark.parametrize(
    ("deciding", "value"), [(["mix-single"], 0.5), (["mix-batched"], 8.0), (REAL_MIXES, 2.0)]
)
def test_only_the_mixes_that_decide_count(deciding, value):
    timed = mixes(estimate(0.5, 0.4, 0.6), estimate(8.0, 7.0, 9.0))
    assert mean_speedup(timed, deciding).value == pytest.approx(value)
    (check,) = judge_speed(timed, Policy(), is_baseline=False, mixes=deciding)
    assert check.value == pytest.approx(value)
    assert check.verdict == ("fail" if value < 1 else "pass")
    assert set(check.details) >= {"mix-single", "mix-batched"}  # shown, whoever decides


def test_a_mix_that_was_not_timed_takes_no_part():
    timed = [latency("mix-single", estimate(2.0, 1.9, 2.1))]
    assert mean_speedup(timed, REAL_MIXES).value == pytest.approx(2.0)
    (check,) = judge_speed(timed, Policy(), is_baseline=False, mixes=["mix-batched"])
    assert check.verdict == "not_run"
    assert "mix-batched" in check.reason
    assert "mix-single" not in check.reason


def test_int8_gain_is_taken_where_it_is_decided():
    gain = mixes(estimate(0.5, 0.45, 0.55), estimate(3.0, 2.9, 3.1))
    assert judge_int8_gain(gain, ["mix-single"]).verdict == "fail"
    assert judge_int8_gain(gain, ["mix-batched"]).verdict == "pass"
