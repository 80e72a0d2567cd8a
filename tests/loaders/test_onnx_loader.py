"""`SentenceTransformer(bundle, backend="onnx")` in sentence-transformers' own environment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from bundle_cases import Bundle, Case, copy_of, lowest_cosine, with_other_pooling, with_weights

from benchmarks.side_env import SideEnvironment
from targets.hashing import sha256_file

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.openvino, pytest.mark.model]

PROGRAM = Path(__file__).with_name("load_bundles.py")
MODEL_FILE = "onnx/model.onnx"
Answers = Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module")
def answers(
    onnxruntime_environment: SideEnvironment,
    bundle: Bundle,
    texts: tuple[str, ...],
    weights: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Answers:
    """Load the bundle as it is and wrong in several ways, in one process."""
    folder = tmp_path_factory.mktemp("cases")
    source = bundle.folder
    cpu = {"provider": "CPUExecutionProvider"}
    cases = {
        "as it is": Case(bundle=source, model_kwargs=cpu),
        "no graph": Case(
            bundle=copy_of(source, folder / "none", without=("onnx",)), model_kwargs=cpu
        ),
        "no graph, weights": Case(
            bundle=with_weights(source, folder / "fresh", weights, without=("onnx",)),
            model_kwargs=cpu,
        ),
        "other pooling": Case(
            bundle=with_other_pooling(source, folder / "pooling"), model_kwargs=cpu
        ),
    }
    request = {
        "backend": "onnx",
        "texts": texts,
        "cases": {name: case.to_json() for name, case in cases.items()},
    }
    found: Answers = onnxruntime_environment.run(PROGRAM, request)
    return found


def test_the_shipped_graph_is_what_is_loaded(answers, bundle):
    found = answers["as it is"]
    assert found["error"] is None
    assert found["path"] == MODEL_FILE
    assert found["sha256"] == sha256_file(bundle.folder / MODEL_FILE)
    assert found["outputs"] == ["last_hidden_state", "sentence_embedding"]


def test_it_reproduces_the_fp32_embeddings(answers, float_bundle):
    found = answers["as it is"]
    assert lowest_cosine(float_bundle.embeddings, found["embeddings"]) >= 0.999999


def test_modules_limit_and_tokens_are_ours(answers, bundle, tokens):
    found = answers["as it is"]
    assert found["modules"] == ["Transformer", "Pooling", "Normalize"]
    assert found["max_seq_length"] == bundle.report.model.max_seq_length
    assert found["input_ids"] == [text.tolist() for text in tokens]


def test_a_missing_graph_is_an_error_and_not_a_fresh_export(answers):
    assert "model.safetensors" in answers["no graph"]["error"]


def test_a_silent_fresh_export_is_found_out(answers):
    found = answers["no graph, weights"]
    assert found["error"] is None
    assert found["path"] is None
    assert found["outputs"] == ["last_hidden_state"]


def test_other_pooling_is_found_out(answers, float_bundle):
    found = answers["other pooling"]
    assert found["path"] == MODEL_FILE
    assert lowest_cosine(float_bundle.embeddings, found["embeddings"]) < 0.99
