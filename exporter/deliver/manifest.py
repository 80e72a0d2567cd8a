"""`manifest.json`: what a bundle holds, what it was made from, with what, where and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from exporter.deliver.codec import load_json
from exporter.deliver.folders import is_safe_relative
from exporter.deliver.report.document import Report
from exporter.deliver.spaces import space_of
from exporter.values import EncoderSpec, ExportRecord, ShippedFile, TargetResult
from targets.contract import Verdict
from targets.errors import StorageError
from targets.hashing import sha256_file

MANIFEST = "manifest.json"
SIGNATURE = "model.sig"
"""Where OpenSSF's model-signing looks for one; made after the manifest, so not listed in it."""
TOOL = "embedding-exporter"
SCHEMA_VERSION = 1

_DROPPINGS = frozenset((".DS_Store", "Thumbs.db", "desktop.ini"))

ProblemKind = Literal["missing", "changed", "extra", "unsafe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """Which model a bundle holds; hashes cover the source's weight and tokenizer files."""

    id: str
    revision: str | None
    weights_sha256: str
    tokenizer_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStamp:
    """A target and the device that its figures were taken on.

    `space_id` is the identity of the embedding space: equal ids may be mixed in one index; ""
    where nothing was verified.
    """

    target: str
    device: str
    fingerprint: str | None
    model_name: str | None
    space_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFacts:
    """Everything a manifest says beside the list of files. Times are UTC, ISO 8601."""

    schema_version: int = SCHEMA_VERSION
    tool: str = TOOL
    created_utc: str
    tool_version: str
    command: str
    verdict: Verdict
    exit_code: int
    model: ModelIdentity
    graph_sha256: str
    calibration_sha256: str
    development_sha256: str | None
    evaluation_sha256: str
    devices: tuple[DeviceStamp, ...]
    settings: Mapping[str, str]
    tool_versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(BundleFacts):
    """The whole manifest; `files` names every file of the bundle but the manifest itself."""

    files: tuple[ShippedFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleProblem:
    """Something about a bundle that is not as its manifest says."""

    path: str
    kind: ProblemKind

    def __str__(self) -> str:
        return f"{self.path}: {_MEANINGS[self.kind]}"


_MEANINGS: dict[ProblemKind, str] = {
    "missing": "listed in the manifest, but not there",
    "changed": "not the bytes that the manifest lists",
    "extra": "there, but not listed in the manifest",
    "unsafe": "a link, a special file, or a path that leaves the bundle",
}


def facts_of(record: ExportRecord) -> BundleFacts:
    """Gather from a run's record what its bundle's manifest says."""
    dev = record.evaluation_dev
    return BundleFacts(
        created_utc=record.provenance.created_utc,
        tool_version=tool_version(),
        command=record.provenance.command,
        verdict=record.verdict,
        exit_code=int(record.exit_code),
        model=ModelIdentity(
            id=record.encoder.model_id,
            revision=record.encoder.revision,
            weights_sha256=record.encoder.weights_sha256,
            tokenizer_sha256=record.encoder.tokenizer_sha256,
        ),
        graph_sha256=record.graph.sha256,
        calibration_sha256=record.calibration.sha256,
        development_sha256=dev.sha256 if dev else None,
        evaluation_sha256=record.evaluation_test.sha256,
        devices=tuple(_stamp(record.encoder, result) for result in record.targets),
        settings=record.provenance.settings,
        tool_versions=record.provenance.tool_versions,
    )


def facts_again(earlier: Manifest, report: Report) -> BundleFacts:
    """Return what the manifest of a bundle says whose report was written anew.

    Args:
        earlier: the bundle's manifest so far.
        report: of the same model on the same texts.
    """
    stamps = {(one.target, one.device): one for one in earlier.devices}
    for section in report.targets:
        hardware = section.hardware
        stamps[section.target, section.device] = DeviceStamp(
            target=section.target,
            device=section.device,
            fingerprint=hardware.fingerprint if hardware else None,
            model_name=hardware.model_name if hardware else None,
            space_id=space_of(report.model, section),
        )
    about = {field.name: getattr(earlier, field.name) for field in fields(BundleFacts)}
    about |= {
        "created_utc": report.provenance.created_utc,
        "tool_version": tool_version(),
        "command": report.provenance.command,
        "verdict": report.verdict,
        "exit_code": report.exit_code,
        "devices": tuple(stamps.values()),
    }
    return BundleFacts(**about)


def with_files(facts: BundleFacts, files: Sequence[ShippedFile]) -> Manifest:
    """Complete the facts with the list of files."""
    about = {field.name: getattr(facts, field.name) for field in fields(BundleFacts)}
    return Manifest(**about, files=tuple(files))


def _stamp(encoder: EncoderSpec, result: TargetResult) -> DeviceStamp:
    hardware = result.hardware
    return DeviceStamp(
        target=result.target,
        device=result.device,
        fingerprint=hardware.fingerprint if hardware else None,
        model_name=hardware.model_name if hardware else None,
        space_id=space_of(encoder, result),
    )


def tool_version() -> str:
    """Return this distribution's version; "unknown" where it runs without being installed."""
    try:
        return version(TOOL)
    except PackageNotFoundError:
        return "unknown"


def read_manifest(bundle: Path) -> Manifest:
    """Read a bundle's manifest.

    Raises:
        StorageError: there is none, it is damaged, or a newer version wrote it.
    """
    path = bundle / MANIFEST
    manifest = _parse(path)
    if manifest.tool != TOOL or manifest.schema_version != SCHEMA_VERSION:
        raise StorageError(
            f"{path} is not a manifest that this version reads",
            why=f"it says {manifest.tool!r}, schema version {manifest.schema_version}",
            hint="use the version that wrote it, or export again into another folder",
        )
    return manifest


def _parse(path: Path) -> Manifest:
    try:
        return load_json(Manifest, path.read_bytes())
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read",
            why=error.strerror or str(error),
            hint="name a folder that `export -o` wrote",
        ) from error
    except StorageError as error:
        hint = "the bundle is damaged, or the file is not ours: export again"
        raise StorageError(f"{path} is not a manifest", why=error.why, hint=hint) from error


def verify_bundle(bundle: Path) -> tuple[BundleProblem, ...]:
    """Hash every file of a bundle again and compare with its manifest.

    Returns:
        Every file that is missing, changed, extra or unsafe, by path; empty when all is well.

    Raises:
        StorageError: the manifest cannot be read.
    """
    listed = {file.path: file for file in read_manifest(bundle).files}
    found = {path.relative_to(bundle).as_posix(): path for path in bundle.rglob("*")}
    for name in (MANIFEST, SIGNATURE):
        if name in found and _is_plain(found[name]):
            del found[name]
    wrong = [_problem(bundle, file) for file in listed.values()]
    strangers = [
        BundleProblem(path=name, kind="extra" if _is_plain(path) else "unsafe")
        for name, path in found.items()
        if name not in listed and (path.is_symlink() or not path.is_dir())
    ]
    problems = [problem for problem in wrong if problem] + strangers
    return tuple(sorted(problems, key=lambda problem: (problem.path, problem.kind)))


def require_intact(bundle: Path, *, name: Path | None = None) -> None:
    """Refuse a bundle that is not, file by file, what its manifest says.

    Args:
        bundle: its folder.
        name: what the user called it; None: the folder.

    Raises:
        StorageError: it is not, or the manifest cannot be read.
    """
    problems = verify_bundle(bundle)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise StorageError(
            f"{name or bundle} is not what its manifest says",
            why=f"{problems[0]}{more}",
            hint="fetch the bundle again, or export it again",
        )


def _problem(bundle: Path, file: ShippedFile) -> BundleProblem | None:
    kind = _kind_of_problem(bundle, file)
    return BundleProblem(path=file.path, kind=kind) if kind else None


def _kind_of_problem(bundle: Path, file: ShippedFile) -> ProblemKind | None:
    path = bundle / file.path
    if not is_safe_relative(file.path) or _is_behind_a_link(bundle, path):
        return "unsafe"
    if not path.exists():
        return "missing"
    if not _is_plain(path):
        return "unsafe"
    same = path.stat().st_size == file.size_bytes and sha256_file(path) == file.sha256
    return None if same else "changed"


def _is_behind_a_link(bundle: Path, path: Path) -> bool:
    inside = path.relative_to(bundle).parts
    return any(bundle.joinpath(*inside[: i + 1]).is_symlink() for i in range(len(inside)))


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def foreign_files(bundle: Path) -> tuple[str, ...]:
    """Name the files of a bundle that its manifest does not list, by path.

    What file managers leave in every folder that they show is not counted.

    Raises:
        StorageError: the manifest cannot be read.
    """
    ours = {file.path for file in read_manifest(bundle).files} | {MANIFEST, SIGNATURE}
    paths = (path for path in bundle.rglob("*") if path.is_symlink() or not path.is_dir())
    names = {p.relative_to(bundle).as_posix() for p in paths if p.name not in _DROPPINGS}
    return tuple(sorted(names - ours))
