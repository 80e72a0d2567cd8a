"""Whether an artifact is faster than FP32, and int8 faster than the best float."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

from exporter.judge.gate import gate, not_run
from exporter.judge.policy import Policy
from exporter.values import Estimate, Latency
from targets.contract import Check, Interval

SPEEDUP = "speedup"
INT8_GAIN = "int8_gain"
REAL_MIXES = ("mix-single", "mix-batched")
"""The workloads that may decide: real texts of mixed lengths, alone and in batches."""


def judge_speed(
    latencies: Sequence[Latency],
    policy: Policy,
    *,
    is_baseline: bool,
    mixes: Collection[str] = REAL_MIXES,
) -> tuple[Check, ...]:
    """Judge the speedup over FP32 on the real mixes of lengths.

    The figure is the geometric mean over those mixes that were timed, its interval that of
    fully correlated errors (the ends' geometric means): what disturbs a machine during
    one mix may well disturb the other.

    Args:
        latencies: of one artifact, any workloads.
        policy: the thresholds.
        is_baseline: the artifact is FP32 itself, which is as fast as itself and no faster: it
            passes unless the policy asks for more than that. Nothing is compared, so no value.
        mixes: those that decide.
    """
    if is_baseline:
        return (_judge_baseline(policy.min_speedup),)
    speedup = mean_speedup(latencies, mixes)
    if speedup is None:
        return (not_run(SPEEDUP, policy.min_speedup, _missing(mixes), unit="x"),)
    check = gate(SPEEDUP, speedup, policy.min_speedup, samples="rounds", unit="x")
    return (replace(check, details={**check.details, **_by_mix(latencies)}),)


def _judge_baseline(threshold: float) -> Check:
    fits = threshold <= 1.0
    reason = "this artifact is FP32 itself"
    return Check(
        name=SPEEDUP,
        verdict="pass" if fits else "fail",
        value=None,
        threshold=threshold,
        unit="x",
        reason=reason if fits else f"{reason}, and the policy asks for {threshold:g}x its speed",
    )


def judge_int8_gain(over_float: Sequence[Latency], mixes: Collection[str] = REAL_MIXES) -> Check:
    """Judge whether int8 is faster than the fastest float artifact of the same device.

    Args:
        over_float: latencies of the int8 artifact whose speedups are over that float, FP32
            included, paired by round: what slowed both is in neither.
        mixes: those that decide.
    """
    gain = mean_speedup(over_float, mixes)
    if gain is None:
        return not_run(INT8_GAIN, 1.0, _missing(mixes), unit="x")
    check = gate(INT8_GAIN, gain, 1.0, samples="rounds", unit="x")
    if check.verdict != "fail":
        return check
    reason = f"int8 is not faster than the device's best float: {check.reason}"
    return replace(check, reason=reason)


def mean_speedup(
    latencies: Sequence[Latency], mixes: Collection[str] = REAL_MIXES
) -> Estimate | None:
    """Return the geometric mean of the speedups on those mixes that were timed; None: on none."""
    speedups = [
        latency.speedup
        for latency in latencies
        if latency.workload in mixes and latency.speedup is not None
    ]
    if not speedups:
        return None
    return Estimate(
        value=_geometric_mean([speedup.value for speedup in speedups]),
        interval=Interval(
            low=_geometric_mean([speedup.interval.low for speedup in speedups]),
            high=_geometric_mean([speedup.interval.high for speedup in speedups]),
        ),
        num_samples=min(speedup.num_samples for speedup in speedups),
    )


def _missing(mixes: Collection[str]) -> str:
    return (
        f"no speedup over FP32 was taken on {' or '.join(mixes)} "
        "(it needs two interleaved rounds on a device that measures latency)"
    )


def _by_mix(latencies: Sequence[Latency]) -> dict[str, str]:
    return {
        latency.workload: f"{latency.speedup.value:.2f}x"
        for latency in latencies
        if latency.workload in REAL_MIXES and latency.speedup is not None
    }


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(math.fsum(math.log(value) for value in values) / len(values))
