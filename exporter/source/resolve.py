"""What the source model is, found without loading a weight or importing torch.

A run whose results are all cached needs nothing more than this, so it must stay cheap.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from exporter.source.limits import sequence_limit
from exporter.source.model_files import (
    TOKENIZER_FILES,
    VOCABULARY_FILES,
    hash_files,
    present,
    read_json_object,
    read_optional_json,
    weight_files,
)
from exporter.source.model_source import ModelSource, check_weights, locate_model
from exporter.source.modules import (
    ModuleFiles,
    embedding_dim,
    parse_pooling,
    pooling_modes,
    read_modules,
)
from exporter.source.sentence_config import sentence_config_path
from exporter.source.supported import check_supported
from exporter.values import EncoderSpec
from targets.errors import ConfigError, ModelError

_HIDDEN_SIZE_KEYS = ("hidden_size", "dim", "d_model", "n_embd")
_MODULES_WITH_WEIGHTS = ("Dense", "LayerNorm")


def resolve_encoder(
    model: str | None,
    *,
    pooling: str | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    max_seq_length: int | None = None,
) -> EncoderSpec:
    """Find a model, check its files and say what it is.

    Args:
        model: folder, hub id, or None for the built-in all-MiniLM-L6-v2.
        pooling: mode (or modes joined by `+`) for a plain Transformers model; a Sentence
            Transformers model says so itself.
        revision: commit, branch or tag on the hub.
        trust_remote_code: allow code that comes with the model.
        max_seq_length: a lower limit than the model's own, in tokens.

    Raises:
        ModelError: if the model is missing, damaged, or not a text encoder that can be exported.
        ConfigError: if `pooling` or `max_seq_length` does not fit the model.
    """
    source = locate_model(model, revision=revision, trust_remote_code=trust_remote_code)
    modules = read_modules(source.directory)
    folder = modules[0].folder if modules else source.directory
    config = _model_config(folder)
    settings = read_optional_json(source.directory / "config_sentence_transformers.json")
    check_supported(folder, config, settings, trust_remote_code=trust_remote_code)
    tokenizer_files = _tokenizer_files(folder)
    modes, pooling_notes = _pooling(source, modules, pooling)
    limit = sequence_limit(folder, config, max_seq_length)
    dim, truncated = _dimension(
        source, modules, _hidden_size(folder, config) * len(modes), settings
    )
    weights_sha256 = hash_files(_weights(folder, modules))
    check_weights(source, weights_sha256)
    prompts, default_prompt = _prompts(source, settings, modules)
    return EncoderSpec(
        model_id=source.model_id,
        source=source.kind,
        directory=source.directory,
        revision=source.revision,
        library="sentence_transformers" if modules else "transformers",
        architecture=str((config.get("architectures") or ["unknown"])[0]),
        model_type=str(config["model_type"]),
        pooling="+".join(modes),
        normalize=_ends_normalized(modules) and not truncated,
        modules=tuple(m.name for m in modules) or ("Transformer", "Pooling"),
        embedding_dim=dim,
        max_seq_length=limit.max_seq_length,
        prompts=prompts,
        default_prompt=default_prompt,
        weights_sha256=weights_sha256,
        tokenizer_sha256=hash_files(tokenizer_files),
        trust_remote_code=trust_remote_code,
        warnings=(*pooling_notes, *limit.warnings),
    )


def _ends_normalized(modules: tuple[ModuleFiles, ...]) -> bool:
    """Say whether nothing follows the normalization (dropout does nothing in evaluation)."""
    names = [module.name for module in modules if module.name != "Dropout"]
    return names[-1:] == ["Normalize"]


def _model_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise ModelError(
            f"{folder} has no config.json",
            why="so it is not a Transformers or Sentence Transformers model",
            hint="name the folder that save_pretrained() wrote",
        )
    config = read_json_object(path)
    if not config.get("model_type"):
        raise ModelError(f"{path} names no model_type", why="the architecture is unknown")
    return config


def _tokenizer_files(folder: Path) -> tuple[Path, ...]:
    if not present(folder, VOCABULARY_FILES):
        raise ModelError(
            f"{folder} has no tokenizer",
            why=f"none of {', '.join(VOCABULARY_FILES)} is there",
            hint="save the tokenizer into the same folder: tokenizer.save_pretrained(FOLDER)",
        )
    # The module's own settings (lower-casing, tokenizer arguments) change the tokens as well.
    settings = sentence_config_path(folder)
    return (*present(folder, TOKENIZER_FILES), *((settings,) if settings else ()))


def _weights(folder: Path, modules: tuple[ModuleFiles, ...]) -> list[Path]:
    files = list(weight_files(folder))
    for module in modules:
        if module.name in _MODULES_WITH_WEIGHTS:
            files.extend(weight_files(module.folder))
    return files


def _pooling(
    source: ModelSource, modules: tuple[ModuleFiles, ...], asked: str | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    wanted = parse_pooling(asked) if asked is not None else None
    if modules:
        own = pooling_modes(modules[1].settings, modules[1].folder / "config.json")
        if wanted not in (None, own):
            raise ConfigError(
                f"--pooling {asked} contradicts the model",
                why=f"{source.model_id} was trained with pooling {'+'.join(own)}",
                hint="leave --pooling away: it is for plain Transformers models",
            )
        return own, ()
    if wanted is not None:
        return wanted, ()
    return ("mean",), (
        f"{source.model_id} is a plain Transformers model and does not say how tokens become one "
        "vector: mean pooling is assumed (choose with --pooling)",
    )


def _hidden_size(folder: Path, config: dict[str, Any]) -> int:
    for key in _HIDDEN_SIZE_KEYS:
        if isinstance(config.get(key), int):
            return int(config[key])
    raise ModelError(
        f"{folder / 'config.json'} gives no hidden size",
        why=f"none of {', '.join(_HIDDEN_SIZE_KEYS)} is there",
    )


def _dimension(
    source: ModelSource,
    modules: tuple[ModuleFiles, ...],
    pooled_dim: int,
    settings: dict[str, Any],
) -> tuple[int, bool]:
    """Return the embedding's length and whether the model cuts it (Matryoshka `truncate_dim`)."""
    dim = embedding_dim(modules, pooled_dim)
    cut = settings.get("truncate_dim")
    if cut is None:
        return dim, False
    if not isinstance(cut, int) or not 0 < cut <= dim:
        raise ModelError(
            f"{source.directory / 'config_sentence_transformers.json'}: truncate_dim is {cut!r}",
            why=f"the embedding has {dim} dimensions",
        )
    return cut, cut < dim


def _prompts(
    source: ModelSource, settings: dict[str, Any], modules: tuple[ModuleFiles, ...]
) -> tuple[dict[str, str], str]:
    prompts = {k: v for k, v in (settings.get("prompts") or {}).items() if isinstance(v, str)}
    name = settings.get("default_prompt_name")
    path = source.directory / "config_sentence_transformers.json"
    if name is not None and name not in prompts:
        raise ModelError(
            f"{path}: default_prompt_name {name!r} is no prompt",
            why=f"prompts are {', '.join(prompts) or '(none)'}",
        )
    default = prompts.get(name, "") if name is not None else ""
    if default and modules[1].settings.get("include_prompt", True) is False:
        raise ModelError(
            f"{source.model_id} leaves its prompt {name!r} out of the pooling",
            why="a graph with input_ids and attention_mask does not know which tokens are prompt",
            hint="export with a model whose pooling includes the prompt",
        )
    return prompts, default
