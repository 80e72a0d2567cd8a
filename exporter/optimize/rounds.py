"""Interleaved timing: artifacts take turns, so that a machine's mood hits all of them.

The device takes the time; this only says who runs when.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from exporter.values import TimedSeries
from targets.contract import FloatArray, Progress, Runner, Workload, no_progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How long to time.

    Args:
        rounds: turns that each artifact gets; the unit of the paired interval.
        round_s: how long one turn of the slowest artifact should take at least.
        max_passes: passes in one turn at most.
    """

    rounds: int
    round_s: float
    max_passes: int = 100


HEAT = Protocol(rounds=2, round_s=0.0)
"""Enough to see which candidates cannot win."""

FINAL = Protocol(rounds=4, round_s=0.0)
"""Enough to rank the fastest candidates on the mixes."""

FULL = Protocol(rounds=6, round_s=0.1)
"""What a report quotes."""

LONG = Protocol(rounds=16, round_s=0.0)
"""For what six rounds leave open: their interval is their whole range, that of sixteen leaves three
rounds out at either end."""


def time_interleaved(
    runners: Mapping[str, Runner],
    workloads: Sequence[Workload],
    protocol: Protocol,
    progress: Progress = no_progress,
) -> tuple[TimedSeries, ...]:
    """Time every workload on every artifact in interleaved rounds.

    Args:
        runners: artifact name → its loaded runner; insertion order is the first round's.
        workloads: what to time.
        protocol: how often.
        progress: counts turns.

    Returns:
        One series per workload, samples of shape [rounds, samples per round].
    """
    total = len(workloads) * protocol.rounds * len(runners)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    return tuple(_one_workload(runners, workload, protocol, tick) for workload in workloads)


def _one_workload(
    runners: Mapping[str, Runner], workload: Workload, protocol: Protocol, tick: Callable[[], None]
) -> TimedSeries:
    passes = _passes(runners, workload, protocol)
    taken: dict[str, list[FloatArray]] = {name: [] for name in runners}
    names = list(runners)
    for turn in range(protocol.rounds):
        # a rotating order, so that nobody always runs on the heels of the same neighbour
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            taken[name].append(runners[name].time(workload, passes))
            tick()
    return TimedSeries(
        workload=workload.name,
        texts_per_sample=1 if workload.kind == "single" else workload.texts_per_pass,
        samples_ms={name: np.stack(rows).astype(np.float64) for name, rows in taken.items()},
    )


def _passes(runners: Mapping[str, Runner], workload: Workload, protocol: Protocol) -> int:
    """Warm every artifact up on this workload and size a turn by the slowest."""
    if protocol.round_s == 0.0:
        for runner in runners.values():
            runner.time(workload, 1)
        return 1
    pass_s = max(_warm_pass_s(runner, workload, protocol) for runner in runners.values())
    return max(1, min(protocol.max_passes, math.ceil(protocol.round_s / max(pass_s, 1e-6))))


def _warm_pass_s(runner: Runner, workload: Workload, protocol: Protocol) -> float:
    """Time one pass; a first one that was long enough was its own warm-up."""
    first_s = float(np.sum(runner.time(workload, 1))) / 1e3
    if workload.kind != "shape" or first_s >= protocol.round_s:
        return first_s
    return float(np.sum(runner.time(workload, 1))) / 1e3
