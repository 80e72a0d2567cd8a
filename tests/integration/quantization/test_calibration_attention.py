"""Query, key and value of every attention in the calibration pass, padding left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from calibration_reference import assert_describes, onnx_values
from contract.tiny_graph import HIDDEN, PAD_ID, TinyGraph, make_tokens, write_tiny_graph

import exporter.optimize.calibration_graph as module
from exporter.optimize.calibrate import Corpus, PassSettings, calibrate
from exporter.optimize.calibration_batches import make_batches, read_windows
from exporter.optimize.calibration_graph import open_activations
from targets.errors import CalibrationError
from targets.quantization.statistics import StreamingStatistics

SETTINGS = PassSettings(
    gram=True, attention=True, max_batch_tokens=96, window_texts=16, num_threads=1
)
SELF = "encoder.layer.0.attention.self"
OPERANDS = {
    f"{SELF}/Transpose_output": f"{SELF}.query/Add_output",
    f"{SELF}/Transpose_1_output": f"{SELF}.key/Add_output",
    f"{SELF}/Transpose_2_output": f"{SELF}.value/Add_output",
}
"""What a product reads, and the linear layer's output with the same channels in a row."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyGraph:
    return write_tiny_graph(tmp_path_factory.mktemp("tiny"))


def corpus_of(texts) -> Corpus:
    return Corpus(texts=texts, pad_token_id=PAD_ID, tokenizer_sha256="t", sha256="c")


def test_operands_are_seen_as_in_every_text_alone(tiny):
    tokens = make_tokens(60)
    table = calibrate(tiny.artifact, corpus_of(tokens), SETTINGS)
    values = onnx_values(tiny.artifact.path, list(OPERANDS.values()), tokens)
    for operand, output in OPERANDS.items():
        assert_describes(table.tensors[operand], values[output], tolerance=1e-5, gram=False)
    assert len(table.tensors) == 8 + 6  # layers' inputs, and three operands of two attentions


def test_padding_that_is_not_masked_would_be_seen(tiny):
    tokens = make_tokens(60)
    session = open_activations(tiny.artifact, 1, attention=True)
    operands = [one for one in session.activations if one.in_attention]
    assert {one.num_channels for one in operands} == {HIDDEN}
    masked, unmasked = ([StreamingStatistics(HIDDEN) for _ in operands] for _ in "ab")
    for window in read_windows(tokens, 64, 16):
        for batch in make_batches(window, PAD_ID, 96):
            values = dict(
                zip([one.name for one in session.activations], session.run(batch), strict=True)
            )
            everything = replace(batch, is_token=np.ones_like(batch.is_token))
            for one, kept, all_rows in zip(operands, masked, unmasked, strict=True):
                kept.add(one.rows(values[one.name], batch))
                all_rows.add(one.rows(values[one.name], everything))
    for kept, all_rows in zip(masked, unmasked, strict=True):
        assert all_rows.count > kept.count == HIDDEN * int(tokens.lengths.sum())
        means = (all_rows.freeze().channel_mean, kept.freeze().channel_mean)
        assert not np.allclose(*means, atol=1e-4)


def test_whoever_does_not_ask_gets_the_same_table_as_ever(tiny):
    tokens = make_tokens(30)
    bare = calibrate(tiny.artifact, corpus_of(tokens), replace(SETTINGS, attention=False))
    asked = calibrate(tiny.artifact, corpus_of(tokens), SETTINGS)
    assert set(bare.tensors) == set(asked.tensors) - {
        name for name in asked.tensors if "Transpose" in name
    }
    for name, found in bare.tensors.items():
        np.testing.assert_array_equal(found.gram, asked.tensors[name].gram)
        assert found.count == asked.tensors[name].count
    assert len(open_activations(tiny.artifact, 1).activations) == 8


def test_an_operand_whose_tokens_lie_elsewhere_is_refused(tiny, monkeypatch):
    """Nobody could say which rows are padding."""
    wrong = {f"{SELF}/Transpose_output": (SELF, "texts, heads, size, tokens")}
    monkeypatch.setattr(module, "_attention_readers", lambda model: wrong)
    with pytest.raises(CalibrationError, match=f"attention {SELF} cannot be calibrated") as caught:
        open_activations(tiny.artifact, 1, attention=True)
    assert "[2, 4, 3, 8]" in caught.value.why
