"""The second step of the target, on stand-ins for TensorRT 10 and 11: nothing is compiled."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tensorrt_api.stand_in import VERSIONS, StandIn, make_module

from targets.artifacts import artifact_file
from targets.contract import CompiledArtifact, FinishRequest, OnnxArtifact, TensorSpec
from targets.errors import CompileError, ConfigError, NotInstalledError
from targets.hardware import nvidia
from targets.tensorrt import finishing, gpu_hardware
from targets.tensorrt import target as module
from targets.tensorrt.build_plan import BuildPlan, Profile
from targets.tensorrt.engine import Engine
from targets.tensorrt.files import ASKED_FILE, ENGINE_FILE, PLAN_FILE, STRUCTURE_FILE, read_plan
from targets.tensorrt.plan_header import parse_version
from targets.tensorrt.running import SESSION
from targets.tensorrt.target import TensorRtTarget

INPUTS = ("input_ids", "attention_mask")
PLAN = BuildPlan(
    graph="model_int8.onnx",
    inputs=INPUTS,
    profiles=(Profile(smallest=(1, 1), typical=(8, 16), largest=(64, 32)),),
    compute_capabilities=("8.9",),
)
TARGET = TensorRtTarget()
HARDWARE = replace(TARGET.prepared_hardware(("9.0",)), model_name="NVIDIA H100")
RECIPE = {one.name: one for one in TARGET.candidates(None, HARDWARE)}["int8"]
GRAPH = OnnxArtifact(
    path=Path("model.onnx"),
    sha256="0" * 64,
    opset=20,
    inputs=tuple(TensorSpec(name=name, dtype="int64", shape=("b", "s")) for name in INPUTS),
    outputs=(),
    model_id="m",
    revision=None,
    embedding_dim=8,
    pooling="mean",
    normalized=True,
    max_seq_length=32,
)
LINE = (
    "Name: {name}_myl0_{number}, LayerType: gemm, Inputs: [ {{ Name: x, Datatype: {dtype} }}], "
    "Outputs: [ {{ Name: y, Datatype: Half }}], Metadata: [ONNX Layer: {name}]"
)


def engine_bytes(version: str, rest: bytes = b"kernels") -> bytes:
    return struct.pack("<4sI8xQ4B", b"ftrt", 0, 0, *parse_version(version)).ljust(64, b"\0") + rest


@pytest.fixture(params=VERSIONS)
def tensorrt(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """A stand-in that knows the plan's inputs and gives a plan of its own version."""
    made: StandIn

    def get_input(_: Any, index: int) -> Any:
        tensor = made.new("ITensor")
        tensor.name = INPUTS[index]
        return tensor

    answers = {
        "INetworkDefinition.num_inputs": len(INPUTS),
        "INetworkDefinition.get_input": get_input,
        "Builder.build_serialized_network": lambda _, **__: made.host_memory(
            engine_bytes(made.__version__)
        ),
        "ITimingCache.serialize": lambda _, **__: made.host_memory(b"timings"),
    }
    made = make_module(request.param, answers)
    monkeypatch.setattr(module, "import_tensorrt", lambda: made)
    return made


@pytest.fixture
def prepared(tmp_path: Path) -> CompiledArtifact:
    folder = tmp_path / "prepared"
    folder.mkdir()
    asked = {"linear": ["a", "b"], "attention": [], "num_int8": 2}
    files = {PLAN.graph: "a graph", PLAN_FILE: PLAN.to_json(), ASKED_FILE: json.dumps(asked)}
    for name, text in files.items():
        (folder / name).write_text(text)
    return CompiledArtifact(
        directory=folder,
        files=tuple(artifact_file(folder / name) for name in files),
        target="tensorrt",
        recipe=RECIPE,
        built_from="0" * 64,
        device_requirement=(),
        tool_versions={},
        compile_s=1.0,
    )


def finish(prepared: CompiledArtifact, tmp_path: Path, **asked: Any) -> CompiledArtifact:
    (tmp_path / "finished").mkdir()
    return TARGET.finish(
        FinishRequest(
            artifact=prepared,
            hardware=HARDWARE,
            output_dir=tmp_path / "finished",
            num_threads=1,
            **asked,
        )
    )


def test_an_engine_is_built_written_and_taken_by_its_own_version(tensorrt, prepared, tmp_path):
    made = finish(prepared, tmp_path, keep_dir=tmp_path / "kept")
    assert [file.path for file in made.files] == [ENGINE_FILE, PLAN_FILE]
    assert [file.path for file in made.files if file.on_device] == [ENGINE_FILE]
    (cache,) = tensorrt.called("IBuilderConfig.set_timing_cache")
    assert cache["ignore_mismatch"] is False
    (kept,) = (tmp_path / "kept").iterdir()
    assert kept.name == f"{tensorrt.__version__}-nvidia-h100-sm-90.timing"
    assert kept.read_bytes() == b"timings"
    run = TARGET.run_plan(made, GRAPH, 0, 1)
    assert (run.adapter, run.model) == (SESSION, made.directory / ENGINE_FILE)
    assert run.inputs == INPUTS


def test_the_gpu_at_hand_decides(tensorrt, prepared, tmp_path):
    finish(prepared, tmp_path)
    assert tensorrt.called("IBuilderConfig.set_compute_capability") == []


def test_an_option_of_the_build_reaches_builder_and_plan(tensorrt, prepared, tmp_path):
    made = finish(prepared, tmp_path, options={"optimization_level": "5"})
    levels = tensorrt.called("IBuilderConfig.builder_optimization_level")
    assert levels == [{"value": 5}]
    assert read_plan(made.directory / PLAN_FILE).optimization_level == 5
    (tmp_path / "finished").rename(tmp_path / "first")
    with pytest.raises(ConfigError, match="is not known"):
        finish(prepared, tmp_path, options={"level": "5"})


def test_another_tensorrt_is_told_what_to_build_anew(tensorrt, prepared, tmp_path):
    made = finish(prepared, tmp_path)
    tensorrt.__version__ = "12.0.0.1"
    with pytest.raises(CompileError, match=r"model\.plan cannot be loaded here") as caught:
        TARGET.run_plan(made, GRAPH, 0, 1)
    assert "here is 12.0.0.1" in caught.value.why
    assert "exporter build BUNDLE" in caught.value.hint


@pytest.mark.parametrize(("second", "is_refused"), [("Int8", False), ("Half", True)])
def test_a_list_of_layers_must_show_the_int8_that_was_asked_for(
    tensorrt, prepared, tmp_path, monkeypatch, second, is_refused
):
    lines = [
        LINE.format(name=name, number=number, dtype=dtype)
        for number, (name, dtype) in enumerate((("a", "Int8"), ("b", second)))
    ]
    told = Engine(
        data=engine_bytes(tensorrt.__version__),
        log=("Layers:\n" + "\n".join(lines),),
        warnings=(),
    )
    monkeypatch.setattr(finishing, "build_engine", lambda *_: told)
    if is_refused:
        with pytest.raises(CompileError, match="1 of 2 linear layers run in int8"):
            finish(prepared, tmp_path)
        return
    made = finish(prepared, tmp_path)
    assert [file.path for file in made.files] == [ENGINE_FILE, STRUCTURE_FILE, PLAN_FILE]
    assert TARGET.structure(made).source == f"TensorRT {tensorrt.__version__}, NVIDIA H100"


def test_what_trtexec_built_is_taken_if_it_is_of_this_version(tensorrt, prepared, tmp_path):
    engine = tmp_path / "trtexec.plan"
    engine.write_bytes(engine_bytes(tensorrt.__version__, b"others"))
    made = finish(prepared, tmp_path, engine=engine)
    assert (made.directory / ENGINE_FILE).read_bytes() == engine.read_bytes()
    assert tensorrt.called("Builder.build_serialized_network") == []
    (tmp_path / "finished").rename(tmp_path / "first")
    engine.write_bytes(engine_bytes("9.3.0.1"))
    with pytest.raises(CompileError, match=r"trtexec\.plan cannot be loaded here"):
        finish(prepared, tmp_path, engine=engine)


# ----------------------------------------------------------------------------- the probe


def test_a_probe_finds_what_is_there_and_names_what_is_not(tensorrt, monkeypatch):
    from targets.registry import open_device

    local = open_device("local")
    gpu = nvidia.parse_gpu("NVIDIA H100 80GB HBM3, 9.0, 81559, 580.65.06")
    for place in (module, gpu_hardware):
        monkeypatch.setattr(place, "detect_gpu", lambda: gpu)
    monkeypatch.setattr(module, "lacks_cuda_package", tuple)
    found = TARGET.probe(local)
    assert found.ok, found.missing
    assert found.device_name == "NVIDIA H100 80GB HBM3"
    assert found.tool_versions["nvidia-driver"] == "580.65.06"
    hardware = TARGET.detected_hardware(local)
    assert found.fingerprint == hardware.fingerprint
    assert {"sm_90", "tensor_int8"} <= hardware.features
    assert hardware.num_cores == local.hardware().num_cores

    def none() -> None:
        raise NotInstalledError("tensorrt cannot be imported", hint="pip install it")

    monkeypatch.setattr(module, "import_tensorrt", none)
    assert TARGET.probe(local).missing == ("tensorrt cannot be imported: pip install it",)
