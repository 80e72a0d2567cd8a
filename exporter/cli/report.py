"""`exporter report BUNDLE… -o DIR`: one report of several runs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from targets.errors import ExitCode


def report(
    bundles: Annotated[
        list[Path], typer.Argument(help="Bundle folders or archives, or report.json files.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")],
    expect: Annotated[
        list[str] | None,
        typer.Option("--expect", help="TARGET=DEVICE that must be there; repeatable."),
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", help="Policy file of the gate: show its verdict and waivers."),
    ] = None,
    compatibility: Annotated[
        Path | None,
        typer.Option("--compatibility", help="JSON file of `exporter compatibility`: its matrix."),
    ] = None,
) -> int:
    """Merge the reports of bundles of one model; 0 once it is written, whatever its verdict."""
    from exporter.cli.output import print_report
    from exporter.deliver.report import write_report
    from exporter.steps.gate import judge_report, load_policy
    from exporter.steps.reports import merged_report

    rules = load_policy(policy, datetime.now(UTC).date()) if policy else None
    merged = merged_report(bundles, expect or (), compatibility)
    if rules is not None:
        merged = judge_report(merged, rules)
    write_report(merged, output)
    print_report(merged)
    typer.echo(f"report {output / 'report.html'}")
    return int(ExitCode.PASS)
