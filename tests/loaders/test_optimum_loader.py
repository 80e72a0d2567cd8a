"""`ORTModelForFeatureExtraction` and `OVModelForFeatureExtraction` of Optimum, on their own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_cases import Bundle, copy_of, lowest_cosine
from onnx_artifacts import Shipped

from benchmarks.side_env import SideEnvironment
from targets.contract import TokenSequences
from targets.hashing import sha256_file

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.openvino, pytest.mark.model]

PROGRAM = Path(__file__).with_name("load_with_optimum.py")
STATIC = "onnxruntime icelake-server int8-static"
FP32, QUANTIZED, IR = (
    "onnx/model.onnx",
    "onnx/model_quantized.onnx",
    "openvino/openvino_model.xml",
)
Few = tuple[tuple[str, ...], TokenSequences]


def ask(
    environment: SideEnvironment, backend: str, few: Few, limit: int, cases: Mapping[str, Any]
) -> Mapping[str, Any]:
    request = {"backend": backend, "texts": few[0], "max_length": limit, "cases": cases}
    found: Mapping[str, Any] = environment.run(PROGRAM, request)
    return found


@pytest.fixture(scope="module")
def with_onnx(
    onnxruntime_environment: SideEnvironment, shipped: dict[str, Shipped], bundle: Bundle, few: Few
) -> Mapping[str, Any]:
    folder = str(shipped[STATIC].folder)
    cases = {
        "fp32": {"bundle": folder, "file": FP32},
        "int8": {"bundle": folder, "file": QUANTIZED},
        "absent": {"bundle": folder, "file": "onnx/model_absent.onnx"},
    }
    limit = bundle.report.model.max_seq_length
    return ask(onnxruntime_environment, "onnx", few, limit, cases)


@pytest.mark.parametrize(("name", "file"), [("fp32", FP32), ("int8", QUANTIZED)])
def test_ort_model_loads_the_file_that_was_named(with_onnx, shipped, name, file):
    found = with_onnx[name]
    assert found["error"] is None
    assert found["path"] == file
    assert found["sha256"] == sha256_file(shipped[STATIC].folder / file)


def test_ort_model_reproduces_our_embeddings(with_onnx, shipped, float_bundle, few):
    fp32, int8 = (with_onnx[name]["embeddings"] for name in ("fp32", "int8"))
    assert lowest_cosine(float_bundle.embeddings[-len(few[0]) :], fp32) >= 0.99999
    assert lowest_cosine(shipped[STATIC].embeddings, int8) >= 0.999
    assert lowest_cosine(np.asarray(fp32), int8) < 0.9999, "the twin: they are two models"


def test_ort_model_names_a_file_that_is_not_there(with_onnx):
    assert "model_absent.onnx" in with_onnx["absent"]["error"]


@pytest.fixture(scope="module")
def with_openvino(
    openvino_environment: SideEnvironment, float_bundle: Bundle, few: Few, tmp_path_factory
) -> Mapping[str, Any]:
    source = float_bundle.folder
    without = copy_of(source, tmp_path_factory.mktemp("ov") / "without", without=("openvino",))
    cases = {
        "as it is": {"bundle": str(source), "file": IR},
        "no IR": {"bundle": str(without), "file": IR},
    }
    limit = float_bundle.report.model.max_seq_length
    return ask(openvino_environment, "openvino", few, limit, cases)


def test_ov_model_loads_our_ir_and_reproduces_our_embeddings(with_openvino, float_bundle, few):
    found = with_openvino["as it is"]
    assert found["error"] is None
    assert IR in found["same_content"]
    ours = float_bundle.embeddings[-len(few[0]) :]
    assert lowest_cosine(ours, found["embeddings"]) >= 0.999
    shuffled = np.roll(np.asarray(found["embeddings"]), 1, axis=0)
    assert lowest_cosine(ours, shuffled.tolist()) < 0.9, "the twin: other texts"


def test_ov_model_without_the_ir_is_no_answer(with_openvino):
    assert with_openvino["no IR"]["error"] is not None
