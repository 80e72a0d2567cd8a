"""`SentenceTransformer(bundle, backend="onnx", model_kwargs={"file_name": …})` for every name.

A wrong name makes the loader export FP32 anew with no more than a warning, so that every claim
here rests on the path and the hash of the file that its session holds.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_cases import Case, copy_of, lowest_cosine, with_weights
from onnx_artifacts import BUILDS, NAMES, Shipped

from benchmarks.side_env import SideEnvironment
from targets.contract import TokenSequences
from targets.hashing import sha256_file

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.openvino, pytest.mark.model]

PROGRAM = Path(__file__).with_name("load_bundles.py")
BUILD_NAMES = tuple(" ".join(build) for build in BUILDS)
GENERAL = "onnx/model_quantized.onnx"
TYPO = "model_quantised.onnx"
STATIC = "onnxruntime icelake-server int8-static"
MIN_COSINE = 0.9999
"""Of a text alone, in the same runtime: what its own threads and versions change."""
Answers = Mapping[str, Mapping[str, Any]]


def case_of(folder: Path, file_name: str, batch_size: int = 1) -> Case:
    options = {"provider": "CPUExecutionProvider", "file_name": file_name}
    return Case(bundle=folder, model_kwargs=options, batch_size=batch_size)


@pytest.fixture(scope="module")
def answers(
    onnxruntime_environment: SideEnvironment,
    shipped: dict[str, Shipped],
    few: tuple[tuple[str, ...], TokenSequences],
    weights: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Answers:
    """Load every file by every name of it, and wrong ones, in one process."""
    folder = tmp_path_factory.mktemp("cases")
    cases = {
        f"{build} {place}": case_of(one.folder, place)
        for build, one in shipped.items()
        for place in one.places
    }
    static = shipped[STATIC].folder
    cases["short name"] = case_of(static, Path(GENERAL).name)
    cases["in batches"] = case_of(static, GENERAL, batch_size=32)
    typo = with_weights(static, folder / "typo", weights, without=())
    cases["typo"] = case_of(static, TYPO)
    cases["typo, weights"] = case_of(typo, TYPO)
    cases["typo with its folder, weights"] = case_of(typo, f"onnx/{TYPO}")
    cases["impostor"] = case_of(with_impostor(static, folder / "impostor"), GENERAL)
    request = {
        "backend": "onnx",
        "texts": few[0],
        "cases": {name: case.to_json() for name, case in cases.items()},
    }
    found: Answers = onnxruntime_environment.run(PROGRAM, request)
    return found


def with_impostor(bundle: Path, folder: Path) -> Path:
    """Copy a bundle whose quantized file is the FP32 graph."""
    copy_of(bundle, folder, without=(Path(GENERAL).name,))
    shutil.copyfile(folder / "onnx" / "model.onnx", folder / GENERAL)
    return folder


def check_file(found: Mapping[str, Any], one: Shipped, place: str) -> None:
    """The session in memory was made from that very file."""
    assert found["error"] is None
    assert found["path"] == place
    assert found["sha256"] == one.sha256 == sha256_file(one.folder / place)
    assert found["outputs"] == ["last_hidden_state", "sentence_embedding"]


def test_every_name_is_among_them(shipped):
    assert {place for one in shipped.values() for place in one.places} == NAMES
    for build, one in shipped.items():
        float32 = sha256_file(one.folder / "onnx" / "model.onnx")
        assert one.sha256 != float32, f"{build} is the FP32 graph: its hash proves nothing"


@pytest.mark.parametrize("build", BUILD_NAMES)
def test_that_very_file_is_loaded(answers, shipped, build):
    for place in shipped[build].places:
        check_file(answers[f"{build} {place}"], shipped[build], place)


@pytest.mark.parametrize("build", BUILD_NAMES)
def test_it_reproduces_the_embeddings(answers, shipped, build):
    one = shipped[build]
    for place in one.places:
        cosine = lowest_cosine(one.embeddings, answers[f"{build} {place}"]["embeddings"])
        assert cosine >= MIN_COSINE, f"{place}: {cosine:.6f}"


def test_the_name_alone_finds_it_too(answers, shipped):
    check_file(answers["short name"], shipped[STATIC], GENERAL)


def test_static_int8_is_the_same_in_batches(answers, shipped):
    """What the report promises as stability, in the loader's own batches of 32."""
    check_file(answers["in batches"], shipped[STATIC], GENERAL)
    rows = answers["in batches"]["embeddings"]
    assert lowest_cosine(shipped[STATIC].embeddings, rows) >= MIN_COSINE


def test_quantized_files_are_not_float32_in_disguise(shipped):
    """The twin of reproducing: embeddings of these files are told apart by the same measure."""
    float32 = shipped["onnxruntime icelake-server float32"].embeddings
    for build, one in shipped.items():
        if one.recipe.quantizer != "none":
            assert lowest_cosine(one.embeddings, float32.tolist()) < MIN_COSINE, build


def test_a_wrong_name_is_an_error_where_there_are_no_weights(answers):
    assert "model.safetensors" in answers["typo"]["error"]


def test_a_wrong_name_with_its_folder_is_an_error_even_beside_weights(answers):
    """The loader then looks for the model's configuration in that folder."""
    assert "model_type" in answers["typo with its folder, weights"]["error"]


def test_a_silent_fresh_export_is_found_out(answers, shipped):
    """Beside weights the loader only warns; the proof fails, though embeddings come."""
    found = answers["typo, weights"]
    assert found["error"] is None
    assert np.isfinite(found["embeddings"]).all()
    with pytest.raises(AssertionError):
        check_file(found, shipped[STATIC], GENERAL)


def test_another_file_under_the_name_is_found_out(answers, shipped):
    found = answers["impostor"]
    assert found["path"] == GENERAL
    with pytest.raises(AssertionError):
        check_file(found, shipped[STATIC], GENERAL)
