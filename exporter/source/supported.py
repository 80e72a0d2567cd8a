"""Which models are text encoders that can be exported; everything else is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from targets.errors import ModelError

_OTHER_MODALITIES = {
    "vision_config": "images",
    "audio_config": "audio",
    "image_size": "images",
    "num_mel_bins": "audio",
    "conv_kernel": "audio",
}
_ENCODER_ONLY_HINT = "use an encoder such as BERT, MPNet, XLM-R or ModernBERT"


def check_supported(
    folder: Path,
    config: dict[str, Any],
    sentence_settings: dict[str, Any],
    *,
    trust_remote_code: bool,
) -> None:
    """Refuse what is not a text encoder with its own weights and code known to transformers.

    Raises:
        ModelError: naming what the model is instead.
    """
    path = folder / "config.json"
    _check_code(folder, config, trust_remote_code)
    _check_kind(path, config)
    _check_precision(path, config)
    _check_family(folder, sentence_settings)


def _check_code(folder: Path, config: dict[str, Any], trust_remote_code: bool) -> None:
    if config.get("auto_map") and not trust_remote_code:
        raise ModelError(
            f"{folder / 'config.json'} asks to run code that comes with the model",
            why=f"auto_map names {', '.join(str(v) for v in config['auto_map'].values())}",
            hint="read that code, and if you trust it, say --trust-remote-code",
        )


def _check_kind(path: Path, config: dict[str, Any]) -> None:
    if config.get("is_encoder_decoder"):
        raise ModelError(
            f"{path}: {config['model_type']} is an encoder-decoder model",
            why="only encoders and decoder-type embedders give one graph from text to vector",
            hint=_ENCODER_ONLY_HINT,
        )
    for key, modality in _OTHER_MODALITIES.items():
        if key in config:
            raise ModelError(
                f"{path}: {config['model_type']} is a model for {modality}",
                why=f"its configuration has {key}",
                hint=_ENCODER_ONLY_HINT,
            )
    if "vocab_size" not in config:
        raise ModelError(
            f"{path}: {config['model_type']} has no vocabulary",
            why="vocab_size is missing, so it does not read text",
            hint=_ENCODER_ONLY_HINT,
        )


def _check_precision(path: Path, config: dict[str, Any]) -> None:
    if config.get("quantization_config"):
        raise ModelError(
            f"{path}: the weights are already quantized",
            why="every artifact is made from, and compared with, the float model",
            hint="name the model it was quantized from",
        )


def _check_family(folder: Path, sentence_settings: dict[str, Any]) -> None:
    family = sentence_settings.get("model_type", "SentenceTransformer")
    if family != "SentenceTransformer":
        raise ModelError(
            f"{folder} is a {family} model",
            why="its output is not one dense vector for each text",
            hint="use a SentenceTransformer model",
        )
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{folder} is an adapter, not a model",
            why="adapter_config.json is there",
            hint="merge it first: PeftModel.merge_and_unload().save_pretrained(FOLDER)",
        )
