"""When another way of running an artifact is taken."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from exporter.optimize.tuning import MIN_GAIN, is_confirmed, matters, most_promising, outcome_of
from exporter.values import Estimate
from targets.contract import Interval, RunPlan, RuntimeVariant

PLAN = RunPlan(
    adapter=Path("a.py"),
    model=Path("m"),
    inputs=("input_ids",),
    output="sentence_embedding",
    pad_token_id=0,
    embedding_dim=4,
    max_seq_length=32,
    options={"NUM_STREAMS": "1"},
)
BOTH = ("mix-single", "mix-batched")


def gain(value: float, low: float | None = None) -> Estimate:
    interval = Interval(low=value if low is None else low, high=value + 0.1)
    return Estimate(value=value, interval=interval, num_samples=6)


def variant(num_threads: int = 2, **changes) -> RuntimeVariant:
    return RuntimeVariant(
        name="v", plan=replace(PLAN, **changes), num_threads=num_threads, why="because"
    )


def test_the_largest_gain_is_looked_at_again():
    assert most_promising({"a": gain(1.04), "b": gain(1.2), "c": gain(0.8)}) == "b"


def test_a_gain_within_the_noise_is_not_looked_at_again():
    assert most_promising({"a": gain(1.0 + MIN_GAIN - 0.001)}) is None
    assert most_promising({}) is None


def test_a_gain_is_believed_only_if_the_whole_interval_gains():
    assert is_confirmed(gain(1.2, low=1.01))
    assert not is_confirmed(gain(1.2, low=0.99))
    assert not is_confirmed(gain(1.0 + MIN_GAIN / 2, low=1.001))


def test_the_outcome_says_whether_it_was_looked_at_twice():
    assert outcome_of(gain(1.2, 1.1), "the mixes", looked_twice=False) == (
        "1.20x the default on the mixes"
    )
    assert outcome_of(gain(1.2, 1.1), "the mixes", looked_twice=True).endswith("beyond the noise")
    assert outcome_of(gain(1.2, 0.9), "the mixes", looked_twice=True).endswith("within the noise")


@pytest.mark.parametrize(
    ("one", "mixes", "does"),
    [
        (variant(max_batch_tokens=4096), BOTH, True),
        (variant(max_batch_tokens=4096), ("mix-single",), False),
        (variant(length_multiple=1), ("mix-single",), True),
        (variant(num_threads=1), ("mix-single",), True),
        (variant(options={"NUM_STREAMS": "2"}), ("mix-single",), True),
        (variant(), BOTH, False),
    ],
)
def test_a_knob_that_no_timed_mix_feels_is_not_tried(one, mixes, does):
    assert matters(one, PLAN, 2, mixes) is does


def test_more_streams_are_not_tried_where_single_requests_count():
    streams = replace(variant(options={"NUM_STREAMS": "2"}), batched_only=True)
    assert not matters(streams, PLAN, 2, BOTH)
    assert matters(streams, PLAN, 2, ("mix-batched",))
    assert matters(replace(streams, batched_only=False), PLAN, 2, BOTH)
