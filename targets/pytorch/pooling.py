"""From the states of tokens to the embedding: what `runner.json` lists as the model's head.

Imports torch and safetensors only: the session adapter loads this file by its path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Head:
    """Pooling, dense layers, normalization: always in float32.

    Args:
        folder: has `head.safetensors` where a step has weights.
        steps: as the target wrote them.
        place: where the states are.
    """

    def __init__(self, folder: Path, steps: list[dict[str, Any]], place: str = "cpu") -> None:
        self._steps = steps
        path = folder / "head.safetensors"
        self._tensors: dict[str, Any] = {}
        if path.is_file():
            from safetensors.torch import load_file

            self._tensors = load_file(path, device=place)

    def __call__(self, states: Any, mask: Any) -> Any:  # noqa: ANN401 - tensors
        """Turn states [batch, length, hidden] into embeddings [batch, dim]."""
        found = states
        for step in self._steps:
            found = self._apply(step, found, mask)
        return found

    def _apply(self, step: dict[str, Any], rows: Any, mask: Any) -> Any:  # noqa: ANN401
        import torch
        from torch.nn import functional

        kind = step["kind"]
        if kind == "pooling":
            return torch.cat([_pool(mode, rows, mask) for mode in step["modes"]], dim=1)
        if kind == "normalize":
            return functional.normalize(rows, dim=1)
        if kind == "cut":
            return rows[:, : step["dim"]].contiguous()
        weight = self._tensors[step["weight"]]
        bias = None if step["bias"] is None else self._tensors[step["bias"]]
        if kind == "dense":
            activation = getattr(torch.nn, step["activation"])()
            return activation(functional.linear(rows, weight, bias))
        if kind == "layernorm":
            return functional.layer_norm(rows, weight.shape, weight, bias)
        raise ValueError(f"runner.json: step {kind!r} is unknown")


def _pool(mode: str, states: Any, mask: Any) -> Any:  # noqa: ANN401 - tensors
    """Pool states over the tokens of a text; the formulas of Sentence Transformers' Pooling."""
    import torch

    kept = mask.unsqueeze(-1).to(states.dtype)
    if mode == "cls":
        return states[:, 0]
    if mode == "max":
        return states.masked_fill(kept == 0, float("-inf")).max(dim=1).values
    if mode == "lasttoken":
        last = (mask.sum(dim=1) - 1).clamp(min=0)
        return states[torch.arange(len(states), device=states.device), last]
    if mode == "weightedmean":
        kept = kept * _positions(states)
    total, count = (states * kept).sum(dim=1), kept.sum(dim=1).clamp(min=1e-9)
    if mode == "mean_sqrt_len_tokens":
        return total / count.sqrt()
    if mode in ("mean", "weightedmean"):
        return total / count
    raise ValueError(f"runner.json: pooling mode {mode!r} is unknown")


def _positions(states: Any) -> Any:  # noqa: ANN401 - tensors
    """Count tokens from 1, shape [1, length, 1]."""
    import torch

    counted = torch.arange(1, states.shape[1] + 1, dtype=states.dtype, device=states.device)
    return counted.view(1, -1, 1)
