"""The record of everything found, and the bundle that carries it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from exporter.deliver.bill_of_materials import BILL_OF_MATERIALS, bill_of_materials
from exporter.deliver.bundle import BundleWriter
from exporter.deliver.manifest import facts_of
from exporter.deliver.report import document_of, write_reports
from exporter.judge import combine, exit_code
from exporter.source.sidecar import copy_sidecar
from exporter.steps.execution import Built
from exporter.steps.job import JobMaterial, write_job
from exporter.steps.source import Graph
from exporter.steps.texts import Texts
from exporter.steps.workspace import Workspace, tool_versions
from exporter.values import (
    EncoderSpec,
    ExportRecord,
    Provenance,
    ShippedFile,
    TargetResult,
)
from targets.contract import Check, Target, Verdict
from targets.errors import ExitCode, worst
from targets.hashing import sha256_file

_TOOLS = (
    "embedding-exporter",
    "torch",
    "transformers",
    "sentence-transformers",
    "onnx",
    "onnxruntime",
    "numpy",
    "faiss-cpu",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """One target's result and, unless it failed, the artifact that goes into the bundle.

    `job` is what its device needs to finish a prepared artifact; None: it is finished.
    """

    target: Target
    result: TargetResult
    built: Built | None
    job: JobMaterial | None = None


def make_record(
    work: Workspace,
    spec: EncoderSpec,
    graph: Graph,
    texts: Texts,
    results: Sequence[TargetResult],
    command: str,
) -> ExportRecord:
    """Put everything that was found into the record that reports are written from."""
    verdict, code = overall(results)
    return ExportRecord(
        verdict=verdict,
        exit_code=int(code),
        encoder=spec,
        graph=graph.artifact,
        parity=graph.parity,
        calibration=texts.calibration_summary,
        evaluation_dev=texts.dev.summary if texts.dev else None,
        evaluation_test=texts.test.summary,
        workload=texts.workload_summary,
        targets=tuple(results),
        provenance=_provenance(work, command),
    )


def overall(results: Sequence[TargetResult]) -> tuple[Verdict, ExitCode]:
    """Return the worst verdict and the worst exit code of all targets."""
    checks = [
        Check(
            name=result.target,
            verdict=_verdict_of(result),
            value=None,
            threshold=None,
            reason=result.reason or "see the target's checks",
        )
        for result in results
    ]
    codes = [
        ExitCode.STEP_FAILED if result.status == "failed" else exit_code(check.verdict)
        for result, check in zip(results, checks, strict=True)
    ]
    return combine(checks), worst(*codes)


def _verdict_of(result: TargetResult) -> Verdict:
    """Combine a target's checks; what was only prepared is no pass."""
    if result.status == "failed":
        return "fail"
    if result.status == "not_run":
        return "not_run"
    verdict = combine(result.checks)
    return "not_run" if verdict == "pass" and result.status == "prepared" else verdict


def _provenance(work: Workspace, command: str) -> Provenance:
    settings = work.settings.model_dump(mode="json")
    return Provenance(
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        settings={name: str(value) for name, value in settings.items()},
        tool_versions=tool_versions(_TOOLS),
        stage_s={stage: round(took_s, 3) for stage, took_s in work.stage_s.items()},
        stages_from_cache=tuple(work.made_utc),
        made_utc=dict(work.made_utc),
    )


def write_bundle(
    work: Workspace, record: ExportRecord, shipments: Sequence[Shipment]
) -> ExportRecord:
    """Write the bundle and its reports; an earlier one is replaced whole or not at all.

    Returns:
        The record, completed with the shipped files.

    Raises:
        StorageError: the bundle cannot be written.
    """
    with (
        work.step("bundle", f"write the bundle {work.settings.output}"),
        BundleWriter(work.settings.output, note=work.reporter.note) as bundle,
    ):
        copy_sidecar(record.encoder, bundle.directory)
        _add_graph(bundle, record.graph.path)
        shipped = add_artifacts(bundle, [one for one in shipments if one.built])
        for one in shipments:
            if one.job is not None:
                name, device = one.result.target, one.result.device
                write_job(bundle, name, device, record.graph.sha256, one.job, work.settings)
        results = [replace(r, artifact=shipped.get((r.target, r.device))) for r in record.targets]
        complete = replace(record, targets=tuple(results))
        write_reports(complete, bundle.directory / "reports")
        bundle.add_bytes(bill_of_materials(document_of(complete)), BILL_OF_MATERIALS)
        bundle.commit(facts_of(complete))
    return complete


def _add_graph(bundle: BundleWriter, graph: Path) -> None:
    bundle.add_file(graph, f"onnx/{graph.name}")
    external = graph.with_name(f"{graph.name}_data")
    if external.is_file():
        bundle.add_file(external, f"onnx/{external.name}")


def add_artifacts(
    bundle: BundleWriter, shipments: Sequence[Shipment], already: Sequence[ShippedFile] = ()
) -> dict[tuple[str, str], ShippedFile]:
    """Add every artifact: the first of a target where loaders look, others by their device.

    Two devices that got the same artifact share its files.

    Args:
        bundle: what is being written.
        shipments: with artifacts.
        already: files that lie in it.

    Returns:
        (target, device) → the entry file, the first that the target ships.
    """
    placed = {one.path: one.sha256 for one in already}
    entries = {}
    for shipment in shipments:
        files = _files_of(shipment)
        differs = any(placed.get(path, sha) != sha for path, _, sha in files)
        folder = f"devices/{_slug(shipment.result.device)}/" if differs else ""
        for path, source, sha256 in files:
            if folder + path not in placed:
                bundle.add_file(source, folder + path)
                placed[folder + path] = sha256
        path, source, sha256 = files[0]
        entries[shipment.result.target, shipment.result.device] = ShippedFile(
            path=folder + path, sha256=sha256, size_bytes=source.stat().st_size
        )
    return entries


def _files_of(shipment: Shipment) -> list[tuple[str, Path, str]]:
    """Return the path in the bundle, the file and its hash for everything that is shipped."""
    built = shipment.built
    if built is None:
        raise ValueError(f"{shipment.result.target} has nothing to ship")
    directory = built.artifact.directory
    return [
        (path, directory / name, sha256_file(directory / name))
        for name, path in shipment.target.ship(built.artifact)
    ]


def _slug(device: str) -> str:
    """Return a device's name as a folder's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", device).strip("-.") or "device"
