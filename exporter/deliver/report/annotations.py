"""What a rollout gate tells CI: annotations of GitHub and GitLab, and a job summary."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

from exporter.deliver.report import figures
from exporter.deliver.report.document import Report, TargetSection
from exporter.deliver.report.headline import VERDICT_SYMBOLS, VERDICT_WORDS, question
from exporter.deliver.report.markup import escape, table
from exporter.deliver.report.text import one_line, visible
from targets.contract import Check

CODE_QUALITY = "gl-code-quality-report.json"
_LEVELS = {"fail": "error", "inconclusive": "warning", "not_run": "warning"}
_SEVERITIES = {"fail": "blocker", "inconclusive": "major", "not_run": "major"}


def github_annotations(report: Report) -> str:
    """Return one workflow command for each check that does not pass."""
    lines = (
        f"::{_LEVELS[check.verdict]} title={_property(_title(target, check))}::"
        f"{_data(_message(check))}"
        for target, check in _open(report)
    )
    return "\n".join(lines)


def gitlab_code_quality(report: Report, file: str) -> str:
    """Return GitLab's code-quality report: one issue for each check that does not pass.

    Args:
        report: judged.
        file: what the issues point at, inside the repository.
    """
    issues = [
        {
            "description": f"{_title(target, check)}: {_message(check)}",
            "check_name": check.name,
            "fingerprint": _fingerprint(target, check),
            "severity": _SEVERITIES[check.verdict],
            "location": {"path": file, "lines": {"begin": 1}},
        }
        for target, check in _open(report)
    ]
    return json.dumps(issues, indent=1, ensure_ascii=False)


def job_summary(report: Report) -> str:
    """Return a short page in Markdown: the verdict, and every check that somebody must look at."""
    word, symbol = VERDICT_WORDS[report.verdict], VERDICT_SYMBOLS[report.verdict]
    headers = ("target", "device", "check", "verdict", "value", "asked", "reason")
    rows = [
        (
            escape(target.target),
            escape(target.device),
            escape(question(check)),
            f"{VERDICT_SYMBOLS[check.verdict]} {VERDICT_WORDS[check.verdict]}",
            figures.check_value(check),
            figures.check_threshold(check),
            escape(one_line(check.reason)),
        )
        for target, check in _worth_a_look(report)
    ]
    text = f"# Rollout gate: {symbol} {word}\n\n"
    text += f"{len(report.targets)} artifacts of {escape(one_line(report.model.id))}.\n"
    return text + (f"\n{table(headers, rows, 'llllrrl')}" if rows else "\nEvery check passes.\n")


def _open(report: Report) -> Iterator[tuple[TargetSection, Check]]:
    for target in report.targets:
        yield from ((target, check) for check in target.checks if check.verdict != "pass")


def _worth_a_look(report: Report) -> Iterator[tuple[TargetSection, Check]]:
    yield from _open(report)
    for target in report.targets:
        yield from ((target, one) for one in target.checks if one.verdict == "pass" and one.reason)


def _title(target: TargetSection, check: Check) -> str:
    return f"{target.target} on {target.device}: {question(check)}"


def _message(check: Check) -> str:
    value = f"{figures.check_value(check)}, asked {figures.check_threshold(check)}; "
    return (value if check.value is not None else "") + (one_line(check.reason) or check.verdict)


def _fingerprint(target: TargetSection, check: Check) -> str:
    parts = "\n".join((target.target, target.device, check.name))
    return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()


def _data(text: str) -> str:
    return visible(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
