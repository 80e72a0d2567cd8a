"""A real NVIDIA parser and compiler on the CPU: what it makes of our graphs."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from contract.tiny_graph import make_tokens, write_tiny_graph
from contract.tiny_plans import write_plans

from exporter.source.encoder import load_encoder
from exporter.source.onnx_export import export_onnx
from exporter.source.resolve import resolve_encoder
from targets.contract import (
    CompiledArtifact,
    CompileRequest,
    LayerOverride,
    OnnxArtifact,
    Preparable,
    Recipe,
    TokenSequences,
)
from targets.errors import CompileError, ConfigError, NotInstalledError
from targets.quantization.graph import GraphIndex
from targets.quantization.layers import read_layers
from targets.tensorrt.build_plan import BuildPlan, Profile
from targets.tensorrt.engine import build_engine
from targets.tensorrt.files import ASKED_FILE, CACHE_FILE, ENGINE_FILE, STRUCTURE_FILE
from targets.tensorrt.recipes import FLOAT16, FLOAT32, INT8
from targets.tensorrt.rtx import TensorRtRtxTarget
from targets.tensorrt.sdk import import_rtx
from targets.tensorrt.target import TensorRtTarget

try:
    RTX = import_rtx()
except NotInstalledError as error:
    pytest.skip(f"no TensorRT for RTX here: {error.hint}", allow_module_level=True)
pytestmark = [pytest.mark.tensorrt_rtx]

TARGET = TensorRtRtxTarget()
HARDWARE = TARGET.prepared_hardware(("8.9",))
RECIPES = {recipe.name: recipe for recipe in TARGET.candidates(None, HARDWARE)}
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
PROFILE = Profile(smallest=(1, 1), typical=(2, 8), largest=(4, 32))


@dataclass(frozen=True)
class Bench:
    """One graph with the int8 forms of its layers."""

    graph: OnnxArtifact
    tokens: TokenSequences
    plans: Path

    def compile(
        self, folder: Path, recipe: Recipe, target: TensorRtTarget = TARGET, **options: str
    ) -> CompiledArtifact:
        folder.mkdir(parents=True, exist_ok=True)
        request = CompileRequest(
            graph=self.graph,
            recipe=recipe,
            calibration=self.tokens,
            plans=self.plans if recipe.scheme else None,
            hardware=HARDWARE,
            output_dir=folder,
            num_threads=1,
            seed=0,
            options=options,
        )
        return target.compile(request)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("tiny-tensorrt")
    graph, tokens = write_tiny_graph(folder).artifact, make_tokens(24)
    plans = write_plans(folder / "plans.npz", graph, tokens, RECIPES[INT8].scheme)
    return Bench(graph=graph, tokens=tokens, plans=plans)


@pytest.fixture(scope="module")
def minilm(minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("minilm-tensorrt")
    graph = export_onnx(load_encoder(resolve_encoder(str(minilm_dir))), folder)
    rng = np.random.default_rng(0)
    texts = [rng.integers(1000, 20000, length) for length in (8, 12, 20, 33, 60, 100)]
    tokens = TokenSequences.from_lists([one.astype(np.int32) for one in texts], 0)
    # recipes that keep attention in float take no notice of its plans
    scheme = replace(RECIPES[INT8].scheme, attention=True)
    plans = write_plans(folder / "plans.npz", graph, tokens, scheme)
    return Bench(graph=graph, tokens=tokens, plans=plans)


def counts(artifact: CompiledArtifact) -> dict[tuple[str, str], int]:
    structure = TARGET.structure(artifact)
    return {(row.op_type, row.dtype): row.count for row in structure.rows}


# ------------------------------------------------------------------------ the real model


@pytest.mark.model
@pytest.mark.slow
def test_minilm_in_int8_has_all_its_layers_there_and_attention_in_one_kernel(minilm, tmp_path):
    artifact = minilm.compile(tmp_path, RECIPES[INT8])
    assert counts(artifact) == {
        ("linear", "int8"): 36,
        ("gemm", "int8"): 24,  # query, key and value are merged
        ("fused attention", "float16"): 6,
        ("reformat", "int8"): 6,  # one for each attention
    }
    assert TARGET.structure(artifact).warnings == ()
    assert (tmp_path / ENGINE_FILE).stat().st_size > 20_000_000
    assert [one.path for one in artifact.files if one.on_device] == [ENGINE_FILE]


@pytest.mark.model
@pytest.mark.slow
def test_minilm_s_attention_is_int8_where_asked_for(minilm, tmp_path):
    asked = TARGET.with_int8_attention(RECIPES[INT8], minilm.graph)
    assert counts(minilm.compile(tmp_path, asked)) == {
        ("linear", "int8"): 36,
        ("gemm", "int8"): 24,
        ("fused attention", "int8"): 6,
    }


@pytest.mark.model
@pytest.mark.slow
def test_minilm_in_float16(minilm, tmp_path):
    artifact = minilm.compile(tmp_path, RECIPES[FLOAT16])
    assert counts(artifact) == {
        ("linear", "float16"): 36,
        ("gemm", "float16"): 24,
        ("fused attention", "float16"): 6,
    }


# ---------------------------------------------------------------------------- small ones


def test_layers_kept_in_float16_are_there(tiny, tmp_path):
    keep = LayerOverride(pattern="ffn.down", precision="float16")
    artifact = tiny.compile(tmp_path, replace(RECIPES[INT8], name="mixed", overrides=(keep,)))
    found = counts(artifact)
    assert found["linear", "float16"] == 2
    assert found["linear", "int8"] == 10


@pytest.mark.model
@pytest.mark.slow
def test_scales_in_float32_keep_attention_in_pieces(minilm, tmp_path):
    """Why the graph is float16 before Q/DQ goes in."""
    wide = replace(RECIPES[INT8], name="wide", float_precision="float32")
    structure = TARGET.structure(minilm.compile(tmp_path, wide))
    assert structure.fused_attentions == 0
    assert any("attentions run as one kernel" in one for one in structure.warnings)


def test_an_engine_without_its_int8_is_refused(tiny, tmp_path, monkeypatch):
    import targets.tensorrt.graph as module

    half = module.build_graph
    fake = lambda request: replace(half(float_of(request)), num_int8=12)  # noqa: E731
    monkeypatch.setattr(module, "build_graph", fake)

    def float_of(request: CompileRequest) -> CompileRequest:
        return replace(request, recipe=RECIPES[FLOAT16], plans=None)

    with pytest.raises(CompileError, match="0 of 12 linear layers run in int8"):
        tiny.compile(tmp_path, RECIPES[INT8])


def test_the_tensorrt_target_has_its_structure_told_by_rtx(tiny, tmp_path):
    target = TensorRtTarget()
    artifact = tiny.compile(tmp_path, RECIPES[INT8], target)
    assert isinstance(target, Preparable)
    structure = target.structure(artifact)
    assert "TensorRT for RTX" in structure.source
    names = {one.path for one in artifact.files}
    assert names == {
        "model_int8.onnx",
        "build_plan.json",
        "trtexec.txt",
        STRUCTURE_FILE,
        ASKED_FILE,
        CACHE_FILE,
    }
    commands = (tmp_path / "trtexec.txt").read_text()
    assert commands.count("trtexec --onnx=model_int8.onnx") == 2
    plan = BuildPlan.from_json((tmp_path / "build_plan.json").read_text())
    assert plan.graph == "model_int8.onnx"
    (tmp_path / STRUCTURE_FILE).unlink()
    assert target.structure(artifact) is None


def test_options_of_the_build_are_in_its_plan(tiny, tmp_path):
    tiny.compile(tmp_path, RECIPES[FLOAT16], cuda_api="pycuda")
    plan = BuildPlan.from_json((tmp_path / "build_plan.json").read_text())
    assert plan.cuda_api == "pycuda"
    with pytest.raises(ConfigError, match="must be cuda-bindings or pycuda"):
        tiny.compile(tmp_path / "other", RECIPES[FLOAT16], cuda_api="cupy")


def test_the_same_request_gives_the_same_graph(tiny, tmp_path):
    one, two = (tiny.compile(tmp_path / name, RECIPES[INT8]) for name in "ab")
    graphs = [next(f for f in each.files if f.path.endswith(".onnx")) for each in (one, two)]
    assert graphs[0].sha256 == graphs[1].sha256


# --------------------------------------------------------------------------- what is wrong


def test_the_parser_s_words_come_with_node_and_operator(tiny, tmp_path):
    model = onnx.load(tiny.graph.path)
    node = next(n for n in model.graph.node if n.op_type == "Gelu")
    node.op_type, node.domain = "NoSuchThing", "nobody"
    model.opset_import.append(onnx.helper.make_opsetid("nobody", 1))
    path = tmp_path / "odd.onnx"
    onnx.save(model, path)
    plan = BuildPlan(graph=path.name, inputs=INPUTS, profiles=(PROFILE,))
    with pytest.raises(CompileError, match="parser refuses") as caught:
        build_engine(RTX, path, plan)
    assert node.name in caught.value.why
    assert "NoSuchThing" in caught.value.why


def test_a_reversed_profile_is_refused(tiny):
    turned = Profile(smallest=(4, 32), typical=(2, 8), largest=(1, 1))
    plan = BuildPlan(graph="x", inputs=INPUTS, profiles=(turned,), compute_capabilities=("8.9",))
    with pytest.raises(CompileError, match="refuses optimization profile 0"):
        build_engine(RTX, tiny.graph.path, plan)


def test_a_profile_of_inputs_that_are_not_there_is_refused(tiny):
    plan = BuildPlan(graph="x", inputs=("input_ids", "other"), profiles=(PROFILE,))
    with pytest.raises(CompileError, match="the build plan feeds"):
        build_engine(RTX, tiny.graph.path, plan)


def test_a_gpu_that_rtx_does_not_build_for_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"compute capability 9\.0") as caught:
        TARGET.prepared_hardware(("9.0",))
    assert "8.9" in caught.value.why
    assert TensorRtTarget().prepared_hardware(("9.0",)).microarchitecture == "sm_90"


def test_two_gpus_have_what_both_multiply():
    hardware = TensorRtTarget().prepared_hardware(("7.5", "8.9"))
    assert "tensor_int8" in hardware.features
    assert "tensor_fp8" not in hardware.features


@pytest.mark.parametrize("name", [FLOAT32, FLOAT16, INT8])
def test_q_dq_stands_at_linear_layers_only(tiny, tmp_path, name):
    tiny.compile(tmp_path, RECIPES[name])
    model = onnx.load(tmp_path / f"model_{name}.onnx")
    index = GraphIndex(model.graph)
    linear = {layer.node for layer in read_layers(onnx.load(tiny.graph.path)).linears}
    readers = {
        reader.name
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        for reader in index.readers[node.output[0]]
    }
    assert readers == (linear if name == INT8 else set())


def test_the_structure_file_is_what_was_told(tiny, tmp_path):
    tiny.compile(tmp_path, RECIPES[FLOAT16])
    told = json.loads((tmp_path / STRUCTURE_FILE).read_text())
    assert {row["dtype"] for row in told["rows"]} == {"float16"}
    assert sum(row["count"] for row in told["rows"] if row["op_type"] == "linear") == 12
