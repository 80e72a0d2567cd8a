"""`exporter build BUNDLE`: finish on its device what was prepared elsewhere."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from exporter.cli.options import (
    CacheOption,
    CudaApiOption,
    NoCacheOption,
    QuietOption,
    ThreadsOption,
)
from targets.errors import UsageError

_CUDA_API = "cuda_api"


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
    cuda_api: CudaApiOption = None,
    threads: ThreadsOption = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    quiet: QuietOption = False,
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
        options=_options(option or (), cuda_api),
        command=shlex.join(["exporter", *sys.argv[1:]]),
    )
    with (
        make_reporter(quiet=quiet or as_json) as reporter,
        open_workspace(settings, reporter) as work,
    ):
        report = finish_bundle(work, asked)
    print_result(settings.output, as_json=as_json)
    return report.exit_code


def _options(given: Sequence[str], cuda_api: str | None) -> dict[str, str]:
    """Put the pairs of `--option` and the option with a flag of its own together.

    Raises:
        UsageError: no pair, or the two contradict each other.
    """
    options = dict(_pair(one) for one in given)
    if cuda_api is None:
        return options
    if options.setdefault(_CUDA_API, cuda_api) != cuda_api:
        raise UsageError(
            f"--cuda-api {cuda_api} and --option {_CUDA_API}={options[_CUDA_API]}",
            why="an engine speaks to CUDA by one package",
            hint="leave one of them out",
        )
    return options


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise UsageError(
            f"--option {text!r} is no pair",
            why="it must be KEY=VALUE",
            hint="for example --option optimization_level=5",
        )
    return key, value
