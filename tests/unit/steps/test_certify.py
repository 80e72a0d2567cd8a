"""What the certified artifact's times are held against."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from exporter.judge import Policy, judge_int8_gain
from exporter.optimize.goal import Goal
from exporter.optimize.rounds import FULL, LONG
from exporter.steps import certify
from exporter.steps.certify import _latencies, _settled, _speed_checks
from exporter.values import TimedSeries

FP32_MS, BF16_MS, INT8_MS = 6.0, 3.0, 2.0
MOODS = np.array([[1.0], [1.0], [4.0], [1.0], [0.5], [1.0]])
"""How slow the machine is in each round; FP32 alone meets another mood besides."""


def built(name: str, quantizer: str = "none") -> SimpleNamespace:
    return SimpleNamespace(name=name, recipe=SimpleNamespace(quantizer=quantizer))


FP32, BF16, INT8 = built("float32"), built("bfloat16"), built("int8", "qdq")
TIMES = {
    "float32": FP32_MS * MOODS[::-1] * MOODS,
    "bfloat16": BF16_MS * MOODS,
    "int8": INT8_MS * MOODS,
}


def taken(title, contenders, workloads, protocol) -> list[TimedSeries]:
    return [
        TimedSeries(
            workload=name,
            texts_per_sample=1,
            samples_ms={one.name: np.repeat(TIMES[one.name], 4, axis=1) for one in contenders},
        )
        for name in workloads
    ]


@pytest.fixture
def contest(monkeypatch):
    monkeypatch.setattr("exporter.steps.certify.shape_workloads", lambda _: ["1x16"])
    return SimpleNamespace(
        bench=SimpleNamespace(time=taken),
        mixes=lambda *_: ["mix-single", "mix-batched"],
        texts=SimpleNamespace(test=None),
        graph=SimpleNamespace(max_seq_length=64),
    )


def outcome(chosen, best_float):
    return SimpleNamespace(chosen=chosen, baseline=FP32, best_float=best_float)


def by_workload(latencies):
    return {one.workload: one.speedup for one in latencies}


def test_int8_is_held_against_fp32_everywhere_and_against_the_float_on_the_mixes(contest):
    over_fp32, over_float = _latencies(contest, outcome(INT8, BF16))
    assert list(by_workload(over_fp32)) == ["1x16", "mix-single", "mix-batched"]
    assert list(by_workload(over_float)) == ["mix-single", "mix-batched"]
    gain = by_workload(over_float)["mix-single"]
    assert gain.value == pytest.approx(BF16_MS / INT8_MS)
    width = gain.interval.high - gain.interval.low
    assert width == pytest.approx(0.0, abs=1e-6), "what slows both in a round is in neither"
    assert judge_int8_gain(over_float).verdict == "pass"
    speedup = by_workload(over_fp32)["mix-single"]
    assert speedup.interval.high - speedup.interval.low > 1.0, "FP32 had moods of its own"


def test_where_fp32_is_the_best_float_int8_is_held_against_it(contest):
    over_fp32, over_float = _latencies(contest, outcome(INT8, FP32))
    assert by_workload(over_float) == by_workload(over_fp32)


def test_a_float_has_no_float_to_beat_and_fp32_nothing_at_all(contest):
    assert _latencies(contest, outcome(BF16, BF16))[1] == ()
    itself, _ = _latencies(contest, outcome(FP32, FP32))
    assert set(by_workload(itself).values()) == {None}


# ----------------------------------------------------------------- what six rounds leave open


class Stopwatch:
    """Times like `taken`, with ratios of one's own for the first timing and for a longer one."""

    def __init__(self, rival_ms, longer_ms) -> None:
        self.rival_ms, self.longer_ms, self.asked = rival_ms, longer_ms, []

    def time(self, title, contenders, workloads, protocol) -> list[TimedSeries]:
        self.asked.append(([one.name for one in contenders], protocol))
        rival = self.rival_ms if protocol is FULL else self.longer_ms
        times = {"int8": [INT8_MS] * len(rival), "bfloat16": rival, "float32": rival}
        return [
            TimedSeries(
                workload=name,
                texts_per_sample=1,
                samples_ms={one.name: np.array(times[one.name])[:, None] for one in contenders},
            )
            for name in workloads
        ]


OPEN = [1.0, 1.0, 1.0, 3.0, 3.0, 3.0]
FASTER, SLOWER, STILL_OPEN = [3.0] * 13 + [1.0] * 3, [1.0] * 16, [1.0, 3.0] * 8


@pytest.fixture
def settle(contest):
    """Certify int8's speed against `best_float` with a stopwatch; return checks and latencies."""
    contest.stand = SimpleNamespace(measures_latency=True, device=None)
    contest.policy, contest.goal = Policy(), Goal()

    def run(stopwatch, best_float):
        contest.bench = stopwatch
        asked = outcome(INT8, best_float)
        latency, over_float = _latencies(contest, asked)
        checks = _speed_checks(contest, asked, latency, over_float)
        return _settled(contest, asked, checks, latency)

    return run


@pytest.mark.parametrize(
    ("longer", "verdict"), [(FASTER, "pass"), (SLOWER, "fail"), (STILL_OPEN, "inconclusive")]
)
def test_what_is_open_is_timed_longer_and_the_new_rounds_decide(settle, longer, verdict):
    stopwatch = Stopwatch(OPEN, longer)
    (speedup, gain), latency = settle(stopwatch, BF16)
    assert (speedup.verdict, gain.verdict) == (verdict, verdict)
    assert gain.details["timed"] == "16 rounds, since 6 had left it open"
    assert [names for names, protocol in stopwatch.asked if protocol is LONG] == [
        ["float32", "int8"],
        ["bfloat16", "int8"],
    ]
    mix = next(one for one in latency if one.workload == "mix-single")
    assert mix.speedup.num_samples == LONG.rounds, "the table shows what was judged"
    assert next(one for one in latency if one.workload == "1x16").speedup.num_samples == 6


def test_what_is_decided_is_not_timed_again(settle):
    stopwatch = Stopwatch([3.0] * 6, SLOWER)
    (speedup, gain), _ = settle(stopwatch, BF16)
    assert (speedup.verdict, gain.verdict) == ("pass", "pass")
    assert "timed" not in gain.details
    assert all(protocol is FULL for _, protocol in stopwatch.asked)


def test_certifying_settles_what_is_open(settle, contest, monkeypatch):
    settle(stopwatch := Stopwatch(OPEN, FASTER), BF16)  # puts policy, goal and device there
    for name in ("fidelity_of", "judge_precision", "spread_by_length"):
        monkeypatch.setattr(certify, name, lambda *_: None)
    for name in ("judge_fidelity", "judge_size"):
        monkeypatch.setattr(certify, name, lambda *_: ())
    monkeypatch.setattr(certify, "TargetResult", SimpleNamespace)
    target = SimpleNamespace(spec=SimpleNamespace(name="openvino"))
    contest.stand = SimpleNamespace(
        measures_latency=True,
        device=SimpleNamespace(name="local"),
        target=target,
        hardware=None,
        tool_versions={},
    )
    contest.bench = SimpleNamespace(
        stop=lambda _: None, time=stopwatch.time, look_into=lambda *_: (None, ())
    )
    contest.texts = SimpleNamespace(test=SimpleNamespace(documents=None))
    asked = outcome(INT8, BF16)
    asked.chosen = SimpleNamespace(
        **vars(INT8), artifact=SimpleNamespace(size_bytes=1), plan=SimpleNamespace(options={})
    )
    asked.candidates, asked.variants = (), ()
    result = certify.certify(contest, asked, None)
    speed = [one for one in result.checks if one is not None]
    assert [one.verdict for one in speed] == ["pass", "pass"]
    assert {one.workload: one.speedup.num_samples for one in result.latency}["mix-single"] == 16
