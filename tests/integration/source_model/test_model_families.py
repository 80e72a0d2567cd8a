"""Every supported family, from its folder to an ONNX graph that agrees with PyTorch."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
from exported_model import Exported
from tiny_models import HIDDEN, MAX_LENGTH, TEXTS, Family

from exporter.source.parity import LEAST_COSINE, check_parity


def test_resolved(exported: Exported, family: Family) -> None:
    spec = exported.encoder.spec
    assert (spec.model_type, spec.pooling) == (family.name, family.pooling)
    assert (spec.embedding_dim, spec.max_seq_length, spec.normalize) == (HIDDEN, MAX_LENGTH, True)


def test_tokens_are_those_of_sentence_transformers(exported: Exported, family: Family) -> None:
    from sentence_transformers import SentenceTransformer

    assert exported.tokenizer.needs_transformers is not family.light_tokenizer
    with warnings.catch_warnings():
        # Deprecations inside Sentence Transformers' own loading.
        warnings.simplefilter("ignore")
        model = SentenceTransformer(str(exported.folder), device="cpu")
        for text, ours in zip(TEXTS, exported.tokens, strict=True):
            theirs = model.preprocess([text])["input_ids"][0].numpy()
            assert ours.tolist() == theirs.tolist(), text
    assert exported.tokens.pad_token_id == model.tokenizer.pad_token_id


def test_long_texts_are_cut_and_counted(exported: Exported) -> None:
    assert exported.tokens.num_truncated >= 1
    assert exported.tokens.lengths.max() == MAX_LENGTH


def test_embeddings_are_those_of_sentence_transformers(exported: Exported) -> None:
    from sentence_transformers import SentenceTransformer

    with warnings.catch_warnings():
        # Deprecations inside Sentence Transformers' own loading.
        warnings.simplefilter("ignore")
        model = SentenceTransformer(str(exported.folder), device="cpu")
        theirs = model.encode(list(TEXTS), show_progress_bar=False)
    ours = exported.encoder.embed(exported.tokens, max_tokens=100)
    assert np.abs(ours - theirs).max() < 1e-5


def test_graph_agrees_with_pytorch(exported: Exported) -> None:
    report = check_parity(exported.encoder, exported.artifact, exported.tokens)
    assert report.min_cosine >= LEAST_COSINE
    assert {(1, 1), (1, MAX_LENGTH), (8, MAX_LENGTH)} <= set(report.shapes)
    assert {size for size, _ in report.shapes} == set(range(1, 9))


def test_texts_differ(exported: Exported) -> None:
    """A graph that maps everything to one vector would pass parity."""
    rows = exported.encoder.embed(exported.tokens)
    cosines = rows @ rows.T
    assert cosines[~np.eye(len(rows), dtype=bool)].min() < 0.99


def test_signature(exported: Exported, family: Family) -> None:
    names = ["input_ids", "attention_mask"] + ["token_type_ids"] * family.token_type_ids
    assert [tensor.name for tensor in exported.artifact.inputs] == names
    for tensor in exported.artifact.inputs:
        assert (tensor.dtype, tensor.shape) == ("int64", ("batch_size", "sequence_length"))
    hidden, sentence = exported.artifact.outputs
    assert (hidden.name, sentence.name) == ("last_hidden_state", "sentence_embedding")
    assert hidden.shape == ("batch_size", "sequence_length", HIDDEN)
    assert sentence.shape == ("batch_size", HIDDEN)
    assert {hidden.dtype, sentence.dtype} == {"float32"}


@pytest.mark.parametrize("operation", ["MatMul", "Gather"])
def test_layers_carry_their_module_path(exported: Exported, operation: str) -> None:
    graph = onnx.load(str(exported.artifact.path)).graph
    modules = {name for name, _ in exported.encoder.transformer.named_modules()}
    nodes = [node for node in graph.node if node.op_type == operation]
    paths = {node.name.rpartition("/")[0] for node in nodes}
    linear = {
        name
        for name, module in exported.encoder.transformer.named_modules()
        if type(module).__name__ == {"MatMul": "Linear", "Gather": "Embedding"}[operation]
        and "pooler" not in name
    }
    assert linear <= paths
    assert paths - modules <= {"", "transformer", "pooling"}
    assert len({node.name for node in graph.node}) == len(graph.node)
