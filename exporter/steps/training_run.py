"""Training alone: model and unlabelled texts in, figures and the curve out."""

from __future__ import annotations

from pathlib import Path

from exporter.deliver.codec import dump_json
from exporter.deliver.storage import storage_errors
from exporter.steps.quantization import quantize_layers
from exporter.steps.source import Source
from exporter.steps.stands import find_stands
from exporter.steps.texts import prepare_texts
from exporter.steps.training import with_training
from exporter.steps.workspace import Workspace
from exporter.values import TrainingSummary
from targets.errors import ConfigError


def run_training(work: Workspace, output: Path) -> TrainingSummary:
    """Train the static int8 form of the settings' target and write what came of it.

    The trained form itself lies in the cache, where `export --qat` with the same settings
    finds it.

    Args:
        work: the run's surroundings; its settings ask for `qat`.
        output: the JSON file to write; what is there is replaced.

    Raises:
        ConfigError, TextsError, ModelError, ExportError, CalibrationError, StepError,
        StorageError: the file at `output` is left as it was.
    """
    from exporter.source.resolve import resolve_encoder

    settings = work.settings
    if output.is_dir():
        raise ConfigError(
            f"--output {output} is a folder",
            hint=f"name a file, for example {output}/training.json",
        )
    stand = find_stands(work).ready[0]
    spec = resolve_encoder(
        settings.model,
        pooling=settings.pooling,
        revision=settings.revision,
        trust_remote_code=settings.trust_remote_code,
        max_seq_length=settings.max_seq_length,
    )
    for warning in spec.warnings:
        work.reporter.note(warning)
    texts = prepare_texts(work, spec)
    source = Source(work, spec)
    graph = source.graph(texts.calibration).artifact
    recipes = stand.target.candidates(graph, stand.hardware)
    found = quantize_layers(work, spec, graph, texts.calibration, recipes, stand.hardware)
    summary = with_training(work, source, graph, texts, found).summary
    assert summary is not None and summary.training is not None  # with_training says so
    aside = output.with_name(f".{output.name}.part")
    with storage_errors("cannot write the figures", output, remedy="name another --output"):
        output.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(dump_json(summary.training))
        aside.replace(output)
    return summary.training
