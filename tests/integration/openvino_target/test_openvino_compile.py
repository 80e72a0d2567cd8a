"""What lies in the compiled IR: names, outputs, and which nodes are int8."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from contract.tiny_graph import (
    FFN_DOWN_PATHS,
    INPUTS,
    LINEAR_PATHS,
    PAD_ID,
    make_tokens,
)

from targets.contract import CompileRequest, LayerOverride, Recipe
from targets.errors import CompileError, StorageError
from targets.openvino.ir import read_graph, write_ir
from targets.openvino.layers import find_layers
from targets.openvino.quantize import calibration_batches, compress_weights, quantize
from targets.openvino.recipes import recipes_for
from targets.openvino.sdk import import_openvino, is_installed
from targets.openvino.target import OpenVinoTarget
from targets.registry import open_device

pytestmark = pytest.mark.openvino
if not is_installed("openvino"):
    pytest.skip("pip install 'embedding-exporter[openvino]'", allow_module_level=True)
ov = import_openvino()
op = ov.opset13

ROOT = Path(__file__).parents[3]
TOKENS = make_tokens()
HARDWARE = open_device("local").hardware()
RECIPES = {recipe.name: recipe for recipe in recipes_for(HARDWARE)}


def compile_tiny(tiny, folder: Path, recipe: Recipe, **changes) -> ov.Model:
    folder.mkdir(exist_ok=True)
    request = CompileRequest(
        graph=tiny.artifact,
        recipe=recipe,
        calibration=TOKENS,
        hardware=HARDWARE,
        output_dir=folder,
        num_threads=2,
        seed=0,
    )
    artifact = OpenVinoTarget().compile(replace(request, **changes))
    return ov.Core().read_model(artifact.directory / artifact.files[0].path)


def quantized_inputs(model: ov.Model) -> set[str]:
    """Names of nodes that read an activation through a quantizer, changes of shape in between."""
    found: set[str] = set()
    waiting = [node for node in model.get_ops() if node.get_type_name() == "FakeQuantize"]
    while waiting:
        for port in waiting.pop().output(0).get_target_inputs():
            reader = port.get_node()
            found.add(reader.get_friendly_name())
            if reader.get_type_name() in ("Reshape", "Transpose"):
                waiting.append(reader)
    return found


def int8_products(model: ov.Model) -> set[str]:
    """Names of the MatMuls whose weights are stored in int8."""

    def stored_in_int8(node) -> bool:
        if node.get_type_name() == "Constant":
            return node.get_element_type() in (ov.Type.i8, ov.Type.u8)
        inner = ("Convert", "Multiply", "Subtract", "Reshape", "Transpose")
        return node.get_type_name() in inner and any(
            stored_in_int8(value.get_node()) for value in node.input_values()
        )

    return {
        node.get_friendly_name()
        for node in model.get_ordered_ops()
        if node.get_type_name() == "MatMul" and stored_in_int8(node.input_value(1).get_node())
    }


def linear_nodes(paths) -> set[str]:
    return {f"{path}/MatMul" for path in paths}


@pytest.fixture(scope="module")
def int8(tiny, tmp_path_factory) -> ov.Model:
    return compile_tiny(tiny, tmp_path_factory.mktemp("int8"), RECIPES["int8"])


@pytest.fixture(scope="module")
def mixed(tiny, tmp_path_factory) -> ov.Model:
    return compile_tiny(tiny, tmp_path_factory.mktemp("mixed"), RECIPES["int8-mixed"])


# ------------------------------------------------------------------------ the interface


def test_both_outputs_are_there_in_order(int8):
    assert [next(iter(out.get_names())) for out in int8.outputs] == [
        "last_hidden_state",
        "sentence_embedding",
    ]
    assert {name for port in int8.inputs for name in port.get_names()} == set(INPUTS)
    assert all(port.get_element_type() == ov.Type.i64 for port in int8.inputs)
    assert all(port.get_element_type() == ov.Type.f32 for port in int8.outputs)
    assert all(port.get_partial_shape()[:2].is_dynamic for port in int8.inputs)


def test_nothing_of_this_machine_is_in_the_file(tiny, tmp_path):
    compile_tiny(tiny, tmp_path, RECIPES["int8-weights"])
    text = (tmp_path / "openvino_model.xml").read_text("utf-8")
    assert str(tiny.artifact.path.parent) not in text
    assert str(tmp_path) not in text


def test_float_weights_are_halved_where_they_run_in_half(tiny, tmp_path):
    kinds = {}
    for precision in ("float32", "bfloat16"):
        recipe = Recipe(
            name=precision, precision=precision, float_precision=precision, why="a test of sizes"
        )
        model = compile_tiny(tiny, tmp_path / precision, recipe)
        node = {one.get_friendly_name(): one for one in model.get_ops()}
        weight = node["encoder.layer.0.output.dense/MatMul"].input_value(1).get_node()
        while weight.get_type_name() != "Constant":
            weight = weight.input_value(0).get_node()
        kinds[precision] = weight.get_element_type()
    assert kinds == {"float32": ov.Type.f32, "bfloat16": ov.Type.f16}


def test_another_process_writes_the_same_bytes(tiny, tmp_path):
    """String hashes, and with them the order of sets, differ between processes."""
    program = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests/contract")!r}]
from pathlib import Path
from tiny_graph import make_tokens, write_tiny_graph
from targets.contract import CompileRequest
from targets.openvino.sdk import import_openvino, is_installed
from targets.openvino.target import OpenVinoTarget
from targets.registry import open_device
folder = Path({str(tmp_path)!r})
target, hardware = OpenVinoTarget(), open_device("local").hardware()
graph = write_tiny_graph(folder).artifact
recipe = next(r for r in target.candidates(graph, hardware) if r.name == "int8-mixed")
(folder / "out").mkdir()
artifact = target.compile(CompileRequest(
    graph=graph, recipe=recipe, calibration=make_tokens(), hardware=hardware,
    output_dir=folder / "out", num_threads=2, seed=0,
))
print(*(file.sha256 for file in artifact.files))
"""
    here = tmp_path / "here"
    here.mkdir()
    request = CompileRequest(
        graph=tiny.artifact,
        recipe=RECIPES["int8-mixed"],
        calibration=TOKENS,
        hardware=HARDWARE,
        output_dir=here,
        num_threads=2,
        seed=0,
    )
    mine = [file.sha256 for file in OpenVinoTarget().compile(request).files]
    child = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONHASHSEED": "4711"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert child.stdout.split() == mine


# ---------------------------------------------------------------------- what is int8


def test_int8_covers_every_linear_layer_and_the_query_key_products(int8):
    assert int8_products(int8) == linear_nodes(LINEAR_PATHS)
    quantized = quantized_inputs(int8)
    assert linear_nodes(LINEAR_PATHS) <= quantized
    assert {f"encoder.layer.{layer}.attention.self/MatMul" for layer in (0, 1)} <= quantized


def test_mixed_leaves_attention_and_the_ends_of_ffn_in_float(mixed):
    float_layers = linear_nodes(FFN_DOWN_PATHS)
    assert int8_products(mixed) == linear_nodes(LINEAR_PATHS) - float_layers
    quantized = quantized_inputs(mixed)
    assert not quantized & set(find_layers(mixed).attention)
    assert not quantized & float_layers


def test_a_pattern_of_the_user_s_is_obeyed(tiny, tmp_path):
    recipe = replace(
        RECIPES["int8"],
        name="int8-keys-float",
        overrides=(LayerOverride(pattern="*.key", precision=RECIPES["int8"].float_precision),),
    )
    model = compile_tiny(tiny, tmp_path, recipe)
    keys = {path for path in LINEAR_PATHS if path.endswith(".key")}
    assert len(keys) == 2
    assert int8_products(model) == linear_nodes(set(LINEAR_PATHS) - keys)


def test_weights_only_quantizes_no_activation(tiny, tmp_path):
    model = compile_tiny(tiny, tmp_path, RECIPES["int8-weights"])
    assert int8_products(model) == linear_nodes(LINEAR_PATHS)
    assert quantized_inputs(model) == set()


# ----------------------------------------------------------------------- the head


def with_dense_head(path: Path) -> ov.Model:
    """The tiny encoder with a linear layer between pooling and normalization."""
    model = read_graph(path)
    nodes = {node.get_friendly_name(): node for node in model.get_ops()}
    mean = nodes["pooling/Div"].output(0)
    readers = mean.get_target_inputs()
    weight = np.random.default_rng(5).normal(size=(32, 32)).astype(np.float32)
    dense = op.matmul(mean.get_node(), op.constant(weight), False, False)
    dense.set_friendly_name("dense_head/MatMul")
    for port in readers:
        port.replace_source_output(dense.output(0))
    model.validate_nodes_and_infer_types()
    return model


def ignore_progress(done: int, total: int | None = None) -> None:
    pass


def test_pooling_and_what_follows_are_never_quantized(tiny):
    model = with_dense_head(tiny.artifact.path)
    head = set(find_layers(model).head)
    assert "dense_head/MatMul" in head
    batches = calibration_batches(TOKENS, INPUTS)
    quantized = quantize(model, batches, sorted(head), ignore_progress)
    assert not head & quantized_inputs(quantized)
    assert not head & int8_products(quantized)
    assert linear_nodes(LINEAR_PATHS) == int8_products(quantized)


def test_left_to_itself_nncf_quantizes_the_head(tiny):
    """The twin: without the head kept in float, its linear layer is int8."""
    batches = calibration_batches(TOKENS, INPUTS)
    quantized = quantize(with_dense_head(tiny.artifact.path), batches, [], ignore_progress)
    assert "dense_head/MatMul" in int8_products(quantized)


def test_weights_of_the_head_stay_as_they_are(tiny):
    model = with_dense_head(tiny.artifact.path)
    head = list(find_layers(model).head)
    assert "dense_head/MatMul" not in int8_products(compress_weights(model, head))


# ----------------------------------------------------------------------- on the device


def embed(tiny, folder: Path, recipe: Recipe) -> np.ndarray:
    folder.mkdir()
    request = CompileRequest(
        graph=tiny.artifact,
        recipe=recipe,
        calibration=TOKENS,
        hardware=HARDWARE,
        output_dir=folder,
        num_threads=2,
        seed=0,
    )
    target = OpenVinoTarget()
    plan = target.run_plan(target.compile(request), tiny.artifact, PAD_ID, 2)
    with open_device("local").start(plan, 2) as runner:
        return runner.embed(TOKENS)


@pytest.mark.skipif("int8-dynamic" not in RECIPES, reason="needs VNNI and no AMX")
def test_dynamic_recipes_really_quantize_activations(tiny, tmp_path):
    """The runtime's graph does not tell, the numbers do: the IR is the same, they differ."""
    dynamic = embed(tiny, tmp_path / "dynamic", RECIPES["int8-dynamic"])
    weights = embed(tiny, tmp_path / "weights", RECIPES["int8-weights"])
    files = [tmp_path / name / "openvino_model.bin" for name in ("dynamic", "weights")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not np.array_equal(dynamic, weights)
    np.testing.assert_allclose(dynamic, weights, atol=0.02)


# ------------------------------------------------------------------------------ errors


def test_a_file_that_is_no_graph_is_named(tiny, tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(CompileError, match=r"broken\.onnx"):
        read_graph(path)


def test_a_folder_that_is_not_there_is_a_storage_error(tiny, tmp_path):
    model = read_graph(tiny.artifact.path)
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(StorageError, match=r"openvino_model\.xml"):
        write_ir(model, blocked, half_weights=False)


def test_no_calibration_texts_is_an_error(tiny, tmp_path):
    with pytest.raises(CompileError, match="no calibration texts"):
        compile_tiny(tiny, tmp_path, RECIPES["int8"], calibration=TOKENS.select([]))


def test_a_node_that_does_not_exist_is_refused_by_nncf_in_one_line(tiny):
    model = read_graph(tiny.artifact.path)
    batches = calibration_batches(TOKENS, INPUTS)
    with pytest.raises(CompileError) as caught:
        quantize(model, batches, ["no/such/node"], ignore_progress)
    assert "no/such/node" in caught.value.why
