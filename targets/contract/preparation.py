"""Artifacts that are made where their device is not: prepared here, finished there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from targets.contract.artifacts import CompiledArtifact
from targets.contract.graph import OnnxArtifact
from targets.contract.hardware import Hardware
from targets.contract.progress import Progress, no_progress
from targets.contract.protocols import Device, Target
from targets.contract.running import ExecutedPrecision, RunPlan
from targets.contract.tokens import TokenSequences


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """What a compiler made of an artifact, known without running it.

    Args:
        rows: operation type → precision, as a runtime's inspection tells it.
        source: whose compiler told, with its version, in words for a report.
        fused_attentions: attention blocks that run as one kernel; None: not told.
        warnings: what the compiler could not fuse or do as asked.
    """

    rows: tuple[ExecutedPrecision, ...]
    source: str
    fused_attentions: int | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishRequest:
    """Everything a target needs to finish a prepared artifact on the machine of its device.

    Args:
        artifact: what `compile` made, its files unchanged (hashes were checked).
        hardware: the device.
        output_dir: an empty folder for the finished artifact.
        keep_dir: what makes later builds faster may be kept here between runs; None: nothing is.
        options: of the build, by the target's own names; those not named are as prepared.
        engine: built from this artifact by the runtime's own tool; None: the target builds it.
        calibration: texts for a runtime that chooses scales itself, where `options` ask for that.
    """

    artifact: CompiledArtifact
    hardware: Hardware
    output_dir: Path
    num_threads: int
    keep_dir: Path | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    engine: Path | None = None
    calibration: TokenSequences | None = None
    progress: Progress = no_progress


@runtime_checkable
class Preparable(Protocol):
    """What a target may offer besides: it works where its device is not.

    `Target.compile` makes the portable form on any machine. Where `Target.probe` finds the
    device, `finish` turns it into what runs there; elsewhere the result is "prepared".
    """

    def lacking_to_prepare(self) -> Sequence[str]:
        """Say what preparing needs and this machine has not, each with what mends it."""

    def prepared_hardware(self, compute_capabilities: Sequence[str]) -> Hardware:
        """Return the device that artifacts are prepared for, in place of a detected one.

        Args:
            compute_capabilities: of NVIDIA GPUs ("8.9"); none: the target's default.

        Raises:
            ConfigError: one that the target cannot build for; says which it can.
        """

    def detected_hardware(self, device: Device) -> Hardware:
        """Return what `finish` builds for, which need not be the device's CPU.

        Raises:
            DeviceError: there is none.
        """

    def structure(self, artifact: CompiledArtifact) -> Structure | None:
        """Return what a compiler at hand makes of the artifact; None: there is none here."""

    def simulation(
        self, artifact: CompiledArtifact, graph: OnnxArtifact, pad_token_id: int, num_threads: int
    ) -> RunPlan:
        """Return what runs the same arithmetic here, with other kernels than the device's."""

    def finish(self, request: FinishRequest) -> CompiledArtifact:
        """Build what runs on the device; the first file is what `run_plan` loads.

        Raises:
            CompileError: it cannot be built, or the engine that was given is none of these.
            ConfigError: an option that the target does not have.
            NotInstalledError: the runtime is missing.
        """


def hardware_of(target: Target, device: Device) -> Hardware:
    """Return the hardware that a target's artifacts run on where its device is.

    Raises:
        DeviceError: there is none.
    """
    if isinstance(target, Preparable):
        return target.detected_hardware(device)
    return device.hardware()
