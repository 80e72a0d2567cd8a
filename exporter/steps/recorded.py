"""The report of an earlier run, read from wherever it lies, if nobody changed it since."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exporter.deliver.archive import opened_bundle
from exporter.deliver.manifest import MANIFEST, read_manifest
from exporter.deliver.report import Report, read_report
from exporter.deliver.report.document import REPORT_JSON
from targets.errors import StorageError
from targets.hashing import sha256_file

_REPORTS = "reports"
_DAMAGED = "fetch the bundle again, or export it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A report with where it came from.

    Args:
        name: bundle, folder or file, as the user named it.
        report: what it says.
        sha256: of the bytes of its `report.json`.
    """

    name: str
    report: Report
    sha256: str


def read_recorded(path: Path) -> Recorded:
    """Read the report of a bundle whose files are all those of its manifest.

    A report that lies alone (merged, or kept as a baseline) has no manifest to be checked
    against; one that lies in a bundle is checked however it is named.

    Args:
        path: folder of a bundle, archive of one, folder of reports, or a `report.json`.

    Raises:
        StorageError: it is damaged, truncated or changed, or cannot be read; names the file.
    """
    if path.suffix == ".json" and not path.is_dir():
        return _alone(path, path)
    if (path / REPORT_JSON).is_file() and not (path / MANIFEST).exists():
        return _alone(path, path / REPORT_JSON)
    with opened_bundle(path) as folder:
        file = folder / _REPORTS / REPORT_JSON
        if not file.is_file():
            raise StorageError(
                f"{path} holds no {_REPORTS}/{REPORT_JSON}",
                why="its manifest does not list one either",
                hint="export it again",
            )
        return _recorded(path, file)


def _alone(path: Path, file: Path) -> Recorded:
    """Read a report file, and where it is part of a bundle, compare it with the manifest."""
    bundle = file.resolve().parent.parent
    inside = f"{_REPORTS}/{REPORT_JSON}"
    is_of_a_bundle = file.resolve() == bundle / inside and (bundle / MANIFEST).is_file()
    found = _recorded(path, file)
    if is_of_a_bundle:
        listed = {one.path: one.sha256 for one in read_manifest(bundle).files}
        if listed.get(inside) != found.sha256:
            raise StorageError(
                f"{file} is not what the manifest of its bundle says",
                why="not the bytes that the manifest lists",
                hint=_DAMAGED,
            )
    return found


def _recorded(path: Path, file: Path) -> Recorded:
    report = read_report(file, name=path if path.suffix == ".json" else path / REPORT_JSON)
    return Recorded(name=str(path), report=report, sha256=sha256_file(file))
