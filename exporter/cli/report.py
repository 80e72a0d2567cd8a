"""`exporter report BUNDLE… -o DIR`: one report of several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    bundles: Annotated[list[Path], typer.Argument(help="Bundle folders, or report.json files.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report.")],
    expect: Annotated[
        list[str] | None,
        typer.Option("--expect", help="TARGET=DEVICE that must be there; repeatable."),
    ] = None,
) -> int:
    """Merge the reports of bundles of one model, and render them anew."""
    from exporter.cli.output import print_report
    from exporter.steps.reports import merge_bundles

    merged = merge_bundles(bundles, expect or (), output)
    print_report(merged)
    typer.echo(f"report {output / 'report.html'}")
    return merged.exit_code
