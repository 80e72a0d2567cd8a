"""Reports of several bundles read, merged and written anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from exporter.deliver.codec import load_json
from exporter.deliver.report import Report
from exporter.deliver.report.document import MISSING
from exporter.deliver.report.merge import Expected, merge_reports, source_of
from exporter.steps.compatibility import CompatibilityAnswer
from exporter.steps.members import member_name
from exporter.steps.recorded import read_recorded
from exporter.values import Compatibility, MissingMember
from targets.errors import StorageError, UsageError

_MAKE_ONE = "make one with `exporter compatibility BUNDLE… -o FILE`"


def merged_report(
    bundles: Sequence[Path], expected: Sequence[str], compatibility: Path | None = None
) -> Report:
    """Merge what bundles say of themselves.

    Args:
        bundles: bundle folders or archives, folders of reports, or `report.json` files.
        expected: "TARGET=DEVICE" that must be there.
        compatibility: JSON file of `exporter compatibility` about the same bundles; its matrix
            takes the place of that of a bundle.

    Raises:
        StorageError: a bundle is damaged or changed, or a file cannot be read.
        UsageError: they do not belong together, or an expectation is no pair.
    """
    pairs = [_pair(one) for one in expected]
    matrix = None if compatibility is None else _read_matrix(compatibility)
    found = [read_recorded(path) for path in bundles]
    merged = merge_reports([(one.name, one.report) for one in found], pairs)
    if len(found) > 1:
        sources = (source_of(one.name, one.report, one.sha256) for one in found)
        merged = replace(merged, sources=tuple(part for source in sources for part in source))
    if matrix is None or compatibility is None:
        return merged
    return replace(merged, compatibility=_of_these(matrix, merged, compatibility))


def _pair(text: str) -> Expected:
    target, equals, device = text.partition("=")
    if not (target and equals and device):
        raise UsageError(
            f"--expect {text!r} is no pair",
            why="it must be TARGET=DEVICE",
            hint="for example --expect openvino=local",
        )
    return target, device


# ----------------------------------------------------------------------------- the matrix


def _read_matrix(path: Path) -> Compatibility:
    try:
        matrix = load_json(CompatibilityAnswer, path.read_bytes()).compatibility
    except OSError as error:
        why = error.strerror or str(error)
        raise StorageError(f"the matrix {path} cannot be read", why=why, hint=_MAKE_ONE) from error
    except StorageError as error:
        raise StorageError(f"{path} is no matrix", why=error.why, hint=_MAKE_ONE) from error
    names = [one.name for one in matrix.members]
    pairs = {(cell.queries_by, cell.documents_by) for cell in matrix.cells}
    if pairs != {(one, other) for one in names for other in names}:
        raise StorageError(
            f"{path} is no matrix", why="it has not one cell for each pair", hint=_MAKE_ONE
        )
    return matrix


def _of_these(matrix: Compatibility, report: Report, path: Path) -> Compatibility:
    """Refuse a matrix of other artifacts, and say of those that it does not know that it does not.

    Raises:
        UsageError: one of its members is no artifact of the report.
    """
    ours = {one.artifact.sha256 for one in report.targets if one.artifact}
    ours.add(report.model.weights_sha256)
    for member in matrix.members:
        if member.artifact_sha256 not in ours:
            raise UsageError(
                f"{path} is about other artifacts than the report",
                why=f"no bundle has {member.name}, sha256 {member.artifact_sha256[:16]}…",
                hint="make it anew from the bundles that are merged",
            )
    return replace(matrix, missing=(*matrix.missing, *_unknown(matrix, report, path)))


def _unknown(matrix: Compatibility, report: Report, path: Path) -> list[MissingMember]:
    compared = {member.artifact_sha256 for member in matrix.members}
    named = [one.name for one in matrix.missing]
    unknown = []
    for one in report.targets:
        name = member_name(one.target, one.recipe.name if one.recipe else "", one.device)
        is_known = one.artifact is not None and one.artifact.sha256 in compared
        # Where two have one name, the matrix adds in brackets where each comes from.
        is_said = any(other == name or other.startswith(f"{name} (") for other in named)
        if not (is_known or is_said):
            reason = one.reason if one.status == MISSING else f"{path.name} says nothing of it"
            unknown.append(MissingMember(name=name, bundle="", reason=reason))
    return unknown
