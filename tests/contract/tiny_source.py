"""The tiny encoder as a Sentence Transformers folder: a BERT with the graph's own weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tiny_graph import FFN, HEADS, HIDDEN, LAYERS, LINEAR_PATHS, MAX_LENGTH, PAD_ID, ROWS, Weights

from targets.contract import SourceModel

CONFIG = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": HIDDEN,
    "intermediate_size": FFN,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": MAX_LENGTH,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "pad_token_id": PAD_ID,
    "type_vocab_size": 2,
    "vocab_size": ROWS,
}
MODULES = ("Transformer", "Pooling", "Normalize")


def write_tiny_source(folder: Path, weights: Weights) -> SourceModel:
    """Write the model into `folder/weights`, what lies beside it into `folder/sidecar`."""
    source = SourceModel(weights=folder / "weights", sidecar=folder / "sidecar")
    source.weights.mkdir(parents=True)
    source.sidecar.mkdir()
    for place in (source.weights, source.sidecar):
        _write(place / "config.json", CONFIG)
    # torch keeps linear weights as [out, in]; the graph has them as [in, out]
    turned = {f"{path}.weight" for path in LINEAR_PATHS}
    stored = {name: value.T if name in turned else value for name, value in weights.items()}
    stored |= {
        "pooler.dense.weight": np.eye(HIDDEN, dtype=np.float32),
        "pooler.dense.bias": np.zeros(HIDDEN, np.float32),
    }
    stored = {name: np.ascontiguousarray(value) for name, value in stored.items()}
    save_file(stored, source.weights / "model.safetensors", metadata={"format": "pt"})
    paths = [f"{index}_{name}" if index else "" for index, name in enumerate(MODULES)]
    described = zip(paths, MODULES, strict=True)
    entries = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (path, name) in enumerate(described)
    ]
    _write(source.sidecar / "modules.json", entries)
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True}
    _write(source.sidecar / "1_Pooling" / "config.json", pooling)
    _write(source.sidecar / "2_Normalize" / "config.json", {})
    return source


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), "utf-8")
