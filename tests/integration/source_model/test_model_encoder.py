"""Loading and embedding in PyTorch: pooling, modules, prompts, refusals."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from exported_model import Exported
from tiny_models import BERT, HIDDEN, TEXTS

from exporter.source.encoder import load_encoder
from exporter.source.modules import POOLING_MODES
from exporter.source.parity import LEAST_COSINE, check_parity
from exporter.source.quiet import quiet
from exporter.source.resolve import resolve_encoder
from exporter.source.self_check import check_against_sentence_transformers
from exporter.source.sidecar import copy_sidecar
from exporter.source.tokenizer import load_tokenizer
from exporter.source.torch_module import build_module
from targets.contract import TokenSequences
from targets.errors import ModelError, NonFiniteError, TextsError

MakeModel = Callable[..., Path]


def _encode_with_sentence_transformers(folder: Path) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    with warnings.catch_warnings():
        # Deprecations inside Sentence Transformers' own loading.
        warnings.simplefilter("ignore")
        model = SentenceTransformer(str(folder), device="cpu")
        return np.asarray(model.encode(list(TEXTS), show_progress_bar=False))


@pytest.mark.parametrize("mode", POOLING_MODES)
def test_every_pooling_mode(bert: Exported, mode: str) -> None:
    """One module's pooling after the other, against Sentence Transformers with the same."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    with warnings.catch_warnings():
        # Deprecations inside Sentence Transformers' own loading.
        warnings.simplefilter("ignore")
        model = SentenceTransformer(str(bert.folder), device="cpu")
        model[1] = Pooling(HIDDEN, mode)
        theirs = model.encode(list(TEXTS), show_progress_bar=False)
    module = build_module([bert.encoder.module.chain[0], *list(model)[1:]], HIDDEN)
    ours = replace(bert.encoder, module=module).embed(bert.tokens, max_tokens=90)
    assert np.abs(ours - theirs).max() < 1e-5


def test_all_modes_concatenated_in_one_graph(
    bert: Exported, tmp_path: Path, export: Callable[[Path], Exported]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bert.folder, folder)
    modes = list(reversed(POOLING_MODES))
    settings = {"embedding_dimension": HIDDEN, "pooling_mode": modes}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    exported = export(folder)
    assert exported.encoder.spec.pooling == "+".join(modes)
    assert exported.artifact.embedding_dim == HIDDEN * len(modes)
    ours = exported.encoder.embed(exported.tokens)
    assert np.abs(ours - _encode_with_sentence_transformers(folder)).max() < 1e-5
    report = check_parity(exported.encoder, exported.artifact, exported.tokens)
    assert report.min_cosine >= LEAST_COSINE


def test_dense_prompt_and_lower_case(
    make_model: MakeModel, export: Callable[[Path], Exported]
) -> None:
    folder = make_model(
        BERT,
        dense=12,
        lower_case=True,
        prompts={"query": "Find: ", "document": ""},
        default_prompt_name="query",
    )
    exported = export(folder)
    spec = exported.encoder.spec
    assert (spec.modules[2], spec.embedding_dim, spec.default_prompt) == ("Dense", 12, "Find: ")
    ours = exported.encoder.embed(exported.tokens)
    assert np.abs(ours - _encode_with_sentence_transformers(folder)).max() < 1e-5
    report = check_parity(exported.encoder, exported.artifact, exported.tokens)
    assert report.min_cosine >= LEAST_COSINE


def test_truncated_dimensions(bert: Exported, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bert.folder, folder)
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "truncate_dim": 10}))
    encoder = load_encoder(resolve_encoder(str(folder)))
    ours = encoder.embed(bert.tokens)
    assert ours.shape == (len(TEXTS), 10)
    assert np.abs(ours - _encode_with_sentence_transformers(folder)).max() < 1e-5


def test_plain_transformers_model_and_its_bundle(bert: Exported, tmp_path: Path) -> None:
    plain = bert.folder.parent / "plain"
    spec = resolve_encoder(str(plain), max_seq_length=20)
    encoder = load_encoder(spec)
    tokens = load_tokenizer(spec).encode(TEXTS)
    ours = encoder.embed(tokens)
    assert (spec.library, spec.pooling) == ("transformers", "mean")
    assert tokens.lengths.max() == 20
    copy_sidecar(spec, tmp_path)
    shutil.copyfile(plain / "model.safetensors", tmp_path / "model.safetensors")
    assert np.abs(ours - _encode_with_sentence_transformers(tmp_path)).max() < 1e-5


def test_rows_keep_their_order_whatever_the_batches(bert: Exported) -> None:
    together = bert.encoder.embed(bert.tokens, max_tokens=10_000)
    seen: list[int] = []
    alone = bert.encoder.embed(bert.tokens, max_tokens=1, progress=lambda n, _=None: seen.append(n))
    assert np.abs(together - alone).max() < 1e-5
    assert seen == list(range(1, len(TEXTS) + 1))


def test_no_texts(bert: Exported) -> None:
    assert bert.encoder.embed(bert.tokens.select([])).shape == (0, HIDDEN)
    assert len(bert.tokenizer.encode([])) == 0


def test_non_finite_embedding_names_the_text(make_model: MakeModel) -> None:
    import torch

    encoder = load_encoder(resolve_encoder(str(make_model(BERT))))
    with torch.no_grad():
        encoder.transformer.embeddings.word_embeddings.weight[7] = float("nan")
    tokens = TokenSequences.from_lists([[2, 5, 3], [2, 7, 3]], 0)
    with pytest.raises(NonFiniteError, match="text 1"):
        encoder.embed(tokens)


def test_lone_surrogate(bert: Exported) -> None:
    with pytest.raises(TextsError, match="text 1 is not valid Unicode"):
        bert.tokenizer.encode(["fine", "broken \ud800"])


def test_missing_weight_is_refused(bert: Exported, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(bert.folder, folder)
    weights = load_file(folder / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    save_file({k: v for k, v in weights.items() if k != name}, folder / "model.safetensors")
    with pytest.raises(ModelError, match="incomplete") as caught:
        load_encoder(resolve_encoder(str(folder)))
    assert "output.dense.weight" in caught.value.why


def test_missing_pooler_is_harmless(bert: Exported, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(bert.folder, folder)
    weights = load_file(folder / "model.safetensors")
    kept = {k: v for k, v in weights.items() if not k.startswith("pooler")}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors")
    rows = load_encoder(resolve_encoder(str(folder))).embed(bert.tokens)
    assert np.array_equal(rows, bert.encoder.embed(bert.tokens))


def test_weights_of_another_shape_are_refused(bert: Exported, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bert.folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 50}))
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_encoder(resolve_encoder(str(folder)))


def test_damaged_tokenizer_is_refused(bert: Exported, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bert.folder, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = None
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match="tokenizer"):
        load_tokenizer(resolve_encoder(str(folder)))


def test_changed_tokenizer_settings_fall_back_to_transformers(
    bert: Exported, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(bert.folder, folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_lower_case": False}))
    tokenizer = load_tokenizer(resolve_encoder(str(folder)))
    assert tokenizer.needs_transformers
    assert (
        tokenizer.encode(["The Fox"])[0].tolist() != bert.tokenizer.encode(["The Fox"])[0].tolist()
    )
    load_encoder(resolve_encoder(str(folder)))


def test_slow_tokenizer(bert: Exported, tmp_path: Path) -> None:
    """A tokenizer written in Python, of which Transformers has no fast version."""
    folder = tmp_path / "model"
    shutil.copytree(bert.folder, folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    words = ["the", "quick", "brown", "fox", "sh@@", "ort", "a"]
    (folder / "vocab.txt").write_text("".join(f"{word} 1\n" for word in words))
    (folder / "bpe.codes").write_text("#version: 0.2\nt h 5\nth e</w> 4\no r 3\nor t</w> 2\n")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "tokenizer_class": "PhobertTokenizer"})
    )
    spec = resolve_encoder(str(folder), max_seq_length=5)
    tokenizer = load_tokenizer(spec)
    tokens = tokenizer.encode(["the short fox", "the a the a the a"])
    assert tokenizer.needs_transformers
    assert (tokens.num_truncated, tokens.lengths.max()) == (2, 5)
    load_encoder(spec)


def test_classifier_checkpoint_is_said_aloud(bert: Exported, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(bert.folder.parent / "plain", plain)
    config = json.loads((plain / "config.json").read_text())
    changed = {**config, "architectures": ["BertForSequenceClassification"]}
    (plain / "config.json").write_text(json.dumps(changed))
    warnings_said = load_encoder(resolve_encoder(str(plain), pooling="mean")).warnings
    assert any("text-classification" in warning for warning in warnings_said)
    assert bert.encoder.warnings == ()


def _self_check(bert: Exported, **changes: object) -> None:
    from sentence_transformers import SentenceTransformer

    with warnings.catch_warnings():
        # Deprecations inside Sentence Transformers' own loading.
        warnings.simplefilter("ignore")
        model = SentenceTransformer(str(bert.folder), device="cpu")
    spec = replace(bert.encoder.spec, **changes)
    check_against_sentence_transformers(bert.encoder.embed, spec, model)


def test_self_check_passes_and_sees_other_tokens_and_embeddings(bert: Exported) -> None:
    _self_check(bert)
    with pytest.raises(ModelError, match="our tokens of"):
        _self_check(bert, max_seq_length=12)
    with pytest.raises(ModelError, match="our embeddings are not"):
        _self_check(bert, default_prompt="Find: ")


def test_loggers_and_warnings_are_given_back() -> None:
    logger = logging.getLogger("transformers")
    before = (logger.handlers, logger.level, logger.propagate, warnings.filters[:])
    with quiet() as messages:
        logger.warning("kept")
        warnings.warn("swallowed", UserWarning, stacklevel=1)
    assert messages == ["kept"]
    assert before == (logger.handlers, logger.level, logger.propagate, warnings.filters[:])


def test_loading_and_embedding_are_silent(
    bert: Exported, capfd: pytest.CaptureFixture[str]
) -> None:
    encoder = load_encoder(resolve_encoder(str(bert.folder)))
    encoder.embed(bert.tokens)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_ordinary_tokens_are_those_that_texts_have(bert: Exported) -> None:
    ids = {int(one) for one in bert.encoder.ordinary_token_ids()}
    tokenizer = bert.encoder.text_decoder
    special = set(tokenizer.all_special_ids)
    words = {int(one) for text in TEXTS for one in tokenizer(text)["input_ids"]}
    assert words - special <= ids
    assert special and not special & ids


def test_places_that_were_kept_free_are_no_ordinary_tokens(bert: Exported) -> None:
    """A stand-in for a tokenizer: the models built here keep no places free."""

    class Vocabulary:
        all_special_ids = (0, 1)

        def get_vocab(self) -> dict[str, int]:
            free = {"[unused7]": 2, "<extra_id_0>": 3, "beyond the table": 10**6}
            return {"[PAD]": 0, "[CLS]": 1, **free, "word": 4, "[": 5, "<": 6}

    encoder = replace(bert.encoder, text_decoder=Vocabulary())
    assert list(encoder.ordinary_token_ids()) == [4, 5, 6]
