"""The real all-MiniLM-L6-v2."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from tiny_models import TEXTS

from exporter.source.encoder import LoadedEncoder, load_encoder
from exporter.source.onnx_export import export_onnx
from exporter.source.parity import check_parity
from exporter.source.resolve import resolve_encoder
from exporter.source.self_check import PROBE_TEXTS
from exporter.source.tokenizer import load_tokenizer

pytestmark = pytest.mark.model

ODD_TEXTS = (*TEXTS, *PROBE_TEXTS, "word " * 1000, "한국어 テキスト ภาษาไทย", "a" * 300, "\r\n\t")


@pytest.fixture(scope="module")
def encoder(minilm_dir: Path) -> LoadedEncoder:
    return load_encoder(resolve_encoder(None))


def test_tokens(encoder: LoadedEncoder, minilm_dir: Path) -> None:
    from sentence_transformers import SentenceTransformer

    tokenizer = load_tokenizer(encoder.spec)
    assert not tokenizer.needs_transformers
    tokens = tokenizer.encode(ODD_TEXTS)
    with warnings.catch_warnings():
        # Deprecations inside Sentence Transformers' own loading.
        warnings.simplefilter("ignore")
        model = SentenceTransformer(str(minilm_dir), device="cpu")
        for text, ours in zip(ODD_TEXTS, tokens, strict=True):
            theirs = model.preprocess([text])["input_ids"][0].numpy()
            assert ours.tolist() == theirs.tolist(), text
        expected = model.encode(list(ODD_TEXTS), show_progress_bar=False)
    assert (tokens.pad_token_id, tokens.num_truncated) == (0, 1)
    assert np.abs(encoder.embed(tokens) - expected).max() < 1e-6


def test_graph(encoder: LoadedEncoder, tmp_path: Path) -> None:
    artifact = export_onnx(encoder, tmp_path)
    assert (artifact.embedding_dim, artifact.pooling, artifact.normalized) == (384, "mean", True)
    assert len(artifact.inputs) == 3
    tokens = load_tokenizer(encoder.spec).encode(ODD_TEXTS)
    report = check_parity(encoder, artifact, tokens)
    assert report.min_cosine > 0.999999
    assert report.max_abs_difference < 1e-6
    assert (8, 256) in report.shapes
