"""`exporter build BUNDLE`: finish on its device what was prepared elsewhere."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from exporter.cli.options import (
    CacheOption,
    CudaApiOption,
    FieldOption,
    NoCacheOption,
    QuietOption,
    ThreadsOption,
)
from targets.errors import UsageError

_CUDA_API, _CALIBRATOR = "cuda_api", "calibrator"
_TENSORRT_S_OWN = "tensorrt"


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
    calibrator: Annotated[
        str | None,
        typer.Option(
            "--calibrator",
            help="Who quantizes: none (the graph says it), or TensorRT 10 with the bundle's scales "
            "(cache) or with its own entropy calibration (tensorrt) [none].",
        ),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option("--calibration", help="Texts for --calibrator tensorrt [built-in]."),
    ] = None,
    field: FieldOption = None,
    num_samples: Annotated[
        int | None, typer.Option("--num-samples", min=1, help="Calibration texts used [300].")
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

    texts = {"calibration": calibration, "field": field, "num_samples": num_samples}
    given = {name: value for name, value in texts.items() if value is not None}
    options = _options(option or (), {_CUDA_API: cuda_api, _CALIBRATOR: calibrator})
    calibrates = options.get(_CALIBRATOR) == _TENSORRT_S_OWN
    _require_use(given, calibrates=calibrates)
    settings = Settings.model_validate(
        {
            "output": output or bundle,
            "threads": threads,
            "cache": cache,
            "use_cache": not no_cache,
            **given,
        }
    )
    asked = FinishAsked(
        bundle=bundle,
        target=target,
        engine=engine,
        options=options,
        calibrates=calibrates,
        command=shlex.join(["exporter", *sys.argv[1:]]),
    )
    with (
        make_reporter(quiet=quiet or as_json) as reporter,
        open_workspace(settings, reporter) as work,
    ):
        report = finish_bundle(work, asked)
    print_result(settings.output, as_json=as_json)
    return report.exit_code


def _options(given: Sequence[str], flags: Mapping[str, str | None]) -> dict[str, str]:
    """Put the pairs of `--option` and the options with flags of their own together.

    Raises:
        UsageError: no pair, or a flag and a pair contradict each other.
    """
    options = dict(_pair(one) for one in given)
    for name, value in flags.items():
        if value is not None and options.setdefault(name, value) != value:
            raise UsageError(
                f"--{name.replace('_', '-')} {value} and --option {name}={options[name]}",
                why="both say the same thing, and not the same of it",
                hint="leave one of them out",
            )
    return options


def _require_use(texts: Mapping[str, object], *, calibrates: bool) -> None:
    """Refuse flags about texts that nobody would read.

    Raises:
        UsageError: names the first.
    """
    if texts and not calibrates:
        flag = next(iter(texts)).replace("_", "-")
        raise UsageError(
            f"--{flag}: this build reads no calibration texts",
            why="the scales are in the bundle",
            hint=f"add --calibrator {_TENSORRT_S_OWN}, or leave it out",
        )


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise UsageError(
            f"--option {text!r} is no pair",
            why="it must be KEY=VALUE",
            hint="for example --option optimization_level=5",
        )
    return key, value
