"""What the certified artifact's times are held against."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from exporter.judge import judge_int8_gain
from exporter.steps.certify import _latencies
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
