"""What commands print on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from targets.contract import Device, Target
from targets.registry import TargetRow


def print_result(bundle: Path, *, as_json: bool) -> None:
    """Print the report of a bundle: a table for people, or the JSON document alone."""
    report = bundle / "reports" / "report.json"
    if as_json:
        sys.stdout.write(report.read_text("utf-8"))
        return
    from exporter.deliver.report import read_report, terminal_table

    Console().print(terminal_table(read_report(report)))
    print(f"bundle {bundle}   report {bundle / 'reports' / 'report.md'}")


def print_targets(rows: Sequence[TargetRow]) -> None:
    """Print one line per target: what it is and whether it works here."""
    table = Table("target", "runtime", "precisions", "here")
    for row in rows:
        table.add_row(row.name, row.runtime, ", ".join(row.precisions), row.state)
    Console().print(table)


def print_target(target: Target, device: Device) -> None:
    """Print a target's recipes on a device, each with what backs it."""
    found = target.probe(device)
    hardware = device.hardware()
    console = Console()
    console.print(
        f"{target.spec.name}: {target.spec.runtime} by {target.spec.vendor}", highlight=False
    )
    console.print(f"device {device.name}: {hardware.model_name} ({hardware.microarchitecture})")
    lacking = "; ".join(found.missing)
    state = "ready" if found.ok else "not ready"
    console.print(f"{state} ({lacking})" if lacking else state, highlight=False)
    for name, version in found.tool_versions.items():
        console.print(f"  {name} {version}", highlight=False)
    table = Table("recipe", "why")
    for recipe in target.candidates(None, hardware):
        table.add_row(recipe.name, recipe.why)
    console.print(table)


def print_json(value: object) -> None:
    """Print a value as JSON on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))
