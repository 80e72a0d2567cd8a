"""`exporter train-aware`: quantization-aware training alone, without labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exporter.cli.options import (
    CacheOption,
    ConfigOption,
    FieldOption,
    JsonOption,
    QuietOption,
    ThreadsOption,
)
from targets.errors import ExitCode

if TYPE_CHECKING:
    from exporter.values import TrainingSummary


def train_aware(
    target: Annotated[
        str, typer.Option("--target", "-t", help="Target whose static int8 form is trained.")
    ] = "onnxruntime",
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="Folder or hub id [all-MiniLM-L6-v2].")
    ] = None,
    training: Annotated[
        str | None, typer.Option("--training", help="Unlabelled texts [those of --calibration].")
    ] = None,
    training_labels: Annotated[
        str | None, typer.Option("--training-labels", help="Field of their classes [none].")
    ] = None,
    calibration: Annotated[
        str | None, typer.Option("--calibration", help="Calibration texts [built-in].")
    ] = None,
    evaluation: Annotated[
        str | None, typer.Option("--eval", help="Texts that must not be trained on [built-in].")
    ] = None,
    training_steps: Annotated[
        int | None, typer.Option("--training-steps", help="Batches at most [600].")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="In steps of a weight [0.006].")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="File of the figures and the curve.")
    ] = Path("training.json"),
    field: FieldOption = None,
    threads: ThreadsOption = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed [0].")] = None,
    config: ConfigOption = None,
    cache: CacheOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> int:
    """Train static int8 on FP32's embeddings; a killed run goes on; `export --qat` takes it."""
    from exporter.cli.progress import make_reporter
    from exporter.config import load_settings
    from exporter.pipeline import open_workspace
    from exporter.steps.training_run import run_training

    flags = {
        "target": (target,),
        "model": model,
        "qat": True,
        "training": training,
        "training_labels": training_labels,
        "calibration": calibration,
        "eval": evaluation,
        "training_steps": training_steps,
        "learning_rate": learning_rate,
        "field": field,
        "threads": threads,
        "seed": seed,
        "cache": cache,
    }
    settings = load_settings(config, flags)
    with (
        make_reporter(quiet=quiet or as_json) as reporter,
        open_workspace(settings, reporter) as work,
    ):
        summary = run_training(work, output)
    _print(summary, output, as_json=as_json)
    return int(ExitCode.PASS)


def _print(summary: TrainingSummary, output: Path, *, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        from exporter.cli.output import print_json

        print_json({**asdict(summary), "path": str(output)})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("steps", "loss", "drift on held-out texts")
    for point in summary.curve:
        table.add_row(str(point.step), f"{point.loss:.5f}", f"{point.drift:.3e}")
    Console().print(table)
    gone = 1.0 - summary.drift_after / summary.drift_before if summary.drift_before else 0.0
    used = "used by export --qat" if summary.used else "not used: it is no better"
    print(
        f"drift {summary.drift_before:.3e} -> {summary.drift_after:.3e} ({gone:.0%} gone); {used}"
    )
    if summary.labels is not None:
        from exporter.deliver.report.figures import class_accuracies

        print(class_accuracies(summary.labels))
    print(f"figures {output}")
