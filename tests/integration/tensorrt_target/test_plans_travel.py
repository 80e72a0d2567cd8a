"""Plans from a real compiler (TensorRT for RTX, no GPU): read, refused, and taken on the device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from contract.tiny_graph import make_tokens, write_tiny_graph

from targets.contract import CompiledArtifact, CompileRequest, FinishRequest, OnnxArtifact
from targets.errors import CompileError, ConfigError, NotInstalledError, StorageError
from targets.tensorrt.engine import build_engine
from targets.tensorrt.files import ENGINE_FILE, PLAN_FILE, STRUCTURE_FILE, read_plan
from targets.tensorrt.plan_header import (
    RTX_RUNTIME,
    TENSORRT_RUNTIME,
    Loader,
    parse_header,
    require_plan,
)
from targets.tensorrt.rtx import TensorRtRtxTarget
from targets.tensorrt.running import SESSION
from targets.tensorrt.sdk import import_rtx
from targets.tensorrt.target import TensorRtTarget

try:
    RTX = import_rtx()
except NotInstalledError as error:
    pytest.skip(f"no TensorRT for RTX here: {error.hint}", allow_module_level=True)
pytestmark = [pytest.mark.tensorrt_rtx]

TARGET = TensorRtRtxTarget()
BUILT_FOR = ("8.6", "8.9")
HERE = Loader(runtime=RTX_RUNTIME, version=RTX.__version__, rebuild="export again")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> OnnxArtifact:
    return write_tiny_graph(tmp_path_factory.mktemp("tiny-plans")).artifact


@pytest.fixture(scope="module")
def prepared(graph: OnnxArtifact, tmp_path_factory: pytest.TempPathFactory) -> CompiledArtifact:
    """A float16 engine for two GPUs, with everything beside it."""
    hardware = TARGET.prepared_hardware(BUILT_FOR)
    recipes = {recipe.name: recipe for recipe in TARGET.candidates(None, hardware)}
    request = CompileRequest(
        graph=graph,
        recipe=recipes["float16"],
        calibration=make_tokens(24),
        hardware=hardware,
        output_dir=tmp_path_factory.mktemp("prepared-plans"),
        num_threads=1,
        seed=0,
    )
    return TARGET.compile(request)


@pytest.fixture
def plan(prepared: CompiledArtifact, tmp_path: Path) -> Path:
    path = tmp_path / ENGINE_FILE
    path.write_bytes((prepared.directory / ENGINE_FILE).read_bytes())
    return path


def finish(
    prepared: CompiledArtifact, folder: Path, capability: str = "8.9", engine: Path | None = None
) -> CompiledArtifact:
    folder.mkdir()
    hardware = TARGET.prepared_hardware((capability,))
    return TARGET.finish(
        FinishRequest(
            artifact=prepared, hardware=hardware, output_dir=folder, num_threads=1, engine=engine
        )
    )


# ---------------------------------------------------------------------------- the header


def test_the_head_says_who_built_it_and_for_what(plan):
    header = require_plan(plan, HERE, capability="8.6")
    assert header.version_text == RTX.__version__
    assert header.capabilities == BUILT_FOR
    assert header.size_bytes == plan.stat().st_size


@pytest.mark.parametrize("capability", ["7.5", "8.0", "12.0", "12.1"])
def test_every_capability_has_its_bit(prepared, capability):
    told = read_plan(prepared.directory / PLAN_FILE)
    one = replace(told, profiles=told.profiles[:1], compute_capabilities=(capability,))
    engine = build_engine(RTX, prepared.directory / told.graph, one)
    assert parse_header(engine.data[:64]).capabilities == (capability,)


@pytest.mark.parametrize("change", [-1, -100_000, 1])
def test_a_plan_of_another_length_is_refused(plan, change):
    data = plan.read_bytes()
    plan.write_bytes(data[:change] if change < 0 else data + b"\0")
    with pytest.raises(StorageError, match="cut off or was added to"):
        require_plan(plan, HERE)


def test_another_version_is_refused_by_number(plan):
    data = bytearray(plan.read_bytes())
    data[25] += 1  # the minor version
    plan.write_bytes(data)
    with pytest.raises(CompileError, match="cannot be loaded here") as caught:
        require_plan(plan, HERE)
    assert f"here is {RTX.__version__}" in caught.value.why
    assert "export again" in caught.value.hint


def test_another_gpu_or_another_runtime_is_refused(plan):
    with pytest.raises(CompileError) as caught:
        require_plan(plan, HERE, capability="12.0")
    assert "8.6, 8.9, this GPU has 12.0" in caught.value.why
    with pytest.raises(CompileError, match="cannot be loaded here"):
        require_plan(plan, replace(HERE, runtime=TENSORRT_RUNTIME))


@pytest.mark.parametrize("target", [TensorRtTarget(), TARGET], ids=lambda one: one.spec.name)
def test_turing_is_prepared_for_though_rtx_has_no_float32_there(target, graph, tmp_path):
    hardware = target.prepared_hardware(("7.5",))
    request = CompileRequest(
        graph=graph,
        recipe=target.candidates(None, hardware)[0],
        calibration=make_tokens(24),
        hardware=hardware,
        output_dir=tmp_path,
        num_threads=1,
        seed=0,
    )
    if target is TARGET:  # an engine is what it must build
        with pytest.raises(CompileError, match="no float32 products for Turing"):
            target.compile(request)
    else:
        assert target.structure(target.compile(request)) is None


# ----------------------------------------------------------------------- on the device


def test_the_engine_built_ahead_of_time_is_taken_as_it_is(prepared, graph, tmp_path):
    finished = finish(prepared, tmp_path / "finished")
    names = [file.path for file in finished.files]
    assert names == [ENGINE_FILE, STRUCTURE_FILE, PLAN_FILE]
    assert [file.path for file in finished.files if file.on_device] == [ENGINE_FILE]
    engines = {file.path: file.sha256 for file in prepared.files}
    assert finished.files[0].sha256 == engines[ENGINE_FILE]
    assert TARGET.structure(finished) == TARGET.structure(prepared)
    run = TARGET.run_plan(finished, graph, 0, 1)
    assert (run.model, run.adapter) == (finished.directory / ENGINE_FILE, SESSION)


def test_an_engine_for_other_gpus_is_not_finished(prepared, tmp_path):
    with pytest.raises(CompileError, match="cannot be loaded here"):
        finish(prepared, tmp_path / "finished", "12.0")


def test_what_is_built_already_takes_no_build_options(prepared, tmp_path):
    request = FinishRequest(
        artifact=prepared,
        hardware=TARGET.prepared_hardware(BUILT_FOR),
        output_dir=tmp_path,
        num_threads=1,
        options={"optimization_level": "5"},
    )
    with pytest.raises(ConfigError, match="takes no build options"):
        TARGET.finish(request)


def test_what_is_built_already_still_takes_how_it_is_run(prepared, graph, tmp_path):
    request = FinishRequest(
        artifact=prepared,
        hardware=TARGET.prepared_hardware(BUILT_FOR),
        output_dir=tmp_path,
        num_threads=1,
        options={"cuda_api": "pycuda"},
    )
    finished = TARGET.finish(request)
    assert TARGET.run_plan(finished, graph, 0, 1).options["cuda_api"] == "pycuda"


def test_an_engine_that_was_given_is_looked_at(prepared, plan, tmp_path):
    assert finish(prepared, tmp_path / "good", engine=plan).files[0].path == ENGINE_FILE
    plan.write_bytes(plan.read_bytes()[:5000])
    with pytest.raises(StorageError, match="cut off"):
        finish(prepared, tmp_path / "bad", engine=plan)
    plan.write_bytes(b"an ONNX file, perhaps" * 10)
    with pytest.raises(StorageError, match="is not a TensorRT engine"):
        finish(prepared, tmp_path / "worse", engine=plan)


def test_a_changed_byte_is_never_handed_to_the_runtime(prepared, graph, tmp_path):
    finished = finish(prepared, tmp_path / "finished")
    path = finished.directory / ENGINE_FILE
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError, match="not the engine that its bundle names"):
        TARGET.run_plan(finished, graph, 0, 1)


def test_what_is_only_prepared_is_not_run(prepared, graph):
    graph_first = replace(prepared, files=prepared.files[:1])
    assert graph_first.files[0].path.endswith(".onnx")
    with pytest.raises(NotInstalledError, match="is not built yet") as caught:
        TensorRtTarget().run_plan(graph_first, graph, 0, 1)
    assert "exporter build" in caught.value.hint
