"""The build job of a prepared artifact, as it is written into the bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from exporter.config import Settings
from exporter.deliver.bundle import BundleWriter
from exporter.deliver.codec import dump_json
from exporter.deliver.folders import describe_files
from exporter.deliver.manifest import tool_version
from exporter.steps.contest import Outcome
from exporter.steps.execution import Built
from exporter.steps.texts import Texts, save_tokenized
from exporter.steps.workspace import Workspace
from exporter.values import (
    BuildJob,
    EvaluationEmbeddings,
    JobArtifact,
    JobFile,
    ShippedFile,
)
from targets.contract import CompiledArtifact

JOB_FILE = "build_job.json"
JOB_FOLDER, TEXTS, TEST, REFERENCE = "job", "texts", "test", "reference"
WORKLOAD, WORKLOAD_SUMMARY = "workload.npz", "workload.json"
SETTINGS = ("precision", "objective", "workload", "seed")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMaterial:
    """What of a run goes into a job: artifacts, texts that certify, FP32's embeddings of them."""

    outcome: Outcome
    texts: Texts
    reference: EvaluationEmbeddings


def job_material(
    work: Workspace, outcome: Outcome, texts: Texts, reference: EvaluationEmbeddings
) -> JobMaterial | None:
    """Return what a job is made of; None where there is no FP32 that speed-ups could be over."""
    if outcome.baseline.recipe == outcome.candidates[0].recipe:
        return JobMaterial(outcome=outcome, texts=texts, reference=reference)
    work.reporter.note(
        "no build job for `exporter build`: FP32 cannot be built for this device, and speed-ups "
        "are over FP32"
    )
    return None


def write_job(
    bundle: BundleWriter,
    target: str,
    device: str,
    graph_sha256: str,
    material: JobMaterial,
    settings: Settings,
) -> None:
    """Put a job, with every file that it needs, into a bundle that is being written.

    Args:
        bundle: everything else that is shipped lies in it already; what it has is not copied.
        target: name of the target that finishes.
        device: its device's name in the report.
        graph_sha256: of the FP32 graph.
        material: what the run made.
        settings: of the run.

    Raises:
        StorageError: a file cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="exporter-job-") as scratch:
        folder = Path(scratch)
        _save_texts(material, folder)
        texts = tuple(describe_files(folder))
        sources = {one.sha256: folder / one.path for one in texts}
        made = _distinct(material.outcome)
        for built in made:
            files = built.artifact.files
            sources |= {file.sha256: built.artifact.directory / file.path for file in files}
        job = BuildJob(
            tool_version=tool_version(),
            target=target,
            device=device,
            graph_sha256=graph_sha256,
            artifacts=tuple(_job_artifact(built.artifact) for built in made),
            chosen=material.outcome.chosen.recipe.name,
            best_float=material.outcome.best_float.recipe.name,
            baseline=material.outcome.baseline.recipe.name,
            evaluation_sha256=material.texts.test.texts.sha256,
            pad_token_id=material.texts.test.documents.pad_token_id,
            texts=texts,
            settings={name: getattr(settings, name) for name in SETTINGS},
            policy=settings.policy.thresholds,
        )
        add_job(bundle, job, sources)


def add_job(bundle: BundleWriter, job: BuildJob, sources: Mapping[str, Path]) -> None:
    """Put a job's files where the bundle has none of the same content, and its document.

    Args:
        bundle: what is being written.
        job: paths of files in it are not looked at but for the names of `texts`.
        sources: SHA-256 → file with that content.
    """
    placed = {one.sha256: one.path for one in describe_files(bundle.directory)}
    root = f"{job.target}/{JOB_FOLDER}"

    def place(file: ShippedFile, wanted: str) -> ShippedFile:
        if file.sha256 not in placed:
            bundle.add_file(sources[file.sha256], wanted)
            placed[file.sha256] = wanted
        return replace(file, path=placed[file.sha256])

    artifacts = tuple(
        replace(
            artifact,
            files=tuple(
                replace(
                    file, shipped=place(file.shipped, f"{root}/{artifact.recipe.name}/{file.name}")
                )
                for file in artifact.files
            ),
        )
        for artifact in job.artifacts
    )
    for file in job.texts:  # read by their names: each has a file of its own
        bundle.add_file(sources[file.sha256], f"{root}/{TEXTS}/{_text_name(file)}")
    texts = tuple(replace(one, path=f"{root}/{TEXTS}/{_text_name(one)}") for one in job.texts)
    complete = replace(job, artifacts=artifacts, texts=texts)
    bundle.add_bytes(dump_json(complete, indent=1) + b"\n", f"{root}/{JOB_FILE}")


def _text_name(file: ShippedFile) -> str:
    """Return a text file's name within the folder of texts, wherever that lies."""
    _, inside, name = f"/{file.path}".partition(f"/{JOB_FOLDER}/{TEXTS}/")
    return name if inside else file.path


def _distinct(outcome: Outcome) -> tuple[Built, ...]:
    by_name = {
        one.recipe.name: one for one in (outcome.chosen, outcome.best_float, outcome.baseline)
    }
    return tuple(by_name.values())


def _job_artifact(artifact: CompiledArtifact) -> JobArtifact:
    files = tuple(
        JobFile(
            name=file.path,
            shipped=ShippedFile(path=file.path, sha256=file.sha256, size_bytes=file.size_bytes),
            on_device=file.on_device,
        )
        for file in artifact.files
    )
    return JobArtifact(
        recipe=artifact.recipe,
        files=files,
        tool_versions=artifact.tool_versions,
        compile_s=artifact.compile_s,
    )


def _save_texts(material: JobMaterial, folder: Path) -> None:
    texts = material.texts
    for name in (TEST, REFERENCE):
        (folder / name).mkdir()
    save_tokenized(texts.test, folder / TEST)
    for name in ("queries", "documents"):
        rows = getattr(material.reference, name)
        np.save(folder / REFERENCE / f"{name}.npy", rows, allow_pickle=False)
    if texts.workload is not None and texts.workload_summary is not None:
        texts.workload.save(folder / WORKLOAD)
        (folder / WORKLOAD_SUMMARY).write_bytes(dump_json(texts.workload_summary))
