"""Reports of several runs as one, if they speak of the same model and the same texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from exporter.deliver.report.document import MISSING, Report, SourceSection, TargetSection
from exporter.deliver.report.headline import target_verdict, worst_of
from targets.contract import Verdict
from targets.errors import ExitCode, UsageError, worst

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
    ("tokenizer", lambda report: report.model.tokenizer_sha256),
    ("pooling", lambda report: (report.model.pooling, report.model.normalize)),
    ("longest input", lambda report: report.model.max_seq_length),
    ("prompts", lambda report: (dict(report.model.prompts), report.model.default_prompt)),
    ("graph", lambda report: report.model.graph.sha256),
    ("evaluation texts", lambda report: report.evaluation.test.sha256),
    (
        "timed texts",
        lambda report: report.workload.sha256 if report.workload else "those of the evaluation",
    ),
)


def merge_reports(
    reports: Sequence[tuple[str, Report]], expected: Sequence[Expected] = ()
) -> Report:
    """Put the targets of several reports into one.

    Args:
        reports: each with the name that the user gave it; at least one.
        expected: pairs that must be there; the others are shown as missing, which fails.

    Raises:
        UsageError: they are of different models, graphs or evaluation texts, or two of them
            have the same target on the same device.
    """
    first = reports[0][1]
    for one in reports[1:]:
        require_same(reports[0], one)
    _require_distinct(reports)
    targets = [one for _, report in reports for one in report.targets if one.status != MISSING]
    known = {(one.target, one.device) for one in targets}
    wanted = [*_missing_so_far(reports), *expected]
    absent = [pair for pair in dict.fromkeys(wanted) if pair not in known]
    if len(reports) == 1 and absent == _missing_so_far(reports):
        return first
    targets += [_missing(*pair) for pair in absent]
    verdict = worst_of([target_verdict(target) for target in targets])
    codes = [_code_of(report) for _, report in reports]
    return replace(
        first,
        verdict=verdict,
        exit_code=int(worst(*codes, _CODES[verdict])),
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


def source_of(name: str, report: Report, sha256: str) -> tuple[SourceSection, ...]:
    """Describe a report that is merged; one that was merged itself is what it was merged from.

    Args:
        name: what the user called it.
        report: it.
        sha256: of its `report.json`.
    """
    if report.sources:
        return report.sources
    places = (f"{one.target} on {one.device}" for one in report.targets if one.status != MISSING)
    return (
        SourceSection(
            name=name,
            report_sha256=sha256,
            targets=tuple(places),
            development=report.evaluation.development,
            calibration=report.calibration,
            provenance=report.provenance,
        ),
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


def _code_of(report: Report) -> ExitCode:
    known = report.exit_code in tuple(ExitCode)
    return ExitCode(report.exit_code) if known else ExitCode.STEP_FAILED


def _require_distinct(reports: Sequence[tuple[str, Report]]) -> None:
    seen: dict[Expected, str] = {}
    for name, report in reports:
        own = [(one.target, one.device) for one in report.targets if one.status != MISSING]
        for pair in own:
            if pair in seen:
                raise UsageError(
                    f"{name} and {seen[pair]} both have {pair[0]} on {pair[1]}",
                    hint="give each target and device once",
                )
        seen |= dict.fromkeys(own, name)


def _missing_so_far(reports: Sequence[tuple[str, Report]]) -> list[Expected]:
    """Return what was expected before and may be in another report by now."""
    found = [one for _, report in reports for one in report.targets if one.status == MISSING]
    return [(one.target, one.device) for one in found]


def _missing(target: str, device: str) -> TargetSection:
    return TargetSection(
        target=target,
        device=device,
        status=MISSING,
        recipe=None,
        artifact=None,
        checks=(),
        latency=None,
        fidelity=None,
        executed_precisions={},
        candidates=(),
        variants=(),
        quantization=None,
        reason="it was expected, and none of the bundles has it",
        artifact_size_bytes=None,
        options={},
        hardware=None,
        runner=None,
        tool_versions={},
    )
