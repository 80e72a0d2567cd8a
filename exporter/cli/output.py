"""What commands print on stdout."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

if TYPE_CHECKING:
    from exporter.deliver.report import Report


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


def print_json(value: object) -> None:
    """Print a value as JSON on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
