"""Layers are found by structure, in graphs of several families."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from contract.tiny_graph import FFN_DOWN_PATHS, LINEAR_PATHS, build_model, make_weights

from targets.contract import LayerOverride
from targets.errors import CompileError
from targets.openvino.ir import read_graph
from targets.openvino.layers import find_layers, nodes_kept_float, nodes_matching
from targets.openvino.sdk import import_openvino

pytestmark = pytest.mark.openvino


@pytest.fixture(scope="module")
def layers(tiny):
    return find_layers(read_graph(tiny.artifact.path))


def match(pattern: str, layers) -> tuple[str, ...]:
    return nodes_matching(LayerOverride(pattern=pattern, precision="float32"), layers, "mine")


def test_every_linear_layer_is_found_by_its_module(layers):
    assert {layer.path for layer in layers.linears} == set(LINEAR_PATHS)
    assert len(layers.linears) == len(LINEAR_PATHS)
    assert all(layer.node == f"{layer.path}/MatMul" for layer in layers.linears)


def test_ends_of_feed_forward_blocks(layers):
    assert tuple(layer.path for layer in layers.linears if layer.ends_ffn) == FFN_DOWN_PATHS


def test_attention_is_both_products_of_every_layer(layers):
    expected = [
        f"encoder.layer.{layer}.attention.self/{product}"
        for layer in (0, 1)
        for product in ("MatMul", "MatMul_1")
    ]
    assert sorted(layers.attention) == expected
    assert layers.arithmetic == ()


def test_the_head_is_pooling_and_normalization_and_nothing_else(layers):
    parts = {"pooling/Mul", "pooling/ReduceSum", "pooling/Div", "normalize/ReduceL2"}
    assert parts <= set(layers.head)
    assert not [name for name in layers.head if name.startswith(("encoder", "embeddings"))]


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("*.intermediate.dense", 2),
        ("encoder.layer.0.*", 6),
        ("encoder.layer.[01].attention.self.query", 2),
        ("encoder.layer.1.output.dense", 1),
        ("attention.matmul", 4),
        ("ffn.down", 2),
        ("*", 12),
    ],
)
def test_patterns_are_globs_on_module_paths(layers, pattern, count):
    found = match(pattern, layers)
    assert len(set(found)) == len(found) == count


def test_a_pattern_without_a_match_names_the_nearest_layers(layers):
    with pytest.raises(CompileError) as caught:
        match("encoder.layer.0.outptu.dense", layers)
    assert "'mine': no layer matches 'encoder.layer.0.outptu.dense'" in caught.value.what
    assert "encoder.layer.0.output.dense" in caught.value.why
    assert "attention.matmul" in caught.value.hint


def test_nodes_kept_in_float_have_no_repeats(layers):
    kept = nodes_kept_float(layers, (*layers.attention, *layers.attention))
    assert len(set(kept)) == len(kept)
    assert set(kept) == {*layers.attention, *layers.head}


def test_a_graph_without_token_embeddings_is_refused(tmp_path):
    model = build_model(make_weights(0))
    del model.graph.output[0]
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    with pytest.raises(CompileError, match="last_hidden_state"):
        find_layers(read_graph(path))


# ------------------------------------------------------------------ other families' shapes


def unusual_encoder():
    """One block with what BERT lacks; every node that matters is named.

    Embeddings wider than the hidden size and projected down (ELECTRA), rotary positions from
    a product, heads wider than the hidden size and projected down (Qwen3), a gated
    feed-forward block with a layer scale (ModernBERT, Llama).
    """
    ov = import_openvino()
    op = ov.opset13
    rng = np.random.default_rng(0)

    def constant(*shape: int):
        return op.constant(rng.normal(size=shape).astype(np.float32))

    def named(node, name: str):
        node.set_friendly_name(name)
        return node

    def linear(x, fan_in: int, fan_out: int, name: str):
        return named(op.matmul(x, constant(fan_in, fan_out), False, False), f"{name}/MatMul")

    ids = op.parameter([-1, -1], ov.Type.i64, name="input_ids")
    embedded = op.gather(constant(50, 16), ids, op.constant(np.int64(0)))
    x = linear(embedded, 16, 8, "embeddings_project")
    length = op.gather(op.shape_of(ids), op.constant(np.int64([1])), op.constant(np.int64(0)))
    steps = op.range(
        op.constant(np.int64(0)),
        op.squeeze(length, op.constant(np.int64([0]))),
        op.constant(np.int64(1)),
        output_type=ov.Type.f32,
    )
    row = op.unsqueeze(steps, op.constant(np.int64([0])))
    column = op.unsqueeze(op.constant(np.float32([1, 0.1, 0.01, 0.001])), op.constant(np.int64(1)))
    angles = named(op.matmul(column, row, False, False), "rotary_emb/MatMul")
    turn = op.reduce_mean(op.cos(angles), op.constant(np.int64([0, 1])))
    query = op.multiply(linear(x, 8, 16, "q_proj"), turn)
    scores = named(op.matmul(query, linear(x, 8, 16, "k_proj"), False, True), "attn/MatMul")
    mixed = op.matmul(op.softmax(scores, -1), linear(x, 8, 16, "v_proj"), False, False)
    mixed = named(mixed, "attn/MatMul_1")
    x = op.add(linear(mixed, 16, 8, "o_proj"), x)
    gate = op.sigmoid(linear(x, 8, 12, "gate_proj"))
    wide = op.multiply(linear(x, 8, 12, "up_proj"), gate)
    scaled = op.multiply(linear(wide, 12, 8, "down_proj"), constant(8))
    x = op.add(scaled, x)
    x.output(0).set_names({"last_hidden_state"})
    pooled = op.reduce_mean(x, op.constant(np.int64([1])))
    pooled = linear(pooled, 8, 4, "dense_head")
    pooled.output(0).set_names({"sentence_embedding"})
    return ov.Model([op.result(x), op.result(pooled)], [ids], "unusual")


def test_an_unusual_encoder_is_sorted_right():
    found = find_layers(unusual_encoder())
    assert {layer.path for layer in found.linears} == {
        "embeddings_project",
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    }
    assert [layer.path for layer in found.linears if layer.ends_ffn] == ["down_proj"]
    assert set(found.attention) == {"attn/MatMul", "attn/MatMul_1"}
    assert found.arithmetic == ("rotary_emb/MatMul",)
    assert "dense_head/MatMul" in found.head
