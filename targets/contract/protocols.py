"""What a target, a device and a loaded artifact must do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from targets.contract.artifacts import CompiledArtifact, CompileRequest
from targets.contract.graph import OnnxArtifact
from targets.contract.hardware import Availability, Hardware, TargetSpec
from targets.contract.progress import Progress
from targets.contract.recipes import Recipe
from targets.contract.running import (
    Batching,
    ExecutedPrecision,
    RunnerInfo,
    RunPlan,
    RuntimeVariant,
    Workload,
)
from targets.contract.tokens import FloatArray, TokenSequences


class Runner(Protocol):
    """A loaded artifact on a device. Time is taken on the device."""

    def embed(
        self,
        tokens: TokenSequences,
        batching: Batching = ...,
        progress: Progress = ...,
    ) -> FloatArray:
        """Embed texts; rows in the order given, shape [num_texts, dim], float32."""

    def time(self, workload: Workload, passes: int, warmup: int = 0) -> FloatArray:
        """Run `passes` timed passes after `warmup` untimed ones; samples in milliseconds.

        Shape [passes] for "shape" and "batched", [passes * num_texts] for "single"
        (pass by pass, texts in the order given).
        """

    def inspect(self, tokens: TokenSequences) -> tuple[ExecutedPrecision, ...]:
        """Say which precision each kind of operation really ran in."""

    def info(self) -> RunnerInfo:
        """Return load and first-call time, memory so far, versions, effective options."""

    def close(self) -> None:
        """End the process; never raises."""


@runtime_checkable
class Device(Protocol):
    """A place where artifacts run.

    `measures_latency` is False where time means nothing (emulation): no latency is ever taken.
    """

    name: str
    measures_latency: bool

    def distributions(self, names: Sequence[str]) -> Mapping[str, str]:
        """Return the versions of those distributions that its runners can import.

        Raises:
            DeviceError: the device does not answer.
        """

    def hardware(self) -> Hardware:
        """Detect what this device is."""

    def start(self, plan: RunPlan, num_threads: int) -> Runner:
        """Push what is needed, start the runner and load the artifact."""


@runtime_checkable
class Target(Protocol):
    """One runtime on one class of hardware."""

    spec: TargetSpec

    def probe(self, device: Device) -> Availability:
        """Say whether this target can run on that device; never raises."""

    def candidates(self, graph: OnnxArtifact | None, hardware: Hardware) -> Sequence[Recipe]:
        """Return the recipes that this hardware supports; the first is the FP32 baseline.

        The others come in the order of promise: a limited search leaves out the last ones.
        Without a graph: those for any encoder.
        """

    def compile(self, request: CompileRequest) -> CompiledArtifact:
        """Build one artifact. Raises: CompileError, NotInstalledError."""

    def run_plan(
        self, artifact: CompiledArtifact, graph: OnnxArtifact, pad_token_id: int, num_threads: int
    ) -> RunPlan:
        """Say what the runner must load."""

    def ship(self, artifact: CompiledArtifact) -> Sequence[tuple[str, str]]:
        """Say where the files go: (path in the artifact, path in the bundle).

        The first is the entry file under the name that the runtime's loaders look for by
        default; a file may appear again under another conventional name.
        """


@runtime_checkable
class Tunable(Protocol):
    """What a target may offer besides: other ways of running its artifacts."""

    def variants(self, plan: RunPlan, num_threads: int) -> Sequence[RuntimeVariant]:
        """Return the variants of a plan that are worth timing; none is an answer.

        The more promising come first. None of them equals the plan itself.
        """


def variants_of(target: Target, plan: RunPlan, num_threads: int) -> tuple[RuntimeVariant, ...]:
    """Return a target's runtime variants; none where it does not offer any."""
    return tuple(target.variants(plan, num_threads)) if isinstance(target, Tunable) else ()
