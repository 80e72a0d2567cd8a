"""Other ways of running an OpenVINO artifact: buckets, batches, streams, threads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from targets.contract import RunPlan, RuntimeVariant

_STREAMS = "NUM_STREAMS"
_THREADS = "INFERENCE_NUM_THREADS"
_FEWEST_THREADS_TO_HALVE = 4

_BUCKETS: Mapping[int, str] = {
    32: "coarser length buckets mean fewer shapes to prepare, for more padding",
    1: "no padding at all, for a new shape at almost every length",
}
_BATCH_TOKENS: Mapping[int, str] = {
    1024: "smaller batches stay closer to the caches",
    4096: "larger batches pay the cost of a call less often",
}


def variants_of_plan(plan: RunPlan, num_threads: int) -> tuple[RuntimeVariant, ...]:
    """Return the variants of a plan, one knob each.

    Args:
        plan: the plan that an artifact is run by.
        num_threads: CPU threads that it runs on.
    """
    return (*_shaped(plan, num_threads), *_streamed(plan, num_threads), *_halved(plan, num_threads))


def _shaped(plan: RunPlan, num_threads: int) -> list[RuntimeVariant]:
    def vary(name: str, why: str, **changes: Any) -> RuntimeVariant:  # noqa: ANN401
        changed = replace(plan, **changes)
        return RuntimeVariant(name=name, plan=changed, num_threads=num_threads, why=why)

    buckets = [
        vary(f"buckets-{multiple}", why, length_multiple=multiple)
        for multiple, why in _BUCKETS.items()
        if multiple != plan.length_multiple and multiple <= plan.max_batch_tokens
    ]
    batches = [
        vary(f"batch-tokens-{tokens}", why, max_batch_tokens=tokens)
        for tokens, why in _BATCH_TOKENS.items()
        if tokens != plan.max_batch_tokens and tokens >= plan.length_multiple
    ]
    return buckets + batches


def _streamed(plan: RunPlan, num_threads: int) -> list[RuntimeVariant]:
    if num_threads < 2 or plan.options.get(_STREAMS) != "1":
        return []
    why = "two streams share the threads and embed two batches at once"
    streams = _with_options("streams-2", plan, num_threads, why, {_STREAMS: "2"})
    return [replace(streams, batched_only=True)]


def _halved(plan: RunPlan, num_threads: int) -> list[RuntimeVariant]:
    if num_threads < _FEWEST_THREADS_TO_HALVE:
        return []
    half = num_threads // 2
    why = "short texts leave many threads waiting for each other, and hyper-threads share a core"
    return [_with_options(f"threads-{half}", plan, half, why, {_THREADS: str(half)})]


def _with_options(
    name: str, plan: RunPlan, num_threads: int, why: str, options: Mapping[str, str]
) -> RuntimeVariant:
    changed = replace(plan, options={**plan.options, **options})
    return RuntimeVariant(name=name, plan=changed, num_threads=num_threads, why=why)
