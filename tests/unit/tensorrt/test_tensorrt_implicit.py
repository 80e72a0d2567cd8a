"""TensorRT 10's implicit mode from a prepared int8 bundle: its graph without pairs, its cache.

TensorRT's part is played by the strict stand-in; the graphs are real, and run in ONNX Runtime.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from contract.tiny_graph import make_tokens, write_tiny_graph
from contract.tiny_plans import write_plans
from tensorrt_api import fake_cuda
from tensorrt_api.stand_in import StandIn, make_module

from targets.contract import CompiledArtifact, CompileRequest, FinishRequest, TokenSequences
from targets.errors import CalibrationError, ConfigError, DeviceError
from targets.tensorrt.calibration_cache import CalibrationCache
from targets.tensorrt.files import CACHE_FILE, ENGINE_FILE, PLAN_FILE, read_plan
from targets.tensorrt.recipes import INT8
from targets.tensorrt.target import TensorRtTarget
from targets.tensorrt.unquantized import without_pairs

TARGET = TensorRtTarget()
HARDWARE = TARGET.prepared_hardware(())
NAMES = ("input_ids", "attention_mask", "token_type_ids")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> CompiledArtifact:
    folder = tmp_path_factory.mktemp("prepared")
    graph, tokens = write_tiny_graph(folder).artifact, make_tokens(24)
    recipes = {one.name: one for one in TARGET.candidates(graph, HARDWARE)}
    plans = write_plans(folder / "plans.npz", graph, tokens, recipes[INT8].scheme)
    (folder / "int8").mkdir()
    request = CompileRequest(
        graph=graph,
        recipe=recipes[INT8],
        calibration=tokens,
        plans=plans,
        hardware=HARDWARE,
        output_dir=folder / "int8",
        num_threads=1,
        seed=0,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TensorRtTarget, "_compiled", lambda *_: [])  # RTX has tests of its own
        return TARGET.compile(request)


@pytest.fixture(scope="module")
def quantized(prepared) -> onnx.ModelProto:
    return onnx.load(prepared.directory / prepared.files[0].path)


def run(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    ids = np.random.default_rng(0).integers(5, 60, (4, 12))
    fed = dict(zip(NAMES, (ids, np.ones_like(ids), np.zeros_like(ids)), strict=True))
    return session.run(["sentence_embedding"], fed)[0]


# ------------------------------------------------------------------------------ the graph


def test_no_pair_is_left_and_the_values_are_nearly_the_same(quantized):
    plain = without_pairs(quantized)
    onnx.checker.check_model(plain)
    kinds = {node.op_type for node in plain.graph.node}
    assert not kinds & {"QuantizeLinear", "DequantizeLinear"}
    one, other = run(quantized), run(plain)
    assert (one * other).sum(1).min() > 0.995
    assert not np.array_equal(one, other)  # activations are no longer rounded
    assert {node.op_type for node in quantized.graph.node} & {"QuantizeLinear"}  # a copy


def test_weights_are_the_rounded_ones(quantized):
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in quantized.graph.initializer}
    plain = {
        t.name: onnx.numpy_helper.to_array(t) for t in without_pairs(quantized).graph.initializer
    }
    weights = [
        node
        for node in quantized.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in stored
    ]
    assert len(weights) == 12
    for node in weights:
        integers, scale = stored[node.input[0]], stored[node.input[1]]
        assert integers.dtype == np.int8
        assert integers.shape[1] == len(scale)
        wanted = (integers.astype(np.float32) * scale.astype(np.float32)).astype(scale.dtype)
        np.testing.assert_array_equal(plain[node.output[0]], wanted)
        assert node.input[0] not in plain


def test_the_cache_names_tensors_of_the_graph_without_pairs(prepared, quantized):
    cache = CalibrationCache.from_bytes((prepared.directory / CACHE_FILE).read_bytes())
    made = {name for node in without_pairs(quantized).graph.node for name in node.output}
    assert set(cache.scales) <= made


# ------------------------------------------------------------------- `exporter build` with it


@dataclass
class Seen:
    """What the stand-in was handed."""

    kinds: set[str]
    cache: bytes | None
    num_batches: int = 0


CHOSEN = b"TRT-101601-EntropyCalibration2\nx: 3f800000\n"
"""What the stand-in's calibrator "chooses"."""


def calibrate(calibrator: Any, seen: Seen) -> None:
    """Play TensorRT's part: scales from a cache, else batches until there are no more."""
    seen.cache = calibrator.read_calibration_cache()
    if seen.cache is None:
        while calibrator.get_batch(list(NAMES)) is not None:
            seen.num_batches += 1
        calibrator.write_calibration_cache(memoryview(CHOSEN))


def install(monkeypatch: pytest.MonkeyPatch, major: int) -> Seen:
    seen = Seen(kinds=set(), cache=None)
    made: StandIn

    def parse(_: Any, model: str) -> bool:
        seen.kinds = {node.op_type for node in onnx.load(model).graph.node}
        return True

    def get_input(_: Any, index: int) -> Any:
        tensor = made.new("ITensor")
        tensor.name = NAMES[index]
        return tensor

    def build(_: Any, network: Any, config: Any) -> Any:
        calls = made.called("IBuilderConfig.int8_calibrator") if major == 10 else []
        if calls:
            calibrate(calls[-1]["value"], seen)
        return made.new("IHostMemory")

    made = make_module(
        major,
        {
            "OnnxParser.parse_from_file": parse,
            "INetworkDefinition.num_inputs": len(NAMES),
            "INetworkDefinition.get_input": get_input,
            "Builder.build_serialized_network": build,
        },
    )
    monkeypatch.setitem(sys.modules, "tensorrt", made)
    return seen


def finish(
    prepared: CompiledArtifact,
    folder: Path,
    tokens: TokenSequences | None = None,
    **options: str,
) -> CompiledArtifact:
    request = FinishRequest(
        artifact=prepared,
        hardware=HARDWARE,
        output_dir=folder,
        num_threads=1,
        options=options,
        calibration=tokens,
    )
    return TARGET.finish(request)


def test_tensorrt_10_gets_the_float_graph_and_our_scales(prepared, tmp_path, monkeypatch):
    fake_cuda.install(monkeypatch)
    seen = install(monkeypatch, 10)
    before = (prepared.directory / CACHE_FILE).read_bytes()
    made = finish(prepared, tmp_path, calibrator="cache")
    assert "QuantizeLinear" not in seen.kinds
    assert seen.cache == before  # 10.16.1 is the stand-in's version, too
    assert (prepared.directory / CACHE_FILE).read_bytes() == before
    assert made.files[0].path == ENGINE_FILE
    assert '"calibrator": "cache"' in (tmp_path / PLAN_FILE).read_text()


@pytest.mark.parametrize("major", [10, 11])
def test_without_the_option_both_get_the_pairs(prepared, tmp_path, monkeypatch, major):
    seen = install(monkeypatch, major)
    finish(prepared, tmp_path)
    assert "QuantizeLinear" in seen.kinds
    assert seen.cache is None


def test_tensorrt_11_refuses_and_names_the_explicit_mode(prepared, tmp_path, monkeypatch):
    install(monkeypatch, 11)
    with pytest.raises(ConfigError, match=r"TensorRT 11\.4.* has no entropy calibrator") as caught:
        finish(prepared, tmp_path, calibrator="cache")
    assert "explicit mode" in caught.value.hint


def test_tensorrt_10_chooses_scales_from_texts_and_they_are_kept(prepared, tmp_path, monkeypatch):
    gpu, seen = fake_cuda.install(monkeypatch), install(monkeypatch, 10)
    tokens = make_tokens(24)
    made = finish(prepared, tmp_path, tokens, calibrator="tensorrt")
    assert "QuantizeLinear" not in seen.kinds
    assert seen.cache is None  # ours is not offered: it would calibrate nothing
    assert seen.num_batches == 3  # of the profile's typical eight
    assert gpu.device == {}
    assert [file.path for file in made.files] == [ENGINE_FILE, CACHE_FILE, PLAN_FILE]
    assert (tmp_path / CACHE_FILE).read_bytes() == CHOSEN
    assert (prepared.directory / CACHE_FILE).read_bytes() != CHOSEN
    plan = read_plan(tmp_path / PLAN_FILE)
    assert (plan.calibrator, plan.calibration_sha256) == ("tensorrt", tokens.sha256)


def test_a_recipe_without_int8_has_nothing_to_calibrate(prepared, tmp_path, monkeypatch):
    seen = install(monkeypatch, 10)
    kept = [file for file in prepared.directory.iterdir() if file.name != CACHE_FILE]
    for file in kept:  # as a float recipe is prepared: without a cache
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "out").mkdir()
    floats = replace(prepared, directory=tmp_path)
    made = finish(floats, tmp_path / "out", make_tokens(24), calibrator="tensorrt")
    assert seen.num_batches == 0
    assert CACHE_FILE not in [file.path for file in made.files]


def test_its_own_calibrator_needs_texts_and_enough_of_them(prepared, tmp_path, monkeypatch):
    fake_cuda.install(monkeypatch)
    install(monkeypatch, 10)
    with pytest.raises(ConfigError, match="no texts were given") as caught:
        finish(prepared, tmp_path, calibrator="tensorrt")
    assert "--calibrator tensorrt" in caught.value.hint
    with pytest.raises(CalibrationError, match="7 calibration texts fill no batch of 8"):
        finish(prepared, tmp_path, make_tokens(7), calibrator="tensorrt")


def test_tensorrt_11_has_no_calibrator_for_texts_either(prepared, tmp_path, monkeypatch):
    install(monkeypatch, 11)
    with pytest.raises(ConfigError, match=r"TensorRT 11\.4.* has no entropy calibrator") as caught:
        finish(prepared, tmp_path, make_tokens(24), calibrator="tensorrt")
    assert "explicit mode" in caught.value.hint
    assert not (tmp_path / ENGINE_FILE).exists()


def test_a_damaged_cache_is_an_error(prepared, tmp_path, monkeypatch):
    fake_cuda.install(monkeypatch)
    install(monkeypatch, 10)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in prepared.directory.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    (damaged / CACHE_FILE).write_bytes(b"TRT-101601-EntropyCalibration2\nx: 3f80\n")
    with pytest.raises(CalibrationError, match="line 2"):
        finish(replace(prepared, directory=damaged), tmp_path, calibrator="cache")


def test_no_gpu_is_an_error_of_the_device(prepared, tmp_path, monkeypatch):
    fake_cuda.install(monkeypatch, cudaSetDevice="cudaErrorNoDevice")
    install(monkeypatch, 10)
    with pytest.raises(DeviceError, match="no GPU to calibrate on"):
        finish(prepared, tmp_path, calibrator="cache")


def test_another_calibrator_is_refused(prepared, tmp_path):
    with pytest.raises(ConfigError, match="it must be none, cache or tensorrt"):
        finish(prepared, tmp_path, calibrator="minmax")
