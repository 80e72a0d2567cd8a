"""What one run of the pipeline found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from exporter.values.compatibility import Compatibility
from exporter.values.encoder import EncoderSpec, ParityReport
from exporter.values.fidelity import Fidelity
from exporter.values.latency import Latency
from exporter.values.quantization import QuantizationSummary
from exporter.values.texts import TextsSummary
from exporter.values.tournament import CandidateResult, VariantResult
from targets.contract import (
    Check,
    ExecutedPrecision,
    Hardware,
    OnnxArtifact,
    Recipe,
    RunnerInfo,
    Verdict,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippedFile:
    """A file of the bundle."""

    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetResult:
    """What one target on one device came to. Fidelity is of the test split.

    `numerics` says whose kernels embedded: the device's own, or others here that compute the same
    graph.
    """

    target: str
    device: str
    status: Literal["verified", "prepared", "failed", "not_run"]
    reason: str = ""
    hardware: Hardware | None = None
    recipe: Recipe | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    artifact: ShippedFile | None = None
    artifact_size_bytes: int | None = None
    checks: tuple[Check, ...] = ()
    latency: tuple[Latency, ...] = ()
    fidelity: Fidelity | None = None
    executed: tuple[ExecutedPrecision, ...] = ()
    runner: RunnerInfo | None = None
    candidates: tuple[CandidateResult, ...] = ()
    variants: tuple[VariantResult, ...] = ()
    quantization: QuantizationSummary | None = None
    numerics: Literal["device", "simulated"] = "device"
    tool_versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where every figure comes from. Times are UTC, ISO 8601.

    `made_utc` says when the results of `stages_from_cache` were made, by stage.
    """

    created_utc: str
    command: str
    settings: Mapping[str, str]
    tool_versions: Mapping[str, str]
    stage_s: Mapping[str, float]
    stages_from_cache: tuple[str, ...]
    made_utc: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRecord:
    """Everything one run of the pipeline found; the report is written from it alone.

    `workload` names the texts that were timed where they are the user's own; None: those of
    the evaluation. `compatibility` says which artifacts may share an index; None where there is
    one at most.
    """

    verdict: Verdict
    exit_code: int
    encoder: EncoderSpec
    graph: OnnxArtifact
    parity: ParityReport
    calibration: TextsSummary
    evaluation_dev: TextsSummary | None
    evaluation_test: TextsSummary
    workload: TextsSummary | None = None
    targets: tuple[TargetResult, ...]
    compatibility: Compatibility | None = None
    provenance: Provenance
