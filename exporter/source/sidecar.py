"""The small files beside the graphs that loaders look for.

Written so that Sentence Transformers 5 and 6 read them alike: module classes under their old
names, pooling as the old booleans, the transformer at the bundle's root.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from exporter.source.model_files import (
    TOKENIZER_FILES,
    present,
    read_optional_json,
    weight_files,
)
from exporter.source.modules import (
    LEGACY_POOLING_KEYS,
    POOLING_MODES,
    ModuleFiles,
    read_modules,
)
from exporter.source.sentence_config import read_sentence_config
from exporter.values import EncoderSpec
from targets.errors import StorageError

_OLD_CLASSES = "sentence_transformers.models"
_TOKENIZER_CONFIG = "tokenizer_config.json"
# Written by Sentence Transformers 6; version 5 does not know them, and text is the default.
_NEW_SETTINGS = ("transformer_task", "modality_config", "module_output_name", "unpad_inputs")
_NORMALIZE_SETTINGS = {
    "module_input_name": "sentence_embedding",
    "module_output_name": "sentence_embedding",
}


def copy_sidecar(spec: EncoderSpec, directory: Path) -> None:
    """Write configuration, tokenizer and module files of a model into a bundle.

    Weights of the transformer are left out (the graphs hold them); Dense and LayerNorm modules
    keep theirs, as safetensors. Pickles are never copied.

    Args:
        spec: the source model.
        directory: the bundle's folder; created where it does not exist.

    Raises:
        StorageError: if a file cannot be written.
        ModelError: if a source file has become unreadable.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write_sidecar(spec, directory)
    except OSError as error:
        raise StorageError(
            f"the model's files cannot be written to {directory}", why=str(error)
        ) from error


def _write_sidecar(spec: EncoderSpec, directory: Path) -> None:
    modules = read_modules(spec.directory)
    folder = modules[0].folder if modules else spec.directory
    _copy(present(folder, ("config.json", *TOKENIZER_FILES)), directory)
    _limit_tokens(directory / _TOKENIZER_CONFIG, spec.max_seq_length)
    if spec.trust_remote_code:
        _copy(tuple(sorted(folder.glob("*.py"))), directory)
    _write_json(directory / "sentence_bert_config.json", _transformer_settings(spec, folder))
    _write_json(directory / "config_sentence_transformers.json", _model_settings(spec))
    _write_json(
        directory / "modules.json",
        [_module_entry(index, name) for index, name in enumerate(spec.modules)],
    )
    for index, name in enumerate(spec.modules[1:], 1):
        source = modules[index] if modules else None
        _write_module(spec, name, source, directory / _module_folder(index, name))


def _limit_tokens(path: Path, max_seq_length: int) -> None:
    """Tell loaders that read nothing else (Transformers.js) where texts are cut."""
    settings = read_optional_json(path)
    if settings and settings.get("model_max_length") != max_seq_length:
        _write_json(path, {**settings, "model_max_length": max_seq_length})


def _module_entry(index: int, name: str) -> dict[str, Any]:
    return {
        "idx": index,
        "name": str(index),
        "path": _module_folder(index, name),
        "type": f"{_OLD_CLASSES}.{name}",
    }


def _module_folder(index: int, name: str) -> str:
    return f"{index}_{name}" if index else ""


def _transformer_settings(spec: EncoderSpec, folder: Path) -> dict[str, Any]:
    own = read_sentence_config(folder)
    kept = {key: value for key, value in own.items() if key not in _NEW_SETTINGS}
    return {**kept, "max_seq_length": spec.max_seq_length, "do_lower_case": _lower_cases(own)}


def _lower_cases(settings: dict[str, Any]) -> bool:
    return bool(settings.get("do_lower_case", False))


def _model_settings(spec: EncoderSpec) -> dict[str, Any]:
    own = read_optional_json(spec.directory / "config_sentence_transformers.json")
    return own or {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": None}


def _write_module(spec: EncoderSpec, name: str, source: ModuleFiles | None, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    settings = source.settings if source else {}
    if name == "Pooling":
        settings = _pooling_settings(spec, settings)
    elif name == "Normalize":
        settings = _NORMALIZE_SETTINGS
    elif source is not None and name in ("Dense", "LayerNorm"):
        _copy(weight_files(source.folder), folder)
    _write_json(folder / "config.json", settings)


def _pooling_settings(spec: EncoderSpec, own: dict[str, Any]) -> dict[str, Any]:
    """Write pooling as booleans, unless their fixed order of concatenation is not the model's."""
    modes = spec.pooling.split("+")
    settings = {
        "word_embedding_dimension": _word_dimension(spec, own),
        "include_prompt": own.get("include_prompt", True),
    }
    if modes != [mode for mode in POOLING_MODES if mode in modes]:
        return {**settings, "pooling_mode": modes}
    return {**settings, **{LEGACY_POOLING_KEYS[m]: m in modes for m in POOLING_MODES}}


def _word_dimension(spec: EncoderSpec, own: dict[str, Any]) -> int:
    for key in ("word_embedding_dimension", "embedding_dimension"):
        if key in own:
            return int(own[key])
    return spec.embedding_dim // len(spec.pooling.split("+"))


def _copy(files: tuple[Path, ...], folder: Path) -> None:
    for file in files:
        shutil.copyfile(file, folder / file.name)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
