"""`pipeline("feature-extraction", bundle)` of Transformers.js, on node, without a network.

Which file a dtype loads is proven by what is in it: another file in its place gives that file's
embeddings, and without it the loader fails by its name.

Texts beyond the limit are cut where ours are, but Transformers.js 4.3 drops their closing token.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from bundle_cases import Bundle, copy_of, lowest_cosine
from node_environment import NodeEnvironment, node_environment
from onnx_artifacts import Shipped

from targets.contract import TokenSequences

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.openvino, pytest.mark.model]

STATIC = "onnxruntime icelake-server int8-static"
FP32, QUANTIZED = "onnx/model.onnx", "onnx/model_quantized.onnx"
Answers = Mapping[str, Mapping[str, Any]]


@pytest.fixture(scope="module")
def environment() -> NodeEnvironment:
    return node_environment()


@pytest.fixture(scope="module")
def answers(
    environment: NodeEnvironment,
    shipped: dict[str, Shipped],
    few: tuple[tuple[str, ...], TokenSequences],
    tmp_path_factory: pytest.TempPathFactory,
) -> Answers:
    folder = tmp_path_factory.mktemp("node")
    source = shipped[STATIC].folder
    swapped = copy_of(source, folder / "swapped", without=("model_quantized.onnx",))
    shutil.copyfile(source / FP32, swapped / QUANTIZED)
    without = copy_of(source, folder / "without", without=("model_quantized.onnx",))
    cases = {
        "fp32": {"bundle": str(source), "dtype": "fp32"},
        "q8": {"bundle": str(source), "dtype": "q8"},
        "q8, FP32 in its place": {"bundle": str(swapped), "dtype": "q8"},
        "q8, nothing in its place": {"bundle": str(without), "dtype": "q8"},
    }
    found: Answers = environment.run({"texts": few[0], "cases": cases})
    return found


def whole(few, limit: int) -> list[int]:
    """Texts that nothing is cut from."""
    return [index for index, length in enumerate(few[1].lengths) if length < limit]


def rows(found: Mapping[str, Any], kept: list[int]) -> list[list[float]]:
    return [found["embeddings"][index] for index in kept]


def test_fp32_is_the_model(answers, float_bundle: Bundle, few) -> None:
    found = answers["fp32"]
    assert found["error"] is None
    assert found["outputs"] == ["last_hidden_state", "sentence_embedding"]
    ours = float_bundle.embeddings[-len(few[0]) :]
    kept = whole(few, float_bundle.report.model.max_seq_length)
    assert 0 < len(kept) < len(ours), "there are texts of both kinds"
    assert lowest_cosine(ours[kept], rows(found, kept)) >= 0.99999
    assert lowest_cosine(ours, found["embeddings"]) >= 0.99


def test_q8_is_the_quantized_artifact(answers, shipped, float_bundle: Bundle, few) -> None:
    found = answers["q8"]
    assert found["error"] is None
    kept = whole(few, float_bundle.report.model.max_seq_length)
    assert lowest_cosine(shipped[STATIC].embeddings[kept], rows(found, kept)) >= 0.99
    # the twin: it is not FP32 that was loaded
    assert lowest_cosine(np.asarray(answers["fp32"]["embeddings"]), found["embeddings"]) < 0.9999


def test_another_file_in_its_place_is_found_out(answers) -> None:
    swapped, fp32 = (answers[name]["embeddings"] for name in ("q8, FP32 in its place", "fp32"))
    assert lowest_cosine(np.asarray(fp32), swapped) >= 0.999999


def test_a_missing_file_is_an_error_by_name(answers) -> None:
    assert QUANTIZED in answers["q8, nothing in its place"]["error"]
