"""The report as a typed document: what `report.json` holds, and what is rendered from it.

The published schema is `schema.json` beside this file. Values that the pipeline's own
records already describe (checks, latencies, fidelity, …) appear here as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from exporter.deliver.codec import load_json
from exporter.values import (
    Compatibility,
    Fidelity,
    Latency,
    ParityReport,
    Provenance,
    QuantizationSummary,
    ShippedFile,
    TextsSummary,
)
from targets.contract import Check, Recipe, RunnerInfo, TensorSpec, Verdict
from targets.errors import StorageError

SCHEMA_VERSION = 1
REPORT_JSON = "report.json"
REPORT_MARKDOWN = "report.md"
MISSING: Literal["missing"] = "missing"
"""Status of what was expected in a merged report and is in none of the bundles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionCell:
    """How often, and for what share of the time, an operation ran in one dtype."""

    count: int
    time_share: float | None


ExecutedPrecisions = Mapping[str, Mapping[str, PrecisionCell]]
"""Operation type → dtype → how often; empty where nothing was inspected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareSection:
    """The device as it was detected. Figures compare only within one fingerprint."""

    fingerprint: str
    architecture: str
    vendor: str
    model_name: str
    microarchitecture: str
    num_cores: int
    memory_bytes: int
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateSection:
    """One recipe of the tournament; its figures are of the development split.

    `on_front`: no candidate that was judged is both as fast and as close to FP32.
    """

    recipe: Recipe
    status: Literal["chosen", "eligible", "dropped", "failed"]
    reason: str
    on_front: bool
    size_bytes: int | None
    compile_s: float | None
    checks: tuple[Check, ...]
    latency: tuple[Latency, ...] | None
    fidelity: Fidelity | None
    executed_precisions: ExecutedPrecisions
    runner: RunnerInfo | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantSection:
    """One way of running the artifact; speed-ups are over the first of them, the default."""

    name: str
    status: Literal["chosen", "eligible", "dropped", "failed"]
    reason: str
    why: str
    num_threads: int
    options: Mapping[str, str]
    length_multiple: int
    max_batch_tokens: int
    min_cosine: float | None
    latency: tuple[Latency, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSection:
    """One target on one device; its figures are of the test split.

    `status`: "missing" stands in merged reports only: it was expected, and no bundle has it.
    `quantization`: how static int8 forms of layers were found; None where none were looked for.
    `numerics`: whose kernels embedded: the device's own, or others here ("simulated").
    """

    target: str
    device: str
    status: Literal["verified", "prepared", "failed", "not_run", "missing"]
    recipe: Recipe | None
    artifact: ShippedFile | None
    checks: tuple[Check, ...]
    latency: tuple[Latency, ...] | None
    fidelity: Fidelity | None
    executed_precisions: ExecutedPrecisions
    candidates: tuple[CandidateSection, ...]
    variants: tuple[VariantSection, ...]
    quantization: QuantizationSummary | None
    reason: str
    artifact_size_bytes: int | None
    options: Mapping[str, str]
    hardware: HardwareSection | None
    runner: RunnerInfo | None
    tool_versions: Mapping[str, str]
    numerics: Literal["device", "simulated"] = "device"


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSection:
    """The exported FP32 graph and how closely it agrees with PyTorch."""

    sha256: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    parity: ParityReport


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSection:
    """The source model."""

    id: str
    source: Literal["local", "hub", "package"]
    revision: str | None
    library: Literal["sentence_transformers", "transformers"]
    architecture: str
    model_type: str
    modules: tuple[str, ...]
    pooling: str
    normalize: bool
    embedding_dim: int
    max_seq_length: int
    prompts: Mapping[str, str]
    default_prompt: str
    weights_sha256: str
    tokenizer_sha256: str
    trust_remote_code: bool
    warnings: tuple[str, ...]
    graph: GraphSection


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSection:
    """The texts that chose (none where the recipe was forced) and those that certify."""

    development: TextsSummary | None
    test: TextsSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSection:
    """One of the reports that were merged: what is not the same in all of them.

    `name`: bundle, archive or file, as the user named it; `report_sha256`: of its `report.json`.
    `targets`: what it had, as "TARGET on DEVICE".
    """

    name: str
    report_sha256: str
    targets: tuple[str, ...]
    development: TextsSummary | None
    calibration: TextsSummary
    provenance: Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The whole document, in the order of its keys.

    `workload`: texts of the user's own that were timed; None: those of the evaluation.
    `compatibility`: which artifacts may share an index; None where there is one at most.
    `sources`: the reports that this one was merged from; empty for the report of one run, and
    what this one says of provenance and calibration is then that of the first.
    """

    schema_version: int = field(default=SCHEMA_VERSION)
    verdict: Verdict
    exit_code: int
    model: ModelSection
    evaluation: EvaluationSection
    targets: tuple[TargetSection, ...]
    provenance: Provenance
    calibration: TextsSummary
    workload: TextsSummary | None
    compatibility: Compatibility | None = None
    sources: tuple[SourceSection, ...] = ()


def parse_report(data: bytes) -> Report:
    """Read the document from JSON.

    Raises:
        StorageError: it is not a report, or of another schema version.
    """
    found = _schema_version(data)
    if found not in (None, SCHEMA_VERSION):
        raise StorageError(
            f"the report has schema version {found}, not {SCHEMA_VERSION}",
            hint="read it with the version of embedding-exporter that wrote it",
        )
    return load_json(Report, data)


def _schema_version(data: bytes) -> object:
    """Look at the version first: what else a document of another one holds is not ours to judge."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return document.get("schema_version") if isinstance(document, dict) else None


def read_report(path: Path, *, name: Path | None = None) -> Report:
    """Read a `report.json`, named itself or by the folder that it lies in.

    Args:
        path: the file or its folder.
        name: what the file is called in errors; None: its path.

    Raises:
        StorageError: it cannot be read or is no report; names the file.
    """
    file = path / REPORT_JSON if path.is_dir() else path
    called = name or file
    try:
        return parse_report(file.read_bytes())
    except OSError as error:
        why = error.strerror or str(error)
        raise StorageError(f"the report {called} cannot be read", why=why) from error
    except StorageError as error:
        why = f"{error.what}: {error.why}" if error.why else error.what
        raise StorageError(f"{called} is not a report", why=why, hint=error.hint) from error
