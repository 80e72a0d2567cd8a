"""`exporter build BUNDLE`: finish on its device what was prepared elsewhere."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from targets.errors import UsageError


def build(
    bundle: Annotated[Path, typer.Argument(help="Prepared bundle folder.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Finished bundle [the same folder].")
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--target", "-t", help="Whose artifact [all that can be finished here]."),
    ] = None,
    engine: Annotated[
        Path | None,
        typer.Option("--engine", help="Engine that trtexec built of the chosen artifact."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="KEY=VALUE of the builder, repeatable; see docs."),
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", help="CPU threads [all].")] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", help="Cache folder [the user's].")
    ] = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Do everything anew, keep nothing.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON report only.")] = False,
) -> int:
    """Build a prepared bundle's engines on this machine's GPU, time them, and judge them."""
    from exporter.cli.output import print_result
    from exporter.cli.progress import make_reporter
    from exporter.config import Settings
    from exporter.pipeline import open_workspace
    from exporter.steps.finish import FinishAsked, finish_bundle

    settings = Settings(
        output=output or bundle, threads=threads, cache=cache, use_cache=not no_cache
    )
    asked = FinishAsked(
        bundle=bundle,
        target=target,
        engine=engine,
        options=dict(_pair(one) for one in option or ()),
        command=shlex.join(["exporter", *sys.argv[1:]]),
    )
    with (
        make_reporter(quiet=quiet or as_json) as reporter,
        open_workspace(settings, reporter) as work,
    ):
        report = finish_bundle(work, asked)
    print_result(settings.output, as_json=as_json)
    return report.exit_code


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise UsageError(
            f"--option {text!r} is no pair",
            why="it must be KEY=VALUE",
            hint="for example --option optimization_level=5",
        )
    return key, value
