"""What comes after the transformer, read from a Sentence Transformers folder for the runner.

Formats: Sentence Transformers 5 and 6 (`exporter.source.sidecar` writes what both read).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from targets.errors import CompileError

_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Booleans of Sentence Transformers up to 5, in the order in which results are concatenated."""
_PREFIXES = {"Dense": "linear", "LayerNorm": "norm"}
"""Module → where its parameters hang."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Steps from token states to the embedding.

    Args:
        steps: one JSON object for each, "kind" says which.
        tensors: weights of these steps by the names that the steps use.
    """

    steps: tuple[dict[str, Any], ...]
    tensors: dict[str, Any] = field(default_factory=dict)


def read_head(sidecar: Path, embedding_dim: int) -> Head:
    """Read every module behind the transformer.

    Args:
        sidecar: a Sentence Transformers folder; its transformer may lack its weights.
        embedding_dim: the embedding is cut to this length (Matryoshka models).

    Raises:
        CompileError: a module is unknown or damaged.
    """
    steps: list[dict[str, Any]] = []
    tensors: dict[str, Any] = {}
    try:
        modules = json.loads((sidecar / "modules.json").read_text("utf-8"))
        for number, module in enumerate(modules[1:], 1):
            steps += _step(number, str(module["type"]), sidecar / module["path"], tensors)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CompileError(
            "the modules behind the transformer cannot be read", why=repr(error)
        ) from error
    return Head(steps=(*steps, {"kind": "cut", "dim": embedding_dim}), tensors=tensors)


def _step(number: int, module: str, folder: Path, tensors: dict[str, Any]) -> list[dict[str, Any]]:
    name = module.rpartition(".")[2]
    settings = json.loads((folder / "config.json").read_text("utf-8"))
    if name == "Pooling":
        return [{"kind": "pooling", "modes": _modes(settings)}]
    if name == "Normalize":
        return [{"kind": "normalize"}]
    if name == "Dropout":
        return []
    if name not in _PREFIXES:
        raise ValueError(f"module {module} is unknown")
    names = _take_tensors(number, _PREFIXES[name], folder, tensors)
    activation = settings.get("activation_function", "torch.nn.modules.linear.Identity")
    extra = {"activation": activation.rpartition(".")[2]} if name == "Dense" else {}
    return [{"kind": name.lower(), **names, **extra}]


def _modes(settings: dict[str, Any]) -> list[str]:
    mode = settings.get("pooling_mode")
    if mode is not None:
        return [mode] if isinstance(mode, str) else [str(one) for one in mode]
    return [mode for key, mode in _POOLING.items() if settings.get(key)] or ["mean"]


def _take_tensors(
    number: int, prefix: str, folder: Path, tensors: dict[str, Any]
) -> dict[str, str | None]:
    from safetensors.torch import load_file

    stored = load_file(folder / "model.safetensors")
    found: dict[str, str | None] = {"bias": None}
    for part in ("weight", "bias"):
        if f"{prefix}.{part}" in stored:
            found[part] = f"{number}.{part}"
            tensors[f"{number}.{part}"] = stored[f"{prefix}.{part}"].float()
    if "weight" not in found:
        raise ValueError(f"{folder.name}/model.safetensors has no {prefix}.weight")
    return found
