"""Files that are built: what is in them, what is refused, and that they load."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from contract.tiny_graph import LINEAR_PATHS
from onnx_runs import kinds, run

from targets.contract import LayerOverride, QdqScheme
from targets.errors import CalibrationError, CompileError, StorageError
from targets.hardware.profiles import cpu_profile
from targets.onnxruntime import build
from targets.onnxruntime.build import build_onnx
from targets.onnxruntime.recipes import recipes_for
from targets.onnxruntime.sdk import require_loadable
from targets.onnxruntime.target import OnnxRuntimeTarget

ZEN4 = cpu_profile("zen4").hardware(num_cores=2, memory_bytes=1 << 30)
HASWELL = cpu_profile("haswell").hardware(num_cores=2, memory_bytes=1 << 30)
RECIPES = {one.name: one for one in recipes_for(ZEN4)}
QUANTIZED = [name for name in RECIPES if name != "float32"]
PRODUCTS = {
    "int8-static": "MatMulIntegerToFloat",
    "int8-dynamic": "MatMulIntegerToFloat",
    "int8-weights": "MatMulNBits",
    "int4-weights": "MatMulNBits",
}
FEEDS = {
    name: np.array([[1, 5, 9], [2, 3, 0]], np.int64) if name == "input_ids" else ones
    for name, ones in (
        ("input_ids", np.empty(0)),
        ("attention_mask", np.array([[1, 1, 1], [1, 1, 0]], np.int64)),
        ("token_type_ids", np.zeros((2, 3), np.int64)),
    )
}


def built(request, name="model.onnx"):
    path = request.output_dir / name
    build_onnx(request, path)
    return onnx.load(path)


@pytest.mark.parametrize("name", QUANTIZED)
def test_every_linear_layer_is_one_product_and_attention_stays_float(request_for, name):
    model = built(request_for(RECIPES[name]))
    found = kinds(model)
    assert found[PRODUCTS[name]] == len(LINEAR_PATHS)
    assert found["MatMul"] == 4, "two products in each of two attentions"
    assert "DequantizeLinear" not in found
    onnx.checker.check_model(model)


@pytest.mark.parametrize("name", list(RECIPES))
def test_no_addition_is_left_to_the_slow_fusion(request_for, name):
    model = built(request_for(RECIPES[name]))
    makers = {out: node.op_type for node in model.graph.node for out in node.output}
    norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    assert [makers[node.input[0]] for node in norms] == ["Sum"] * 5
    assert not model.graph.value_info


@pytest.mark.parametrize("name", list(RECIPES))
def test_inputs_outputs_and_metadata_stay(request_for, tiny, tmp_path, name):
    marked = onnx.load(tiny.artifact.path)
    onnx.helper.set_model_props(marked, {"model_id": "tiny", "pooling": "mean"})
    onnx.save(marked, tmp_path / "model.onnx")
    graph = replace(tiny.artifact, path=tmp_path / "model.onnx")
    model = built(replace(request_for(RECIPES[name]), graph=graph))
    assert [one.name for one in model.graph.input] == [one.name for one in graph.inputs]
    assert [one.name for one in model.graph.output] == ["last_hidden_state", "sentence_embedding"]
    assert {one.key: one.value for one in model.metadata_props} == {
        "model_id": "tiny",
        "pooling": "mean",
    }


def test_layers_that_an_override_names_stay_in_float(request_for):
    kept = (LayerOverride(pattern="ffn.down", precision="float32"),)
    for name in QUANTIZED:
        found = kinds(built(request_for(replace(RECIPES[name], overrides=kept))))
        assert (found[PRODUCTS[name]], found["MatMul"]) == (len(LINEAR_PATHS) - 2, 6)


@pytest.mark.parametrize("integers", ["U8S8", "S8S8", "U8U8"])
def test_no_scheme_leaves_a_layer_behind(request_for, integers):
    recipe = replace(RECIPES["int8-static"], scheme=QdqScheme(integers=integers))
    model = built(request_for(recipe))
    assert kinds(model)["MatMulIntegerToFloat"] == len(LINEAR_PATHS)
    assert np.isfinite(run(model, FEEDS, "sentence_embedding")).all()


def test_large_tables_are_looked_up_in_int8_never_expanded(request_for, monkeypatch):
    monkeypatch.setattr("targets.quantization.embeddings_qdq.LARGE_TABLE", 64)
    for name in QUANTIZED:
        model = built(request_for(RECIPES[name]))
        stored = {one.name: one.data_type for one in model.graph.initializer}
        table = "embeddings.word_embeddings.weight"
        assert table not in stored
        assert stored[f"{table}_quantized"] == onnx.TensorProto.INT8
        makers = {out: node.op_type for node in model.graph.node for out in node.output}
        read = [node.input[0] for node in model.graph.node if node.op_type == "Gather"]
        assert not any(makers.get(one) == "DequantizeLinear" for one in read)
        wide = built(request_for(replace(RECIPES[name], embeddings="float32")))
        assert table in {one.name for one in wide.graph.initializer}


def test_weights_lose_a_bit_only_where_pairs_saturate(request_for):
    def largest(hardware):
        model = built(replace(request_for(RECIPES["int8-dynamic"]), hardware=hardware))
        reads = [n.input[1] for n in model.graph.node if n.op_type == "MatMulIntegerToFloat"]
        stored = {one.name: one for one in model.graph.initializer}
        integers = [onnx.numpy_helper.to_array(stored[name]).astype(int) for name in reads]
        return max(int(np.abs(one).max()) for one in integers)

    assert (largest(HASWELL), largest(ZEN4)) == (63, 127)


@pytest.mark.parametrize("name", ["float32", "int8-dynamic"])
def test_weights_beyond_one_file_lie_beside_it(request_for, monkeypatch, name):
    single = run(built(request_for(RECIPES[name])), FEEDS, "sentence_embedding")
    monkeypatch.setattr(build, "MAX_FILE_BYTES", 1000)
    artifact = OnnxRuntimeTarget().compile(request_for(RECIPES[name]))
    entry, data = (file.path for file in artifact.files)
    assert data == f"{entry}_data"
    rows = run(artifact.directory / entry, FEEDS, "sentence_embedding")
    np.testing.assert_array_equal(rows, single)


def test_static_int8_without_plans_says_what_is_missing(request_for):
    request = replace(request_for(RECIPES["int8-static"]), plans=None)
    with pytest.raises(CompileError, match="'int8-static' needs calibrated layers"):
        build_onnx(request, request.output_dir / "model.onnx")


def test_damaged_plans_are_named(request_for, tmp_path):
    broken = tmp_path / "plans.npz"
    broken.write_bytes(b"no plans")
    request = replace(request_for(RECIPES["int8-static"]), plans=broken)
    with pytest.raises(CalibrationError, match=r"plans\.npz"):
        build_onnx(request, request.output_dir / "model.onnx")


def test_a_graph_that_is_not_as_described_is_refused(request_for, tiny):
    turned = replace(tiny.artifact, outputs=tiny.artifact.outputs[::-1])
    request = replace(request_for(RECIPES["float32"]), graph=turned)
    with pytest.raises(CompileError, match="inputs and outputs are"):
        build_onnx(request, request.output_dir / "model.onnx")
    assert not list(request.output_dir.iterdir())


def test_files_that_cannot_be_written_are_named(request_for, tmp_path):
    request = request_for(RECIPES["float32"])
    with pytest.raises(StorageError, match=r"nowhere/model\.onnx cannot be written"):
        build_onnx(request, tmp_path / "nowhere" / "model.onnx")


def test_graphs_that_cannot_be_read_are_named(request_for, tiny, tmp_path):
    gone = replace(tiny.artifact, path=tmp_path / "gone.onnx")
    request = replace(request_for(RECIPES["float32"]), graph=gone)
    with pytest.raises(StorageError, match=r"gone\.onnx cannot be read"):
        build_onnx(request, request.output_dir / "model.onnx")


def test_what_onnx_runtime_refuses_is_an_error_in_one_line(request_for, tmp_path, capfd):
    model = built(request_for(RECIPES["int8-weights"]))
    node = next(one for one in model.graph.node if one.op_type == "MatMulNBits")
    node.op_type = "MatMulNothing"
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(CompileError, match="refuses the graph of recipe 'int8-weights'") as caught:
        require_loadable(tmp_path / "model.onnx", "int8-weights")
    assert "MatMulNothing" in caught.value.why
    assert "\n" not in caught.value.why
    assert capfd.readouterr() == ("", "")
