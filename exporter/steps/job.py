"""The build job of a prepared artifact: written into the bundle, read again on the device."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from exporter.config import Settings
from exporter.deliver.bundle import BundleWriter
from exporter.deliver.codec import dump_json, load_json
from exporter.deliver.folders import describe_files, is_safe_relative
from exporter.deliver.manifest import tool_version
from exporter.steps.contest import Outcome
from exporter.steps.execution import Built
from exporter.steps.texts import Texts, TokenizedEvaluation, load_tokenized, save_tokenized
from exporter.steps.workspace import Workspace
from exporter.values import (
    BuildJob,
    EvaluationEmbeddings,
    JobArtifact,
    JobFile,
    ShippedFile,
    TextsSummary,
)
from exporter.values.job import JOB_VERSION
from targets.contract import ArtifactFile, CompiledArtifact, TokenSequences
from targets.errors import StorageError
from targets.hashing import sha256_file

JOB_FILE = "build_job.json"
_FOLDER, _TEXTS, _TEST, _REFERENCE = "job", "texts", "test", "reference"
_WORKLOAD, _WORKLOAD_SUMMARY = "workload.npz", "workload.json"
_SETTINGS = ("precision", "objective", "workload", "seed")
_EXPORT_AGAIN = "prepare the bundle again with `exporter export`"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMaterial:
    """What of a run goes into a job: artifacts, texts that certify, FP32's embeddings of them."""

    outcome: Outcome
    texts: Texts
    reference: EvaluationEmbeddings


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundJob:
    """A job with the place of its document in the bundle."""

    path: str
    job: BuildJob


# ------------------------------------------------------------------------------- written


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
            settings={name: getattr(settings, name) for name in _SETTINGS},
            policy=settings.policy.model_dump(),
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
    root = f"{job.target}/{_FOLDER}"

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
        bundle.add_file(sources[file.sha256], f"{root}/{_TEXTS}/{_text_name(file)}")
    texts = tuple(replace(one, path=f"{root}/{_TEXTS}/{_text_name(one)}") for one in job.texts)
    complete = replace(job, artifacts=artifacts, texts=texts)
    bundle.add_bytes(dump_json(complete, indent=1) + b"\n", f"{root}/{JOB_FILE}")


def _text_name(file: ShippedFile) -> str:
    """Return a text file's name within the folder of texts, wherever that lies."""
    _, inside, name = f"/{file.path}".partition(f"/{_FOLDER}/{_TEXTS}/")
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
    for name in (_TEST, _REFERENCE):
        (folder / name).mkdir()
    save_tokenized(texts.test, folder / _TEST)
    for name in ("queries", "documents"):
        rows = getattr(material.reference, name)
        np.save(folder / _REFERENCE / f"{name}.npy", rows, allow_pickle=False)
    if texts.workload is not None and texts.workload_summary is not None:
        texts.workload.save(folder / _WORKLOAD)
        (folder / _WORKLOAD_SUMMARY).write_bytes(dump_json(texts.workload_summary))


# ---------------------------------------------------------------------------------- read


def find_jobs(bundle: Path, files: Sequence[ShippedFile], graph_sha256: str) -> list[FoundJob]:
    """Read every job of a bundle whose files are those of its manifest.

    Args:
        bundle: its folder.
        files: as its manifest lists them.
        graph_sha256: of the FP32 graph that its report is about.

    Raises:
        StorageError: a job is of another version or another bundle, or cannot be read.
    """
    found = []
    for file in files:
        if PurePosixPath(file.path).parts[1:] == (_FOLDER, JOB_FILE):
            job = _read(bundle / file.path)
            _require_ours(bundle / file.path, job, files, graph_sha256)
            found.append(FoundJob(path=file.path, job=job))
    return found


def _read(path: Path) -> BuildJob:
    try:
        data = path.read_bytes()
    except OSError as error:
        why = error.strerror or str(error)
        raise StorageError(f"{path} cannot be read", why=why, hint=_EXPORT_AGAIN) from error
    try:
        version = load_json(dict[str, object], data).get("schema_version")
        if version == JOB_VERSION:
            return load_json(BuildJob, data)
    except StorageError as error:
        raise StorageError(
            f"{path} is not a build job", why=error.why, hint=_EXPORT_AGAIN
        ) from error
    raise StorageError(
        f"{path} is a build job of version {version}",
        why=f"this program reads version {JOB_VERSION}",
        hint="finish it with the version of embedding-exporter that prepared it",
    )


def _require_ours(
    path: Path, job: BuildJob, files: Sequence[ShippedFile], graph_sha256: str
) -> None:
    """Refuse a job that another bundle brought, whatever its manifest says by now."""
    listed = {file.path: file.sha256 for file in files}
    strange = [file.path for file in job.files if listed.get(file.path) != file.sha256]
    if job.graph_sha256 != graph_sha256:
        strange.insert(0, "the FP32 graph")
    names = [file.name for artifact in job.artifacts for file in artifact.files]
    if unsafe := [name for name in names if not is_safe_relative(name)]:
        raise StorageError(
            f"{path} names files outside of their folder",
            why=repr(unsafe[0]),
            hint="do not trust where the bundle came from",
        )
    if strange:
        raise StorageError(
            f"{path} is not the job of this bundle",
            why=f"{strange[0]} is another file than the job names",
            hint=_EXPORT_AGAIN,
        )


@contextmanager
def artifact_of_job(bundle: Path, job: BuildJob, recipe: str) -> Iterator[CompiledArtifact]:
    """Yield an artifact of a job in a folder of its own, under the names that it was made with."""
    made = job.artifact(recipe)
    with tempfile.TemporaryDirectory(prefix="exporter-build-") as scratch:
        folder = Path(scratch)
        for file in made.files:
            place = folder / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle / file.shipped.path, place)
            if sha256_file(place) != file.shipped.sha256:
                raise StorageError(f"{bundle / file.shipped.path} changed while it was read")
        yield compiled_of(made, job, folder)


def compiled_of(made: JobArtifact, job: BuildJob, directory: Path) -> CompiledArtifact:
    """Return an artifact of a job whose files lie in `directory`."""
    return CompiledArtifact(
        directory=directory,
        files=tuple(
            ArtifactFile(
                path=file.name,
                sha256=file.shipped.sha256,
                size_bytes=file.shipped.size_bytes,
                on_device=file.on_device,
            )
            for file in made.files
        ),
        target=job.target,
        recipe=made.recipe,
        built_from=job.graph_sha256,
        device_requirement=made.recipe.requires,
        tool_versions=made.tool_versions,
        compile_s=made.compile_s,
    )


def texts_of_job(
    bundle: Path, found: FoundJob, calibration: TextsSummary
) -> tuple[Texts, EvaluationEmbeddings]:
    """Return the texts that certify, with FP32's embeddings of them; no calibration texts."""
    folder = (bundle / found.path).parent / _TEXTS
    try:
        test = load_tokenized(folder / _TEST)
        reference = EvaluationEmbeddings(
            queries=np.load(folder / _REFERENCE / "queries.npy", allow_pickle=False),
            documents=np.load(folder / _REFERENCE / "documents.npy", allow_pickle=False),
        )
        workload, summary = _workload(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"the texts of {bundle / found.path} cannot be read",
            why=str(error),
            hint=_EXPORT_AGAIN,
        ) from error
    _require_rows(found, test, reference)
    texts = Texts(
        calibration=TokenSequences.from_lists([], found.job.pad_token_id),
        calibration_summary=calibration,
        dev=None,
        test=test,
        workload=workload,
        workload_summary=summary,
    )
    return texts, reference


def _workload(folder: Path) -> tuple[TokenSequences | None, TextsSummary | None]:
    if not (folder / _WORKLOAD).is_file():
        return None, None
    summary = load_json(TextsSummary, (folder / _WORKLOAD_SUMMARY).read_bytes())
    return TokenSequences.load(folder / _WORKLOAD), summary


def _require_rows(
    found: FoundJob, test: TokenizedEvaluation, reference: EvaluationEmbeddings
) -> None:
    wanted = (len(test.queries), len(test.documents))
    rows = (len(reference.queries), len(reference.documents))
    if test.texts.sha256 != found.job.evaluation_sha256 or rows != wanted:
        raise StorageError(
            f"{found.path}: its texts and its reference embeddings do not belong together",
            why=f"{wanted} queries and documents, {rows} rows",
            hint=_EXPORT_AGAIN,
        )


def settings_of_job(job: BuildJob, settings: Settings) -> Settings:
    """Return settings with what the export was asked for wherever it decides checks or timing.

    Raises:
        StorageError: the job holds a value that is none of the settings'.
    """
    known = {name: job.settings[name] for name in _SETTINGS if name in job.settings}
    asked = {**settings.model_dump(), **known, "policy": dict(job.policy)}
    try:
        return Settings.model_validate(asked)
    except ValueError as error:
        raise StorageError(
            f"the build job of {job.target} holds settings that this version does not know",
            why=str(error),
            hint="finish it with the version of embedding-exporter that prepared it",
        ) from error
