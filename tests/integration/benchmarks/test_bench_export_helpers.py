"""The peers' real export helpers in their own environment, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from tiny_models import BERT, HIDDEN, MAX_LENGTH, TEXTS, build

from benchmarks.adapters.hidden_state_session import open_session
from benchmarks.contenders import BASELINE, Brief, Contender
from benchmarks.line_ups import LINE_UPS
from exporter.config import Settings
from exporter.pipeline import open_workspace
from exporter.progress import SilentReporter
from exporter.source.encoder import load_encoder, pad_batch
from exporter.source.resolve import resolve_encoder
from exporter.source.tokenizer import load_tokenizer
from targets.contract import FloatArray, TokenSequences

pytestmark = [pytest.mark.network, pytest.mark.slow]

INT8 = ("st-onnx-avx2", "st-onnx-avx512")
OPTIMIZED = ("st-onnx-O1", "st-onnx-O2", "st-onnx-O3")


def in_the_hub_s_words(folder: Path) -> Path:
    """Write the three settings as models on the hub have them, which every version reads."""
    types = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(types.items())
    ]
    pooling = {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True}
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": MAX_LENGTH}))
    return folder


@pytest.fixture(scope="module")
def brief(tmp_path_factory) -> Brief:
    folder = in_the_hub_s_words(build(BERT, tmp_path_factory.mktemp("tiny")))
    spec = resolve_encoder(str(folder))
    pad_token_id = load_tokenizer(spec).encode(TEXTS).pad_token_id
    return Brief(spec=spec, pad_token_id=pad_token_id, calibration=())


@pytest.fixture(scope="module")
def tokens(brief) -> TokenSequences:
    return load_tokenizer(brief.spec).encode(TEXTS)


@pytest.fixture(scope="module")
def peers(brief, tmp_path_factory) -> dict[str, Contender]:
    settings = Settings(target=("onnxruntime",), cache=tmp_path_factory.mktemp("cache"))
    with open_workspace(settings, SilentReporter()) as work:
        made = LINE_UPS["onnxruntime"].peers(work, brief)
    return {peer.name: peer for peer in made}


@pytest.fixture(scope="module")
def drift(peers, brief, tokens) -> dict[str, float]:
    """Largest difference of any component from PyTorch's FP32 embeddings, by peer.

    The adapter is called here: the runner's first call takes ids that the tiny model lacks.
    """
    expected: FloatArray = load_encoder(brief.spec).embed(tokens)
    input_ids, attention_mask = pad_batch(tokens, np.arange(len(tokens)))
    inputs = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "token_type_ids": np.zeros_like(input_ids),
    }
    plan = SimpleNamespace(num_threads=1)
    return {
        name: float(np.abs(open_session(peer.plan.model, plan).run(inputs) - expected).max())
        for name, peer in peers.items()
    }


def op_types(path: Path) -> set[str]:
    return {node.op_type for node in onnx.load(path).graph.node}


def test_everybody_takes_part(peers):
    assert set(peers) == {BASELINE, *INT8, *OPTIMIZED}
    assert "avx512_vnni" in peers["st-onnx-avx512"].title
    assert peers[BASELINE].versions["optimum-onnx"] == "0.1.0"


def test_float_graphs_are_pytorch_s_own_embeddings(drift):
    for name in (BASELINE, "st-onnx-O1", "st-onnx-O2"):
        assert drift[name] < 1e-5
    # O3 approximates GELU.
    assert drift["st-onnx-O3"] < 1e-2


def test_int8_is_what_its_helper_makes_of_the_graph(peers, drift):
    for name in INT8:
        assert "MatMulInteger" in op_types(peers[name].plan.model)
        assert 1e-4 < drift[name] < 0.5
    for name in (BASELINE, *OPTIMIZED):
        assert "MatMulInteger" not in op_types(peers[name].plan.model)


def test_levels_are_what_their_names_say(peers):
    fused = {name: op_types(peers[name].plan.model) for name in (BASELINE, *OPTIMIZED)}
    assert "SkipLayerNormalization" not in fused[BASELINE] | fused["st-onnx-O1"]
    assert "Constant" in fused[BASELINE] - fused["st-onnx-O1"]
    assert "SkipLayerNormalization" in fused["st-onnx-O2"] & fused["st-onnx-O3"]
    assert "FastGelu" in fused["st-onnx-O3"] - fused["st-onnx-O2"]
