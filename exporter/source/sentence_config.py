"""The Transformer module's own settings file, under any of the names it had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporter.source.model_files import read_json_object
from targets.errors import ModelError

# Names in the order in which Sentence Transformers 6.2 looks for them (Transformer.load_config).
_NAMES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
_TOKENIZER_ARGUMENT_KEYS = ("tokenizer_args", "processor_kwargs")
_TEXT_OUTPUT = {"method": "forward", "method_output_name": "last_hidden_state"}


def sentence_config_path(folder: Path) -> Path | None:
    """Return the settings file, or None when the model has none."""
    return next((folder / name for name in _NAMES if (folder / name).is_file()), None)


def read_sentence_config(folder: Path) -> dict[str, Any]:
    """Read the Transformer module's settings; empty when the model has none.

    Raises:
        ModelError: if the file is damaged or asks for something other than token embeddings
            of plain text.
    """
    path = sentence_config_path(folder)
    if path is None:
        return {}
    settings = read_json_object(path)
    task = settings.get("transformer_task", "feature-extraction")
    modalities = settings.get("modality_config", {"text": _TEXT_OUTPUT})
    if task != "feature-extraction" or modalities.get("text") != _TEXT_OUTPUT:
        raise ModelError(
            f"{path}: the module does not give token embeddings of plain text",
            why=f"transformer_task {task!r}, modalities {', '.join(modalities)}",
        )
    if "message" in modalities or settings.get("processing_kwargs"):
        raise ModelError(
            f"{path}: the model renders texts through a chat template or own tokenizer arguments",
            why="the exported bundle's tokenizer could not repeat that elsewhere",
        )
    return settings


def tokenizer_arguments(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments that the module gives to its tokenizer, but never remote code."""
    arguments: dict[str, Any] = {}
    for key in _TOKENIZER_ARGUMENT_KEYS:
        arguments.update(settings.get(key) or {})
    arguments.pop("trust_remote_code", None)
    return arguments
