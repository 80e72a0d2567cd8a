"""The tiny encoder as a Sentence Transformers folder: a BERT with the graph's own weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from targets.contract import SourceModel

HEADS, PAD_ID = 4, 0
MODULES = ("Transformer", "Pooling", "Normalize")


def write_tiny_source(folder: Path, weights: dict[str, np.ndarray]) -> SourceModel:
    """Write the model into `folder/weights`, what lies beside it into `folder/sidecar`.

    Args:
        folder: where to write.
        weights: of `tiny_graph`, by parameter name; linear weights are [in, out].
    """
    source = SourceModel(weights=folder / "weights", sidecar=folder / "sidecar")
    source.weights.mkdir(parents=True)
    source.sidecar.mkdir()
    hidden = weights["embeddings.LayerNorm.bias"].size
    for place in (source.weights, source.sidecar):
        _write(place / "config.json", _configuration(weights))
    stored = {
        name: value.T if _is_linear(name, value) else value for name, value in weights.items()
    }
    stored |= {
        "pooler.dense.weight": np.eye(hidden, dtype=np.float32),
        "pooler.dense.bias": np.zeros(hidden, np.float32),
    }
    stored = {name: np.ascontiguousarray(value) for name, value in stored.items()}
    save_file(stored, source.weights / "model.safetensors", metadata={"format": "pt"})
    paths = [f"{index}_{name}" if index else "" for index, name in enumerate(MODULES)]
    entries = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (path, name) in enumerate(zip(paths, MODULES, strict=True))
    ]
    _write(source.sidecar / "modules.json", entries)
    pooling = {"word_embedding_dimension": hidden, "pooling_mode_mean_tokens": True}
    _write(source.sidecar / "1_Pooling" / "config.json", pooling)
    _write(source.sidecar / "2_Normalize" / "config.json", {})
    return source


def _is_linear(name: str, value: np.ndarray) -> bool:
    """torch keeps linear weights as [out, in]; the graph has them as [in, out]."""
    return value.ndim == 2 and not name.startswith("embeddings.")


def _configuration(weights: dict[str, np.ndarray]) -> dict[str, object]:
    rows, hidden = weights["embeddings.word_embeddings.weight"].shape
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": hidden,
        "intermediate_size": weights["encoder.layer.0.intermediate.dense.bias"].size,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": len(weights["embeddings.position_embeddings.weight"]),
        "num_attention_heads": HEADS,
        "num_hidden_layers": sum(name.endswith("intermediate.dense.bias") for name in weights),
        "pad_token_id": PAD_ID,
        "type_vocab_size": 2,
        "vocab_size": rows,
    }


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), "utf-8")
