"""Two reports of one model compared, target by target and device by device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exporter.deliver.report import Report
from exporter.deliver.report.document import TargetSection
from exporter.deliver.report.merge import require_same
from exporter.judge import combine, exit_code
from exporter.judge.compare import Measured, compare
from exporter.steps.reports import merged_report
from targets.contract import Check, Verdict

_ALWAYS_FINE = ("speedup",)
"""Latency that cannot be compared takes no pass away: it is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One artifact's comparison; `missing` says where it is not."""

    target: str
    device: str
    checks: tuple[Check, ...] = ()
    missing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All artifacts of two reports."""

    base: str
    new: str
    verdict: Verdict
    exit_code: int
    rows: tuple[Row, ...]


def compare_bundles(base: Path, new: Path) -> Comparison:
    """Compare a new bundle with an earlier one of the same model and evaluation texts.

    Raises:
        StorageError: a report cannot be read.
        UsageError: they are of different models, graphs or evaluation texts.
    """
    before, after = merged_report([base], []), merged_report([new], [])
    require_same((str(base), before), (str(new), after))
    rows = tuple(_rows(before, after))
    checks = [check for row in rows for check in row.checks]
    verdict = combine(checks, _ALWAYS_FINE)
    if verdict == "pass" and any(row.missing == "the new report" for row in rows):
        verdict = "not_run"
    return Comparison(
        base=str(base), new=str(new), verdict=verdict, exit_code=int(exit_code(verdict)), rows=rows
    )


def _rows(before: Report, after: Report) -> list[Row]:
    earlier = {(one.target, one.device): one for one in before.targets}
    later = {(one.target, one.device): one for one in after.targets}
    rows = []
    for target, device in dict.fromkeys((*earlier, *later)):
        pair = (target, device)
        if pair in earlier and pair in later:
            checks = compare(_measured(earlier[pair]), _measured(later[pair]))
            rows.append(Row(target=target, device=device, checks=checks))
        else:
            missing = "the new report" if pair in earlier else "the earlier report"
            rows.append(Row(target=target, device=device, missing=missing))
    return rows


def _measured(target: TargetSection) -> Measured:
    return Measured(
        fidelity=target.fidelity,
        latency=target.latency or (),
        size_bytes=target.artifact_size_bytes,
        fingerprint=target.hardware.fingerprint if target.hardware else "",
    )
