"""Interleaved rounds, on runners whose clock is known."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.optimize.rounds import Protocol, time_interleaved
from targets.contract import TokenSequences, Workload


class ClockRunner:
    """A runner whose passes take a stated time; it notes when it was called."""

    def __init__(self, name: str, pass_ms: float, log: list[str]) -> None:
        self.name, self.pass_ms, self.log = name, pass_ms, log

    def time(self, workload: Workload, passes: int, warmup: int = 0):
        self.log.append(f"{self.name}+{warmup}" if warmup else self.name)
        per_pass = workload.texts_per_pass if workload.kind == "single" else 1
        return np.full(passes * per_pass, self.pass_ms / per_pass, np.float32)


SHAPE = Workload(name="1x16", kind="shape", batch_size=1, sequence_length=16)


def test_artifacts_take_turns_in_a_rotating_order():
    log: list[str] = []
    runners = {name: ClockRunner(name, 1.0, log) for name in "abc"}
    time_interleaved(runners, [SHAPE], Protocol(rounds=3, round_s=0.0))
    assert log == [*"abc", *"abc", *"bca", *"cab"]  # one pass each to warm up


@pytest.mark.parametrize(("pass_ms", "sizing"), [(1.0, 2), (3.0, 1)])
def test_the_sizing_pass_is_warmed_up_unless_it_is_long_by_itself(pass_ms, sizing):
    log: list[str] = []
    runners = {"a": ClockRunner("a", pass_ms, log)}
    time_interleaved(runners, [SHAPE], Protocol(rounds=1, round_s=0.002))
    assert log == ["a"] * (sizing + 1)


def test_a_turn_is_sized_by_the_slowest():
    runners = {"slow": ClockRunner("slow", 50.0, []), "fast": ClockRunner("fast", 1.0, [])}
    (series,) = time_interleaved(runners, [SHAPE], Protocol(rounds=2, round_s=0.2))
    assert series.samples_ms["slow"].shape == series.samples_ms["fast"].shape == (2, 4)


def test_passes_are_bounded():
    runners = {"a": ClockRunner("a", 0.001, [])}
    (series,) = time_interleaved(runners, [SHAPE], Protocol(rounds=2, round_s=1.0, max_passes=9))
    assert series.samples_ms["a"].shape == (2, 9)


def test_single_requests_give_one_sample_a_text():
    tokens = TokenSequences.from_lists([[1], [1, 2], [3]], pad_token_id=0)
    workload = Workload(name="mix-single", kind="single", tokens=tokens)
    runners = {"a": ClockRunner("a", 6.0, [])}
    (series,) = time_interleaved(runners, [workload], Protocol(rounds=2, round_s=0.0))
    assert series.samples_ms["a"].shape == (2, 3)
    assert series.texts_per_sample == 1
    assert series.samples_ms["a"].sum() == pytest.approx(12.0)


def test_progress_counts_turns():
    seen: list[tuple[int, int | None]] = []
    runners = {name: ClockRunner(name, 1.0, []) for name in "ab"}
    protocol = Protocol(rounds=2, round_s=0.0)
    time_interleaved(runners, [SHAPE], protocol, lambda d, t=None: seen.append((d, t)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
