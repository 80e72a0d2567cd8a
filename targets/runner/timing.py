"""Time on the device: the clock runs around the session's run methods and nothing else."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from .batches import Tokens, build_inputs, full_batch, iterate_inputs
from .plan import BatchRules, Inputs, RunnerFailure, SessionPlan

RunBatch = Callable[[Inputs], NDArray[np.float32]]
RunMany = Callable[[list[Inputs]], list[NDArray[np.float32]]]
TimeSample = Callable[[list[Inputs]], int]
"""Runs the batches of one sample and returns the nanoseconds that they took."""
Samples = NDArray[np.float64]


def prepare_workload(
    kind: str,
    shape: tuple[int, int],
    tokens: Tokens | None,
    plan: SessionPlan,
) -> list[list[Inputs]]:
    """Build everything that one pass runs, before any clock starts.

    Args:
        kind: "shape", "single" or "batched".
        shape: batch size and sequence length of a "shape".
        tokens: the texts of the other two; for a "shape" only where its ids come from.
        plan: names the inputs, the budget and the length multiple.

    Returns:
        One list of batches per sample of a pass.

    Raises:
        RunnerFailure: "command" if the kind is unknown or its texts are missing.
    """
    if kind == "shape":
        return [[full_batch(*shape, plan, tokens)]]
    if kind not in ("single", "batched") or tokens is None:
        raise RunnerFailure("command", f"workload {kind!r} is unknown or has no texts")
    rules = BatchRules.from_json({}, plan)
    if kind == "single":
        return [[build_inputs(tokens, [index], rules, plan)] for index in range(len(tokens))]
    return [[inputs for _, inputs in iterate_inputs(tokens, rules, plan)]]


def one_by_one(run: RunBatch) -> TimeSample:
    """Time every batch of a sample by itself and add the times up."""

    def time_sample(batches: list[Inputs]) -> int:
        return sum(_time_run(run, inputs) for inputs in batches)

    return time_sample


def at_once(run_many: RunMany) -> TimeSample:
    """Time all batches of a sample together: from the first one in to the last one out."""

    def time_sample(batches: list[Inputs]) -> int:
        start_ns = time.perf_counter_ns()
        run_many(batches)
        return time.perf_counter_ns() - start_ns

    return time_sample


def time_passes(
    time_sample: TimeSample,
    samples: list[list[Inputs]],
    passes: int,
    warmup: int,
    after_pass: Callable[[int], None],
) -> Samples:
    """Run `warmup` untimed and `passes` timed passes.

    Returns:
        Milliseconds, pass by pass, shape [passes * len(samples)], float64.
    """
    for done in range(warmup):
        _time_pass(time_sample, samples)
        after_pass(done + 1)
    timed_ns: list[int] = []
    with _no_garbage_collection():
        for done in range(passes):
            timed_ns += _time_pass(time_sample, samples)
            after_pass(warmup + done + 1)
    return np.array(timed_ns, np.float64) / 1e6


def _time_pass(time_sample: TimeSample, samples: list[list[Inputs]]) -> list[int]:
    return [time_sample(batches) for batches in samples]


def _time_run(run: RunBatch, inputs: Inputs) -> int:
    start_ns = time.perf_counter_ns()
    run(inputs)
    return time.perf_counter_ns() - start_ns


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection inside a sample would be taken for the runtime's time."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
