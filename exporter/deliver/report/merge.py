"""Reports of several runs as one, if they speak of the same model and the same texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from exporter.deliver.report.document import Report, TargetSection
from exporter.deliver.report.headline import target_verdict, worst_of
from targets.contract import Verdict
from targets.errors import ExitCode, UsageError

Expected = tuple[str, str]
"""Target and device that a fleet must have."""
_CODES: dict[Verdict, ExitCode] = {
    "pass": ExitCode.PASS,
    "fail": ExitCode.GATE_FAILED,
    "inconclusive": ExitCode.INCONCLUSIVE,
    "not_run": ExitCode.INCONCLUSIVE,
}
_SAME: tuple[tuple[str, Callable[[Report], object]], ...] = (
    ("model weights", lambda report: report.model.weights_sha256),
    ("pooling", lambda report: (report.model.pooling, report.model.normalize)),
    ("graph", lambda report: report.model.graph.sha256),
    ("evaluation texts", lambda report: report.evaluation.test.sha256),
)


def merge_reports(
    reports: Sequence[tuple[str, Report]], expected: Sequence[Expected] = ()
) -> Report:
    """Put the targets of several reports into one.

    Args:
        reports: each with the name that the user gave it; at least one.
        expected: pairs that must be there; the missing ones are shown as not run.

    Raises:
        UsageError: they are of different models, graphs or evaluation texts, or two of them
            have the same target on the same device.
    """
    first = reports[0][1]
    for one in reports[1:]:
        require_same(reports[0], one)
    targets = [target for _, report in reports for target in report.targets]
    _require_distinct(reports)
    known = {(target.target, target.device) for target in targets}
    targets += [_missing(*pair) for pair in expected if pair not in known]
    verdicts = [target_verdict(target) for target in targets]
    if len(targets) == len(first.targets):
        return first
    codes = [report.exit_code for _, report in reports]
    code = max([*codes, int(_CODES[worst_of(verdicts)])])
    return replace(
        first,
        verdict=worst_of(verdicts),
        exit_code=code,
        targets=tuple(targets),
        compatibility=first.compatibility if len(reports) == 1 else None,
        provenance=replace(
            first.provenance,
            command="; ".join(report.provenance.command for _, report in reports),
            created_utc=max(report.provenance.created_utc for _, report in reports),
        ),
    )


def with_section(report: Report, section: TargetSection) -> Report:
    """Put a target's new section in the place of its old one; the verdict is made anew.

    The compatibility matrix speaks of the old artifact, and goes.

    Args:
        report: with a section of the same target on the same device.
        section: what is true of it now.
    """
    pair = (section.target, section.device)
    targets = [section if (t.target, t.device) == pair else t for t in report.targets]
    verdict = worst_of([target_verdict(target) for target in targets])
    failed = any(target.status == "failed" for target in targets)
    return replace(
        report,
        verdict=verdict,
        exit_code=int(ExitCode.STEP_FAILED if failed else _CODES[verdict]),
        targets=tuple(targets),
        compatibility=None,
    )


def require_same(one: tuple[str, Report], other: tuple[str, Report]) -> None:
    """Refuse two reports whose figures cannot be put side by side.

    Args:
        one: with the name that the user gave it.
        other: the same.

    Raises:
        UsageError: they are of different models, graphs or evaluation texts.
    """
    for what, of in _SAME:
        if of(one[1]) != of(other[1]):
            raise UsageError(
                f"{other[0]} and {one[0]} cannot stand side by side",
                why=f"their {what} differ",
                hint="take reports of one model judged on one evaluation set",
            )


def _require_distinct(reports: Sequence[tuple[str, Report]]) -> None:
    seen: dict[Expected, str] = {}
    for name, report in reports:
        for target in report.targets:
            pair = (target.target, target.device)
            if seen.get(pair, name) != name:
                raise UsageError(
                    f"{name} and {seen[pair]} both have {target.target} on {target.device}",
                    hint="give each target and device once",
                )
            seen[pair] = name


def _missing(target: str, device: str) -> TargetSection:
    return TargetSection(
        target=target,
        device=device,
        status="not_run",
        recipe=None,
        artifact=None,
        checks=(),
        latency=None,
        fidelity=None,
        executed_precisions={},
        candidates=(),
        variants=(),
        quantization=None,
        reason="expected, and in none of the reports",
        artifact_size_bytes=None,
        options={},
        hardware=None,
        runner=None,
        tool_versions={},
    )
