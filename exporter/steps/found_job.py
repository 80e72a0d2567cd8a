"""The build job of a prepared artifact, read again on its device."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from exporter.config import Settings
from exporter.deliver.codec import load_json
from exporter.deliver.folders import is_safe_relative
from exporter.steps.job import (
    JOB_FILE,
    JOB_FOLDER,
    REFERENCE,
    SETTINGS,
    TEST,
    TEXTS,
    WORKLOAD,
    WORKLOAD_SUMMARY,
)
from exporter.steps.texts import Texts, TokenizedEvaluation, load_tokenized
from exporter.values import (
    BuildJob,
    EvaluationEmbeddings,
    JobArtifact,
    ShippedFile,
    TextsSummary,
)
from exporter.values.job import JOB_VERSION
from targets.contract import ArtifactFile, CompiledArtifact, TokenSequences
from targets.errors import StorageError
from targets.hashing import sha256_file

_EXPORT_AGAIN = "prepare the bundle again with `exporter export`"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundJob:
    """A job with the place of its document in the bundle."""

    path: str
    job: BuildJob


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
        if PurePosixPath(file.path).parts[1:] == (JOB_FOLDER, JOB_FILE):
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
    folder = (bundle / found.path).parent / TEXTS
    try:
        test = load_tokenized(folder / TEST)
        reference = EvaluationEmbeddings(
            queries=np.load(folder / REFERENCE / "queries.npy", allow_pickle=False),
            documents=np.load(folder / REFERENCE / "documents.npy", allow_pickle=False),
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
    if not (folder / WORKLOAD).is_file():
        return None, None
    summary = load_json(TextsSummary, (folder / WORKLOAD_SUMMARY).read_bytes())
    return TokenSequences.load(folder / WORKLOAD), summary


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
    known = {name: job.settings[name] for name in SETTINGS if name in job.settings}
    asked = {**settings.model_dump(), **known, "policy": dict(job.policy)}
    try:
        return Settings.model_validate(asked)
    except ValueError as error:
        raise StorageError(
            f"the build job of {job.target} holds settings that this version does not know",
            why=str(error),
            hint="finish it with the version of embedding-exporter that prepared it",
        ) from error
