"""What a model's modules do: read from modules.json and each module's settings.

Formats: Sentence Transformers 1 to 6. Version 6 moved the classes out of
`sentence_transformers.models` and replaced the pooling booleans by `pooling_mode`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.source.model_files import read_json_objects, read_optional_json
from targets.errors import ConfigError, ModelError

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
"""Modes in the order in which the old booleans are concatenated (Sentence Transformers 6.2)."""

LEGACY_POOLING_KEYS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}

SUPPORTED_MODULES = ("Transformer", "Pooling", "Dense", "LayerNorm", "Dropout", "Normalize")
_SENTENCE_TRANSFORMERS = "sentence_transformers."


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleFiles:
    """One module: its class name, its folder and its settings."""

    name: str
    folder: Path
    settings: dict[str, Any]


def read_modules(directory: Path) -> tuple[ModuleFiles, ...]:
    """Read modules.json; empty when the model is a plain Transformers folder.

    Raises:
        ModelError: if a module is not supported, lies outside of the model or they are in an
            order that gives no sentence embedding.
    """
    path = directory / "modules.json"
    if not path.is_file():
        return ()
    modules = tuple(_read_module(directory, entry) for entry in read_json_objects(path))
    names = [module.name for module in modules]
    if names[:2] != ["Transformer", "Pooling"] or names.count("Transformer") != 1:
        raise ModelError(
            f"{path} lists {', '.join(names) or 'nothing'}",
            why="a text encoder begins with Transformer, Pooling",
            hint="export such a model's Transformer and Pooling as a model of their own",
        )
    return modules


def transformer_folder(directory: Path) -> Path:
    """Return the folder with the transformer's configuration, weights and tokenizer."""
    modules = read_modules(directory)
    return modules[0].folder if modules else directory


def _read_module(directory: Path, entry: dict[str, Any]) -> ModuleFiles:
    kind, relative = str(entry.get("type", "")), str(entry.get("path", ""))
    name = kind.rsplit(".", 1)[-1]
    if name not in SUPPORTED_MODULES or not kind.startswith(_SENTENCE_TRANSFORMERS):
        raise ModelError(
            f"{directory / 'modules.json'}: the module {kind or '(no type)'} is not supported",
            why=f"supported are {', '.join(SUPPORTED_MODULES)} of Sentence Transformers",
            hint="use a model without it, or replace it by a Dense module",
        )
    folder = (directory / relative).resolve()
    if not folder.is_relative_to(directory.resolve()):
        raise ModelError(
            f"{directory / 'modules.json'}: the path {relative!r} leaves the model's folder",
            why="a model may only name files of its own",
        )
    settings = {} if name == "Transformer" else read_optional_json(folder / "config.json")
    _check_feature_names(name, folder, settings)
    _check_activation(name, folder, settings)
    return ModuleFiles(name=name, folder=folder, settings=settings)


def _check_feature_names(name: str, folder: Path, settings: dict[str, Any]) -> None:
    for key in ("module_input_name", "module_output_name"):
        value = settings.get(key)
        if value not in (None, "sentence_embedding"):
            raise ModelError(
                f"{folder / 'config.json'}: {name} works on {value!r}",
                why="only modules on 'sentence_embedding' give one vector for each text",
            )


def _check_activation(name: str, folder: Path, settings: dict[str, Any]) -> None:
    """Refuse what Sentence Transformers would silently replace by Tanh."""
    activation = str(settings.get("activation_function", "torch."))
    if name == "Dense" and not activation.startswith("torch."):
        raise ModelError(
            f"{folder / 'config.json'}: the activation function {activation} is custom code",
            why="only activation functions of torch are loaded",
        )


def pooling_modes(settings: dict[str, Any], path: Path) -> tuple[str, ...]:
    """Return a Pooling module's modes, from the old booleans or the new `pooling_mode`.

    Raises:
        ModelError: if a mode is unknown.
    """
    mode = settings.get("pooling_mode")
    if mode is None:
        found = [m for m in POOLING_MODES if settings.get(LEGACY_POOLING_KEYS[m])]
        return tuple(found) or ("mean",)
    modes = (mode,) if isinstance(mode, str) else tuple(str(m) for m in mode)
    unknown = [m for m in modes if m not in POOLING_MODES]
    if unknown or not modes:
        raise ModelError(
            f"{path}: unknown pooling mode {', '.join(unknown) or '(none)'}",
            why=f"known are {', '.join(POOLING_MODES)}",
        )
    return modes


def parse_pooling(value: str) -> tuple[str, ...]:
    """Split what `--pooling` says: one mode, or several joined by `+` (concatenated).

    Raises:
        ConfigError: if a mode is unknown.
    """
    modes = tuple(value.split("+"))
    unknown = [mode for mode in modes if mode not in POOLING_MODES]
    if unknown:
        raise ConfigError(
            f"--pooling {value}: unknown mode {', '.join(unknown)}",
            why=f"known are {', '.join(POOLING_MODES)}",
            hint="for instance --pooling mean, --pooling cls, --pooling lasttoken",
        )
    return modes


def embedding_dim(modules: tuple[ModuleFiles, ...], pooled_dim: int) -> int:
    """Return the length of the sentence embedding after all modules."""
    dim = pooled_dim
    for module in modules:
        if module.name == "Dense":
            dim = int(module.settings.get("out_features", dim))
    return dim
