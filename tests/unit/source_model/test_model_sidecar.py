"""The small files of a bundle."""

import json
from pathlib import Path

import pytest
from model_folders import (
    NEW_MODULES,
    OLD_MODULES,
    plain_model,
    sentence_model,
    write_json,
    write_safetensors,
)

from exporter.source.resolve import resolve_encoder
from exporter.source.sidecar import copy_sidecar
from targets.errors import StorageError


def _bundle(model: Path, target: Path, **arguments: object) -> Path:
    copy_sidecar(resolve_encoder(str(model), **arguments), target)
    return target


def _json(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"))


def test_files_without_weights(tmp_path: Path) -> None:
    model = sentence_model(tmp_path / "model")
    (model / "pytorch_model.bin").write_bytes(b"a pickle")
    bundle = _bundle(model, tmp_path / "bundle")
    names = {str(p.relative_to(bundle)) for p in bundle.rglob("*") if p.is_file()}
    assert names == {
        "1_Pooling/config.json",
        "2_Normalize/config.json",
        "config.json",
        "config_sentence_transformers.json",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_version_6_settings_become_readable_for_version_5(tmp_path: Path) -> None:
    pooling = {"embedding_dimension": 8, "pooling_mode": "cls", "include_prompt": True}
    model = sentence_model(tmp_path / "model", modules=NEW_MODULES, pooling=pooling)
    bundle = _bundle(model, tmp_path / "bundle")
    assert [entry["type"] for entry in _json(bundle / "modules.json")] == [
        "sentence_transformers.models.Transformer",
        "sentence_transformers.models.Pooling",
    ]
    written = _json(bundle / "1_Pooling" / "config.json")
    assert written["pooling_mode_cls_token"] is True
    assert written["pooling_mode_mean_tokens"] is False
    assert written["word_embedding_dimension"] == 8
    assert _json(bundle / "sentence_bert_config.json") == {
        "max_seq_length": 32,
        "do_lower_case": False,
    }


def test_order_that_booleans_cannot_say(tmp_path: Path) -> None:
    model = sentence_model(tmp_path / "model", pooling={"pooling_mode": ["mean", "cls"]})
    bundle = _bundle(model, tmp_path / "bundle")
    assert _json(bundle / "1_Pooling" / "config.json")["pooling_mode"] == ["mean", "cls"]


def test_plain_model_gets_modules(tmp_path: Path) -> None:
    bundle = _bundle(plain_model(tmp_path / "model"), tmp_path / "bundle", pooling="cls")
    assert [entry["path"] for entry in _json(bundle / "modules.json")] == ["", "1_Pooling"]
    assert _json(bundle / "1_Pooling" / "config.json")["pooling_mode_cls_token"] is True


def test_bundle_resolves_to_the_same_encoder(tmp_path: Path) -> None:
    model = sentence_model(tmp_path / "model", pooling={"pooling_mode": ["max", "cls"]})
    bundle = _bundle(model, tmp_path / "bundle", max_seq_length=16)
    write_safetensors(bundle / "model.safetensors")
    before, after = resolve_encoder(str(model), max_seq_length=16), resolve_encoder(str(bundle))
    for name in ("pooling", "normalize", "modules", "embedding_dim", "max_seq_length"):
        assert getattr(after, name) == getattr(before, name), name


def test_loaders_without_sentence_settings_cut_texts_at_the_same_length(tmp_path: Path) -> None:
    model = sentence_model(tmp_path / "model")
    write_json(model / "tokenizer_config.json", {"model_max_length": 48, "unk_token": "[UNK]"})
    bundle = _bundle(model, tmp_path / "bundle", max_seq_length=16)
    written = _json(bundle / "tokenizer_config.json")
    assert written == {"model_max_length": 16, "unk_token": "[UNK]"}
    assert _json(model / "tokenizer_config.json")["model_max_length"] == 48, "the source stays"


def test_dense_keeps_its_weights(tmp_path: Path) -> None:
    dense = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    model = sentence_model(tmp_path / "model", modules=[*OLD_MODULES[:2], dense])
    settings = {"in_features": 8, "out_features": 4, "activation_function": "torch.nn.Identity"}
    write_json(model / "2_Dense" / "config.json", settings)
    write_safetensors(model / "2_Dense" / "model.safetensors")
    bundle = _bundle(model, tmp_path / "bundle")
    assert _json(bundle / "2_Dense" / "config.json") == settings
    assert (bundle / "2_Dense" / "model.safetensors").is_file()


def test_unwritable_bundle(tmp_path: Path) -> None:
    spec = resolve_encoder(str(sentence_model(tmp_path / "model")))
    blocker = tmp_path / "bundle"
    blocker.write_text("a file where the bundle should be")
    with pytest.raises(StorageError, match="cannot be written"):
        copy_sidecar(spec, blocker)
