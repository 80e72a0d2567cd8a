"""Other ways of running a PyTorch artifact: compiled, in other batches, on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from targets.contract import RunPlan, RuntimeVariant

COMPILE, PLACE = "compile", "place"
DEFAULTS: Mapping[str, str] = {COMPILE: "off", PLACE: "cpu"}
"""Options of the session adapter, which knows the same names (it imports nothing of ours)."""
LENGTH_MULTIPLE = 1
"""Eager PyTorch pays nothing for a new shape, so that padding only costs."""
MAX_BATCH_TOKENS = 1024
"""As `exporter.source.encoder` embeds: activations of four times as many leave the caches."""
_DRIVER = Path("/proc/driver/nvidia/version")
"""There where NVIDIA's kernel driver is loaded on this machine."""


def variants_of_plan(plan: RunPlan, num_threads: int) -> tuple[RuntimeVariant, ...]:
    """Return the variants of a plan, one knob each, the more promising first.

    Args:
        plan: the plan that an artifact is run by.
        num_threads: CPU threads that it runs on.
    """
    found: list[RuntimeVariant] = []
    if plan.options.get(PLACE) == "cpu" and _DRIVER.exists():
        on_gpu = replace(plan, options={**plan.options, PLACE: "cuda"}, max_batch_tokens=16384)
        why = "this machine has an NVIDIA GPU"
        found.append(_variant("cuda", on_gpu, num_threads, why))
    if plan.options.get(COMPILE) == "off":
        compiled = replace(plan, options={**plan.options, COMPILE: "dynamic"})
        why = "torch.compile fuses what lies between the products and calls fewer operators"
        found.append(_variant("compiled", compiled, num_threads, why))
    if plan.max_batch_tokens != 4096:
        larger = replace(plan, max_batch_tokens=4096)
        why = "larger batches pay the cost of a call less often"
        found.append(_variant("batch-tokens-4096", larger, num_threads, why))
    return tuple(found)


def _variant(name: str, plan: RunPlan, num_threads: int, why: str) -> RuntimeVariant:
    return RuntimeVariant(name=name, plan=plan, num_threads=num_threads, why=why)
