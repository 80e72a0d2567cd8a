"""Other ways of running a PyTorch artifact: compiled, as one launch, in other batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from targets.contract import RunPlan, RuntimeVariant
from targets.pytorch.files import PLACE

COMPILE, GRAPHS = "compile", "cuda_graphs"
DEFAULTS: Mapping[str, str] = {COMPILE: "off", GRAPHS: "off", PLACE: "cpu"}
"""Options of the session adapter, which knows the same names (it imports nothing of ours)."""
LENGTH_MULTIPLE = 1
"""Eager PyTorch pays nothing for a new shape, so that padding only costs."""
MAX_BATCH_TOKENS: Mapping[str, int] = {"cpu": 1024, "cuda": 32768}
"""On a CPU as `exporter.source.encoder` embeds: activations of four times as many leave the
caches. A GPU waits for work in batches as small as that."""
_MORE_BATCH_TOKENS = 4096
_GRAPH_LENGTH_MULTIPLE = 16
"""Every shape is a graph of its own, which is captured on its first use."""


def variants_of_plan(plan: RunPlan, num_threads: int) -> tuple[RuntimeVariant, ...]:
    """Return the variants of a plan, the more promising first.

    Args:
        plan: the plan that an artifact is run by.
        num_threads: CPU threads that it runs on.
    """
    found = [*_on_gpu(plan, num_threads)] if plan.options.get(PLACE) == "cuda" else []
    if plan.options.get(COMPILE) == "off":
        why = "torch.compile fuses what lies between the products and calls fewer operators"
        found.append(_variant("compiled", _compiled(plan), num_threads, why))
    if plan.max_batch_tokens < _MORE_BATCH_TOKENS:
        larger = replace(plan, max_batch_tokens=_MORE_BATCH_TOKENS)
        why = "larger batches pay the cost of a call less often"
        found.append(_variant(f"batch-tokens-{_MORE_BATCH_TOKENS}", larger, num_threads, why))
    return tuple(found)


def _on_gpu(plan: RunPlan, num_threads: int) -> tuple[RuntimeVariant, ...]:
    if plan.options.get(GRAPHS) != "off":
        return ()
    captured = replace(
        plan,
        options={**plan.options, GRAPHS: "on"},
        length_multiple=_GRAPH_LENGTH_MULTIPLE,
    )
    why = "one launch for the whole model: small batches wait for the CPU that starts kernels"
    found = [_variant("cuda-graphs", captured, num_threads, why)]
    if plan.options.get(COMPILE) == "off":
        why = "fewer kernels by torch.compile, and one launch for all of them"
        both = _compiled(captured)
        found.append(_variant("compiled-cuda-graphs", both, num_threads, why))
    return tuple(found)


def _compiled(plan: RunPlan) -> RunPlan:
    return replace(plan, options={**plan.options, COMPILE: "dynamic"})


def _variant(name: str, plan: RunPlan, num_threads: int, why: str) -> RuntimeVariant:
    return RuntimeVariant(name=name, plan=plan, num_threads=num_threads, why=why)
