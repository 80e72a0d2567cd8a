"""`exporter calibrate`: one pass over the FP32 graph, kept in one file for every target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exporter.cli.options import (
    CacheOption,
    ConfigOption,
    FieldOption,
    JsonOption,
    NoCacheOption,
    QuietOption,
    ThreadsOption,
)
from targets.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from exporter.steps.calibration_run import CalibrationSummary

_ALL = "all"


def calibrate(
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="Folder or hub id [all-MiniLM-L6-v2].")
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option("--calibration", help="Texts: .txt, .jsonl, .csv, … [built-in]."),
    ] = None,
    num_samples: Annotated[
        str | None,
        typer.Option(
            "--num-samples",
            help="Sample so many different texts, or `all`: every text, read as a stream [300].",
        ),
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="File of the table.")] = Path(
        "calibration.npz"
    ),
    gram: Annotated[
        bool,
        typer.Option("--gram", help="Keep second moments too (error-compensated rounding)."),
    ] = False,
    field: FieldOption = None,
    pooling: Annotated[
        str | None,
        typer.Option("--pooling", help="Pooling of a plain transformers model [mean]."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Commit or tag on the hub.")
    ] = None,
    max_seq_length: Annotated[
        int | None, typer.Option("--max-seq-length", help="Cut texts at this.")
    ] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the model's own code.")
    ] = False,
    threads: ThreadsOption = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the sample [0].")] = None,
    config: ConfigOption = None,
    cache: CacheOption = None,
    no_cache: NoCacheOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> int:
    """Run calibration texts through the FP32 graph and write the table of activations."""
    from exporter.cli.progress import make_reporter
    from exporter.config import load_settings
    from exporter.pipeline import open_workspace
    from exporter.steps.calibration_run import run_calibration

    flags = {
        "model": model,
        "calibration": calibration,
        "num_samples": _sample_size(num_samples),
        "field": field,
        "pooling": pooling,
        "revision": revision,
        "max_seq_length": max_seq_length,
        "trust_remote_code": trust_remote_code or None,
        "threads": threads,
        "seed": seed,
        "cache": cache,
        "use_cache": False if no_cache else None,
    }
    settings = load_settings(config, flags)
    with (
        make_reporter(quiet=quiet or as_json) as reporter,
        open_workspace(settings, reporter) as work,
    ):
        summary = run_calibration(work, output, every_text=num_samples == _ALL, gram=gram)
    _print(summary, as_json=as_json)
    return int(ExitCode.PASS)


def _sample_size(given: str | None) -> int | None:
    """Return how many texts are sampled; None where the configuration says so, or all are run.

    Raises:
        ConfigError: it is neither a positive number nor "all".
    """
    if given is None or given == _ALL:
        return None
    if given.isascii() and given.isdecimal() and int(given) > 0:
        return int(given)
    raise ConfigError(
        f"--num-samples {given} is not valid",
        why=f"it takes a positive whole number, or {_ALL!r} for every text of the source",
        hint="--num-samples 1000",
    )


def _print(summary: CalibrationSummary, *, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        from exporter.cli.output import print_json

        print_json({**asdict(summary), "path": str(summary.path)})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("tensors", "texts", "tokens", "seconds", "size")
    table.add_row(
        str(summary.num_tensors),
        f"{summary.num_texts:,}",
        f"{summary.num_tokens:,}",
        f"{summary.took_s:.1f}" if summary.took_s else "from the cache",
        f"{summary.size_bytes / 1e6:.1f} MB",
    )
    Console().print(table)
    print(f"table {summary.path}   texts {summary.texts}")
