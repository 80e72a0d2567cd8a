"""Model folders made of small files, complete as far as files go; no library is needed."""

import json
import struct
from pathlib import Path

BERT_CONFIG = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "hidden_size": 8,
    "vocab_size": 30,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}

OLD_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {
        "idx": 2,
        "name": "2",
        "path": "2_Normalize",
        "type": "sentence_transformers.models.Normalize",
    },
]

NEW_MODULES = [
    {
        "idx": 0,
        "name": "0",
        "path": "",
        "type": "sentence_transformers.base.modules.transformer.Transformer",
    },
    {
        "idx": 1,
        "name": "1",
        "path": "1_Pooling",
        "type": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    },
]

OLD_POOLING = {
    "word_embedding_dimension": 8,
    "pooling_mode_cls_token": False,
    "pooling_mode_mean_tokens": True,
    "pooling_mode_max_tokens": False,
    "pooling_mode_mean_sqrt_len_tokens": False,
}


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_safetensors(path: Path, values: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0)) -> None:
    data = struct.pack(f"<{len(values)}f", *values)
    header = {"w": {"dtype": "F32", "shape": [len(values)], "data_offsets": [0, len(data)]}}
    raw = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def plain_model(folder: Path, **config: object) -> Path:
    """A plain Transformers folder."""
    write_json(folder / "config.json", {**BERT_CONFIG, **config})
    write_json(folder / "tokenizer.json", {"model": {"type": "WordPiece"}})
    write_json(folder / "tokenizer_config.json", {"model_max_length": 48})
    write_safetensors(folder / "model.safetensors")
    return folder


def sentence_model(
    folder: Path,
    *,
    modules: list[dict[str, object]] | None = None,
    pooling: dict[str, object] | None = None,
    settings: dict[str, object] | None = None,
    **config: object,
) -> Path:
    """A Sentence Transformers folder."""
    plain_model(folder, **config)
    write_json(folder / "modules.json", OLD_MODULES if modules is None else modules)
    write_json(folder / "1_Pooling" / "config.json", OLD_POOLING if pooling is None else pooling)
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": 32, "do_lower_case": False} if settings is None else settings,
    )
    return folder
