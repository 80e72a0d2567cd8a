"""The PyTorch model that the FP32 graph was exported from, for targets that start from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceModel:
    """Where the source model's files lie on this machine.

    Args:
        weights: folder with the transformer's configuration and its safetensors files.
        sidecar: folder with everything that a Sentence Transformers model has besides: the
            configuration, tokenizer files, `modules.json` and a folder for each later module.
        trust_remote_code: whether the user trusts code that comes with the model.
    """

    weights: Path
    sidecar: Path
    trust_remote_code: bool = False
