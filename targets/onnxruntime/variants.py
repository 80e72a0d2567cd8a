"""Other ways of running an ONNX Runtime artifact: threads, batches, padding, optimization level."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from targets.contract import RunPlan, RuntimeVariant

OPTIMIZATION = "graph_optimization_level"
SPINNING = "intra_op_spinning"
EXECUTION = "execution_mode"
CONCURRENT = "concurrent_runs"

DEFAULTS: Mapping[str, str] = {
    OPTIMIZATION: "all",
    SPINNING: "1",
    EXECUTION: "sequential",
    CONCURRENT: "1",
}
"""Options of the session adapter, which knows the same names (it imports nothing of ours)."""
LENGTH_MULTIPLE = 1
"""ONNX Runtime pays nothing for a new shape, so that padding only costs."""
MAX_BATCH_TOKENS = 512
"""Activations of so many tokens stay in the second-level cache; twice as many cost a sixth more."""

_BATCH_TOKENS: Mapping[int, str] = {
    1024: "larger batches give each of many threads enough to do",
    4096: "larger batches pay the cost of a call less often",
}
_BUCKETS: Mapping[int, str] = {
    8: "kernels work on rows in blocks, which whole multiples fill",
}


def variants_of_plan(plan: RunPlan, num_threads: int) -> tuple[RuntimeVariant, ...]:
    """Return the variants of a plan, one knob each, the more promising first.

    Args:
        plan: the plan that an artifact is run by.
        num_threads: CPU threads that it runs on.
    """
    return (
        *_threaded(plan, num_threads),
        *_batched(plan, num_threads),
        *_leveled(plan, num_threads),
    )


def _threaded(plan: RunPlan, num_threads: int) -> list[RuntimeVariant]:
    """Vary how threads share the work; a single one has nobody to share with."""
    if num_threads < 2:
        return []
    several = _with_option(
        f"concurrent-{num_threads}",
        plan,
        num_threads,
        "every thread embeds a batch of its own and waits for no other",
        {CONCURRENT: str(num_threads)},
    )
    asleep = _with_option(
        "spinning-off",
        plan,
        num_threads,
        "threads that wait asleep take no time from those that work",
        {SPINNING: "0"},
    )
    return [replace(several, batched_only=True), asleep]


def _batched(plan: RunPlan, num_threads: int) -> list[RuntimeVariant]:
    def vary(name: str, why: str, **changes: Any) -> RuntimeVariant:  # noqa: ANN401
        changed = replace(plan, **changes)
        return RuntimeVariant(name=name, plan=changed, num_threads=num_threads, why=why)

    batches = [
        vary(f"batch-tokens-{tokens}", why, max_batch_tokens=tokens)
        for tokens, why in _BATCH_TOKENS.items()
        if tokens != plan.max_batch_tokens and tokens >= plan.length_multiple
    ]
    buckets = [
        vary(f"buckets-{multiple}", why, length_multiple=multiple)
        for multiple, why in _BUCKETS.items()
        if multiple != plan.length_multiple and multiple <= plan.max_batch_tokens
    ]
    return batches + buckets


def _leveled(plan: RunPlan, num_threads: int) -> list[RuntimeVariant]:
    if plan.options.get(OPTIMIZATION) == "basic":
        return []
    why = "fusions of the higher levels are not always faster than what they replace"
    return [_with_option("level-basic", plan, num_threads, why, {OPTIMIZATION: "basic"})]


def _with_option(
    name: str, plan: RunPlan, num_threads: int, why: str, options: Mapping[str, str]
) -> RuntimeVariant:
    changed = replace(plan, options={**plan.options, **options})
    return RuntimeVariant(name=name, plan=changed, num_threads=num_threads, why=why)
