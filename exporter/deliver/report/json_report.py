"""The JSON report: the run's record in the published shape, the only source of the others."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from exporter.deliver.codec import to_plain
from exporter.deliver.report.document import (
    CandidateSection,
    EvaluationSection,
    ExecutedPrecisions,
    GraphSection,
    HardwareSection,
    ModelSection,
    PrecisionCell,
    Report,
    TargetSection,
    VariantSection,
)
from exporter.values import (
    CandidateResult,
    EncoderSpec,
    ExportRecord,
    Latency,
    ParityReport,
    TargetResult,
    VariantResult,
)
from targets.contract import ExecutedPrecision, Hardware, OnnxArtifact


def to_json(report: Report) -> bytes:
    """Write the document as indented UTF-8 JSON.

    What is not valid Unicode (an undecodable file name on the command line) is written as
    escapes, so that no report is lost for it.

    Raises:
        NonFiniteError: a figure is NaN or infinite; names it.
    """
    plain = to_plain(report, text=_escape_surrogates, where="report")
    return json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _escape_surrogates(value: str, _: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode()


def document_of(record: ExportRecord) -> Report:
    """Bring a run's record into the shape of the report."""
    return Report(
        verdict=record.verdict,
        exit_code=int(record.exit_code),
        model=_model(record.encoder, record.graph, record.parity),
        evaluation=EvaluationSection(
            development=record.evaluation_dev, test=record.evaluation_test
        ),
        targets=tuple(section_of(result) for result in record.targets),
        provenance=record.provenance,
        calibration=record.calibration,
        workload=record.workload,
        compatibility=record.compatibility,
    )


def _model(spec: EncoderSpec, graph: OnnxArtifact, parity: ParityReport) -> ModelSection:
    return ModelSection(
        id=spec.model_id,
        source=spec.source,
        revision=spec.revision,
        library=spec.library,
        architecture=spec.architecture,
        model_type=spec.model_type,
        modules=spec.modules,
        pooling=spec.pooling,
        normalize=spec.normalize,
        embedding_dim=spec.embedding_dim,
        max_seq_length=spec.max_seq_length,
        prompts=spec.prompts,
        default_prompt=spec.default_prompt,
        weights_sha256=spec.weights_sha256,
        tokenizer_sha256=spec.tokenizer_sha256,
        trust_remote_code=spec.trust_remote_code,
        warnings=spec.warnings,
        graph=GraphSection(
            sha256=graph.sha256,
            opset=graph.opset,
            inputs=graph.inputs,
            outputs=graph.outputs,
            parity=parity,
        ),
    )


def section_of(result: TargetResult) -> TargetSection:
    """Bring what was found of one target on one device into the shape of the report."""
    return TargetSection(
        target=result.target,
        device=result.device,
        status=result.status,
        recipe=result.recipe,
        artifact=result.artifact,
        checks=result.checks,
        latency=_latency(result.latency),
        fidelity=result.fidelity,
        executed_precisions=executed_precisions(result.executed),
        candidates=tuple(_candidate(candidate) for candidate in result.candidates),
        variants=tuple(_variant(variant) for variant in result.variants),
        quantization=result.quantization,
        reason=result.reason,
        artifact_size_bytes=result.artifact_size_bytes,
        options=result.options,
        hardware=_hardware(result.hardware),
        runner=result.runner,
        tool_versions=result.tool_versions,
        numerics=result.numerics,
    )


def _candidate(result: CandidateResult) -> CandidateSection:
    return CandidateSection(
        recipe=result.recipe,
        status=result.status,
        reason=result.reason,
        on_front=result.on_front,
        size_bytes=result.size_bytes,
        compile_s=result.compile_s,
        checks=result.checks,
        latency=_latency(result.latency),
        fidelity=result.fidelity,
        executed_precisions=executed_precisions(result.executed),
        runner=result.runner,
    )


def _variant(result: VariantResult) -> VariantSection:
    return VariantSection(
        name=result.name,
        status=result.status,
        reason=result.reason,
        why=result.why,
        num_threads=result.num_threads,
        options=result.options,
        length_multiple=result.length_multiple,
        max_batch_tokens=result.max_batch_tokens,
        min_cosine=result.min_cosine,
        latency=_latency(result.latency),
    )


def _latency(latency: Sequence[Latency]) -> tuple[Latency, ...] | None:
    """Say null where none was taken: an empty list would look like a measurement."""
    return tuple(latency) or None


def _hardware(hardware: Hardware | None) -> HardwareSection | None:
    if hardware is None:
        return None
    return HardwareSection(
        fingerprint=hardware.fingerprint,
        architecture=hardware.architecture,
        vendor=hardware.vendor,
        model_name=hardware.model_name,
        microarchitecture=hardware.microarchitecture,
        num_cores=hardware.num_cores,
        memory_bytes=hardware.memory_bytes,
        features=tuple(sorted(hardware.features)),
    )


def executed_precisions(rows: Sequence[ExecutedPrecision]) -> ExecutedPrecisions:
    """Sum rows by operation type and dtype; a share is known only if every part is."""
    cells: dict[str, dict[str, PrecisionCell]] = {}
    for row in rows:
        dtypes = cells.setdefault(row.op_type, {})
        dtypes[row.dtype] = _add(dtypes.get(row.dtype), row)
    return _sorted(cells)


def _add(cell: PrecisionCell | None, row: ExecutedPrecision) -> PrecisionCell:
    if cell is None:
        return PrecisionCell(count=row.count, time_share=row.time_share)
    shares = (cell.time_share, row.time_share)
    known = [share for share in shares if share is not None]
    total = min(1.0, sum(known)) if len(known) == len(shares) else None
    return PrecisionCell(count=cell.count + row.count, time_share=total)


def _sorted(cells: Mapping[str, Mapping[str, PrecisionCell]]) -> ExecutedPrecisions:
    return {op_type: dict(sorted(cells[op_type].items())) for op_type in sorted(cells)}
