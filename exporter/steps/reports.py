"""Reports of several bundles read, merged and written anew."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from exporter.deliver.report import Report, read_report, write_report
from exporter.deliver.report.merge import Expected, merge_reports
from targets.errors import UsageError

_REPORTS = "reports"


def merge_bundles(bundles: Sequence[Path], expected: Sequence[str], output: Path) -> Report:
    """Merge what bundles say of themselves and write all forms of it.

    Args:
        bundles: bundle folders, folders of reports, or `report.json` files.
        expected: "TARGET=DEVICE" that must be there.
        output: folder; what lies there under the same names is replaced.

    Raises:
        StorageError: a report cannot be read, or the new one not written.
        UsageError: they do not belong together, or an expectation is no pair.
    """
    merged = merged_report(bundles, expected)
    write_report(merged, output)
    return merged


def merged_report(bundles: Sequence[Path], expected: Sequence[str]) -> Report:
    """Merge what bundles say of themselves; see `merge_bundles`."""
    named = [(str(path), read_report(_place(path))) for path in bundles]
    return merge_reports(named, [_pair(one) for one in expected])


def _place(path: Path) -> Path:
    inner = path / _REPORTS
    return inner if inner.is_dir() else path


def _pair(text: str) -> Expected:
    target, equals, device = text.partition("=")
    if not (target and equals and device):
        raise UsageError(
            f"--expect {text!r} is no pair",
            why="it must be TARGET=DEVICE",
            hint="for example --expect openvino=local",
        )
    return target, device
