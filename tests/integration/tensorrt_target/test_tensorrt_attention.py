"""Attention in int8: where a real NVIDIA compiler fuses it; nothing else is let through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import contract.tiny_graph as tiny_graph
import numpy as np
import onnx
import pytest
from contract.tiny_graph import make_tokens
from contract.tiny_plans import write_plans

import targets.tensorrt.graph as graph_module
from targets.contract import CompiledArtifact, CompileRequest, OnnxArtifact, Recipe
from targets.errors import CompileError, ConfigError, NotInstalledError
from targets.tensorrt.attention import HEAD_SIZES, MAX_SEQ_LENGTH, require_fused
from targets.tensorrt.recipes import FLOAT16, INT8
from targets.tensorrt.rtx import TensorRtRtxTarget
from targets.tensorrt.sdk import import_rtx

try:
    import_rtx()
except NotInstalledError as error:
    pytest.skip(f"no TensorRT for RTX here: {error.hint}", allow_module_level=True)
pytestmark = [pytest.mark.tensorrt_rtx]

TARGET = TensorRtRtxTarget()
HARDWARE = TARGET.prepared_hardware(("8.9",))
RECIPES = {recipe.name: recipe for recipe in TARGET.candidates(None, HARDWARE)}
ASKED = replace(RECIPES[INT8], scheme=replace(RECIPES[INT8].scheme, attention=True))
TOKENS = make_tokens(24)


def encoder(
    at: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    size: int = 16,
    length: int = 64,
    heads: int = 2,
) -> OnnxArtifact:
    """Write the tiny encoder with other heads, for longer texts."""
    width = size * heads
    for name, value in (("HIDDEN", width), ("FFN", 2 * width), ("HEADS", heads)):
        monkeypatch.setattr(tiny_graph, name, value)
    monkeypatch.setattr(tiny_graph, "MAX_LENGTH", length)
    return tiny_graph.write_tiny_graph(at).artifact


def compile_(graph: OnnxArtifact, at: Path, recipe: Recipe = ASKED) -> CompiledArtifact:
    plans = write_plans(at / "plans.npz", graph, TOKENS, ASKED.scheme)
    output = folder(at / "out")
    request = CompileRequest(
        graph=graph,
        recipe=recipe,
        calibration=TOKENS,
        plans=plans,
        hardware=HARDWARE,
        output_dir=output,
        num_threads=1,
        seed=0,
    )
    return TARGET.compile(request)


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def fused(artifact: CompiledArtifact) -> dict[str, int]:
    rows = TARGET.structure(artifact).rows
    return {row.dtype: row.count for row in rows if row.op_type == "fused attention"}


@pytest.mark.parametrize(("size", "length"), [(64, 64), (32, MAX_SEQ_LENGTH)])
def test_it_is_one_int8_kernel_where_it_is_allowed(tmp_path, monkeypatch, size, length):
    graph = encoder(tmp_path, monkeypatch, size=size, length=length)
    assert size in HEAD_SIZES
    require_fused(graph)
    artifact = compile_(graph, tmp_path)
    assert fused(artifact) == {"int8": 2}
    assert TARGET.structure(artifact).warnings == ()


def test_without_the_flag_the_same_kernel_takes_float16(tmp_path, monkeypatch):
    artifact = compile_(encoder(tmp_path, monkeypatch), tmp_path, RECIPES[INT8])
    assert fused(artifact) == {"float16": 2}


@pytest.mark.parametrize(
    ("size", "length", "heads"), [(8, 64, 2), (16, MAX_SEQ_LENGTH + 1, 2), (32, 64, 1)]
)
def test_where_it_is_refused_the_compiler_would_not_fuse_it(
    tmp_path, monkeypatch, size, length, heads
):
    graph = encoder(tmp_path, monkeypatch, size=size, length=length, heads=heads)
    with pytest.raises(ConfigError, match="attention in int8"):
        TARGET.with_int8_attention(RECIPES[INT8], graph)
    with pytest.raises(CompileError, match="0 of 2 attentions run in int8"):
        compile_(graph, tmp_path)


def test_attention_that_is_int8_by_half_falls_into_pieces(tmp_path, monkeypatch):
    """Why the validator wants all four pairs: with it silenced, the compiler says the same."""
    graph = encoder(tmp_path, monkeypatch)
    whole = graph_module.insert_qdq

    def without_softmax(model: onnx.ModelProto, plan: object) -> onnx.ModelProto:
        result = whole(model, plan)
        makers = {out: node for node in result.graph.node for out in node.output}
        for block in (one.block for one in plan.attention):
            mix = next(node for node in result.graph.node if node.name == block.mix)
            mix.input[0] = block.softmax
        left = {name for node in result.graph.node for name in node.input}
        for node in [n for n in result.graph.node if n.op_type == "DequantizeLinear"]:
            if node.output[0] not in left:
                result.graph.node.remove(node)
                result.graph.node.remove(makers[node.input[0]])
        return result

    monkeypatch.setattr(graph_module, "insert_qdq", without_softmax)
    with pytest.raises(CompileError, match="all four operands of an int8 attention"):
        compile_(graph, folder(tmp_path / "a"))
    monkeypatch.setattr(graph_module, "validate_qdq", lambda *_, **__: None)
    with pytest.raises(CompileError, match="0 of 2 attentions run in int8"):
        compile_(graph, folder(tmp_path / "b"))


def test_the_graph_computes_what_its_float_twin_does(tmp_path, monkeypatch):
    """In ONNX Runtime, as the simulation runs it; a value range far too narrow is seen."""
    import onnxruntime

    graph = encoder(tmp_path, monkeypatch, size=64)
    artifact = compile_(graph, tmp_path)
    path = next(artifact.directory / f.path for f in artifact.files if f.path.endswith(".onnx"))

    def embed(model: str | bytes) -> np.ndarray:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        ids = np.asarray([text[:2] for text in TOKENS], np.int64)
        feed = {"input_ids": ids, "attention_mask": ids * 0 + 1, "token_type_ids": ids * 0}
        return session.run(["sentence_embedding"], feed)[0].astype(np.float64)

    reference = embed(str(graph.path))
    assert ((reference * embed(str(path))).sum(axis=1)).min() > 0.99
    spoiled = onnx.load(path)
    for tensor in spoiled.graph.initializer:
        if "Transpose_2_output_scale" in tensor.name:
            narrow = np.array(1e-4, np.float16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(narrow, tensor.name))
    assert ((reference * embed(spoiled.SerializeToString())).sum(axis=1)).min() < 0.99


def test_float32_scales_and_plans_without_attention_are_refused(tmp_path, monkeypatch):
    graph = encoder(tmp_path, monkeypatch)
    with pytest.raises(CompileError, match="none of TensorRT's") as caught:
        compile_(graph, tmp_path, replace(ASKED, float_precision="float32"))
    assert "beside float16 only" in caught.value.why
    bare = write_plans(tmp_path / "bare.npz", graph, TOKENS, RECIPES[INT8].scheme)
    monkeypatch.setattr(graph_module, "load_prepared", _loading(bare))
    with pytest.raises(CompileError, match="needs calibrated attention"):
        compile_(graph, folder(tmp_path / "c"))


def _loading(path: Path):
    real = graph_module.load_prepared
    return lambda _: real(path)


def test_float_recipes_stay_what_they_are(tmp_path, monkeypatch):
    graph = encoder(tmp_path, monkeypatch)
    assert TARGET.with_int8_attention(RECIPES[FLOAT16], graph) == RECIPES[FLOAT16]
    asked = TARGET.with_int8_attention(RECIPES[INT8], graph)
    assert asked.scheme == ASKED.scheme
    assert "as was asked for" in asked.why
