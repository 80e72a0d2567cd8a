"""What commands print on stdout."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from exporter.deliver.report import Report
    from exporter.steps.compare import Comparison


def print_result(bundle: Path, *, as_json: bool) -> None:
    """Print the report of a bundle: a table for people, or the JSON document alone."""
    report = bundle / "reports" / "report.json"
    if as_json:
        sys.stdout.write(report.read_text("utf-8"))
        return
    from exporter.deliver.report import read_report

    print_report(read_report(report))
    print(f"bundle {bundle}   report {bundle / 'reports' / 'report.html'}")


def print_report(report: Report) -> None:
    """Print a report as a table for people."""
    from exporter.deliver.report import terminal_table

    Console().print(terminal_table(report))


def print_gate(report: Report) -> None:
    """Print the gate's answer and every check that somebody must look at."""
    from exporter.deliver.report.headline import VERDICT_SYMBOLS, VERDICT_WORDS, question
    from exporter.deliver.report.text import one_line

    word = f"{VERDICT_SYMBOLS[report.verdict]} {VERDICT_WORDS[report.verdict]}"
    print(f"{word}: {len(report.targets)} artifacts, exit code {report.exit_code}")
    for target in report.targets:
        for check in target.checks:
            if check.verdict != "pass" or check.reason:
                said = f"{VERDICT_SYMBOLS[check.verdict]} {VERDICT_WORDS[check.verdict]}"
                place = f"{one_line(target.target)} on {one_line(target.device)}"
                print(f"  {said} {place}: {question(check)}: {one_line(check.reason)}")


def print_comparison(found: Comparison) -> None:
    """Print what a new bundle lost or gained against an earlier one."""
    from exporter.deliver.report import figures
    from exporter.deliver.report.headline import VERDICT_SYMBOLS, VERDICT_WORDS, question
    from exporter.deliver.report.text import one_line

    print(f"{VERDICT_SYMBOLS[found.verdict]} {VERDICT_WORDS[found.verdict]}: against {found.base}")
    for row in found.rows:
        place = f"{one_line(row.target)} on {one_line(row.device)}"
        if row.missing:
            print(f"  – {place}: not in {row.missing}")
        for check in row.checks:
            said = f"{VERDICT_SYMBOLS[check.verdict]} {place}: {question(check)}"
            value = figures.check_value(check)
            print(f"  {said}: {value}; {one_line(check.reason) or 'not worse'}")


def print_json(value: object) -> None:
    """Print a value as JSON on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
