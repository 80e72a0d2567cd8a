"""What became of each candidate and of each way of running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from exporter.values.fidelity import Fidelity
from exporter.values.latency import Latency
from targets.contract import Check, ExecutedPrecision, Recipe, RunnerInfo

Objective = Literal["balanced", "latency", "throughput", "size"]
OBJECTIVES: tuple[Objective, ...] = ("balanced", "latency", "throughput", "size")
"""What the choice is for: both mixes of lengths, single requests, batches, or the size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateResult:
    """One recipe of the tournament on one device, with what became of it.

    `reason` says why it was chosen, dropped or failed; figures are None where the
    candidate was dropped before they were taken. Fidelity is of the development split.
    `on_front`: no candidate that was judged is both as fast and as close to FP32.
    """

    recipe: Recipe
    status: Literal["chosen", "eligible", "dropped", "failed"]
    reason: str
    fidelity: Fidelity | None = None
    checks: tuple[Check, ...] = ()
    latency: tuple[Latency, ...] = ()
    size_bytes: int | None = None
    compile_s: float | None = None
    runner: RunnerInfo | None = None
    executed: tuple[ExecutedPrecision, ...] = ()
    on_front: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantResult:
    """One way of running the chosen artifact, with what became of it.

    The first of several is "default", the target's own plan. A speed-up in `latency` is over
    that default, from the same rounds. `min_cosine` is the lowest cosine of a text's embedding
    with the one that the default gives; None where none was taken.
    """

    name: str
    status: Literal["chosen", "eligible", "dropped", "failed"]
    reason: str
    why: str
    num_threads: int
    options: Mapping[str, str]
    length_multiple: int
    max_batch_tokens: int
    min_cosine: float | None = None
    latency: tuple[Latency, ...] = ()
