"""`exporter gate BUNDLE…`: may this fleet be rolled out?"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

Annotations = Literal["github", "gitlab", "none"]


def gate(
    bundles: Annotated[
        list[Path], typer.Argument(help="Bundle folders or archives, or report.json files.")
    ],
    policy: Annotated[
        Path | None, typer.Option("--policy", help="TOML file with rules and waivers.")
    ] = None,
    expect: Annotated[
        list[str] | None,
        typer.Option("--expect", help="TARGET=DEVICE that must be there; repeatable."),
    ] = None,
    annotations: Annotated[
        str, typer.Option("--annotations", help="github, gitlab or none [none].")
    ] = "none",
    summary: Annotated[
        Path | None, typer.Option("--summary", help="File for a job summary in Markdown.")
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", help="File for JUnit XML.")] = None,
) -> int:
    """Judge bundles of one model by a policy; the exit code is the answer."""
    from exporter.cli.output import print_gate
    from exporter.deliver.report import to_junit
    from exporter.deliver.report.annotations import (
        CODE_QUALITY,
        github_annotations,
        gitlab_code_quality,
        job_summary,
    )
    from exporter.deliver.storage import write_text
    from exporter.steps.gate import judge_report, load_policy
    from exporter.steps.reports import merged_report
    from targets.errors import UsageError

    if annotations not in ("github", "gitlab", "none"):
        raise UsageError(
            f"--annotations {annotations} is not known", hint="take github, gitlab or none"
        )
    rules = load_policy(policy, datetime.now(UTC).date())
    judged = judge_report(merged_report(bundles, expect or ()), rules)
    print_gate(judged)
    if annotations == "github" and (lines := github_annotations(judged)):
        typer.echo(lines)
    if annotations == "gitlab":
        file = str(policy or bundles[0])
        write_text(Path(CODE_QUALITY), gitlab_code_quality(judged, file))
    if summary is not None:
        write_text(summary, job_summary(judged))
    if junit is not None:
        write_text(junit, to_junit(judged))
    return judged.exit_code
