"""Layers are found by structure, in whatever form a graph stores them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from contract.tiny_graph import FFN_DOWN_PATHS, LINEAR_PATHS, ROWS
from onnx import TensorProto, helper, numpy_helper
from unit.quantization.qdq_cases import (
    FAN_IN,
    FAN_OUT,
    FORMS,
    encoder,
    graph,
    linear,
    lookup,
    node,
    weights,
)

from targets.errors import CompileError
from targets.quantization.layers import LinearLayer, match, read_layers


@pytest.fixture(scope="module")
def layers():
    return read_layers(encoder())


def only(model: onnx.ModelProto) -> LinearLayer:
    (layer,) = read_layers(model).linears
    return layer


def test_every_linear_layer_is_found_in_execution_order(layers):
    assert tuple(layer.path for layer in layers.linears) == LINEAR_PATHS
    assert all(layer.node == f"{layer.path}/MatMul" for layer in layers.linears)
    assert all(layer.weight == f"{layer.path}.weight" for layer in layers.linears)
    assert all(layer.bias == f"{layer.path}.bias" for layer in layers.linears)
    assert all(layer.output == f"{layer.path}/Add_output" for layer in layers.linears)


def test_ends_of_feed_forward_blocks(layers):
    assert tuple(layer.path for layer in layers.linears if layer.ends_ffn) == FFN_DOWN_PATHS


def test_attention_is_both_products_of_every_layer(layers):
    assert layers.attention == tuple(
        f"encoder.layer.{layer}.attention.self/{product}"
        for layer in (0, 1)
        for product in ("MatMul", "MatMul_1")
    )


def test_embeddings_are_the_lookups_in_float_tables(layers):
    assert {(one.path, one.num_rows) for one in layers.embeddings} == {
        ("embeddings.word_embeddings", ROWS),
        ("embeddings.token_type_embeddings", 2),
        ("embeddings.position_embeddings", 64),
    }


def test_the_head_is_pooling_and_normalization_and_nothing_else(layers):
    assert {"pooling/Mul", "pooling/Div", "normalize/ReduceL2", "normalize/Div"} <= layers.head
    assert not [name for name in layers.head if name.startswith(("encoder", "embeddings"))]


def test_a_linear_layer_behind_the_hidden_state_is_none():
    tensors = {**weights(), "D": np.ones((FAN_OUT, 3), np.float32)}
    nodes = [
        node("MatMul", "x W", "last_hidden_state"),
        node("MatMul", "last_hidden_state D", "sentence_embedding", "dense"),
    ]
    model = graph(nodes, tensors)
    model.graph.output.append(
        helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, [None, None])
    )
    found = read_layers(model)
    assert [layer.path for layer in found.linears] == ["layer"]
    assert found.head == {"dense/MatMul"}


def test_a_renamed_hidden_state_is_followed_to_its_source():
    tensors = {**weights(), "D": np.ones((FAN_OUT, 3), np.float32)}
    nodes = [
        node("MatMul", "x W", "hidden"),
        node("Identity", "hidden", "last_hidden_state"),
        node("MatMul", "hidden D", "sentence_embedding", "dense"),
    ]
    model = graph(nodes, tensors)
    model.graph.output.append(
        helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, [None, None])
    )
    found = read_layers(model)
    assert [layer.path for layer in found.linears] == ["layer"]
    assert "dense/MatMul" in found.head


# -------------------------------------------------------------------------------- forms


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_linear_layer(form):
    layer = only(linear(form))
    turned = form in ("transpose", "gemm_b")
    assert (layer.path, layer.activation, layer.weight) == ("layer", "x", "W")
    assert (layer.output_axis, layer.transposed) == ((0, True) if turned else (1, False))
    assert layer.bias == (None if form == "matmul_no_bias" else "b")
    assert layer.output == "last_hidden_state"
    assert layer.node == ("layer/Gemm" if form.startswith("gemm") else "layer/MatMul")


def test_turned_twice_is_not_turned():
    tensors = weights()
    nodes = [node("Transpose", "W", "turned"), node("Gemm", "x turned b", "y", transB=1)]
    nodes.append(node("Identity", "y", "last_hidden_state"))
    assert (only(graph(nodes, tensors)).output_axis, only(graph(nodes, tensors)).transposed) == (
        1,
        False,
    )


@pytest.mark.parametrize("attributes", [{"alpha": 0.5}, {"beta": 2.0}, {"transA": 1}])
def test_a_gemm_that_does_more_is_no_linear_layer(attributes):
    model = graph([node("Gemm", "x W b", "last_hidden_state", **attributes)], weights())
    assert read_layers(model).linears == ()


def test_a_gemm_that_adds_an_activation_is_no_linear_layer():
    nodes = [node("Relu", "x", "c"), node("Gemm", "x W c", "last_hidden_state")]
    assert read_layers(graph(nodes, weights())).linears == ()


@pytest.mark.parametrize(
    "values", [np.ones((2, FAN_IN, FAN_OUT), np.float32), np.ones(FAN_IN, np.float32)]
)
def test_only_a_matrix_is_a_weight(values):
    model = graph([node("MatMul", "x W", "last_hidden_state")], {"W": values})
    assert read_layers(model).linears == ()


def test_a_product_of_stored_matrices_is_no_linear_layer():
    tensors = {"V": np.ones((1, FAN_IN), np.float32), **weights()}
    nodes = [node("MatMul", "V W", "row", "folded"), node("MatMul", "x W", "product")]
    nodes.append(node("Add", "product row", "last_hidden_state"))
    assert [layer.path for layer in read_layers(graph(nodes, tensors)).linears] == ["layer"]


def test_a_matrix_that_callers_may_override_is_no_weight():
    model = linear("matmul")
    model.graph.input.append(
        helper.make_tensor_value_info("W", TensorProto.FLOAT, [FAN_IN, FAN_OUT])
    )
    assert read_layers(model).linears == ()


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ([node("Neg", "product", "other", "elsewhere")], "something else reads the product"),
        ([], "it is no vector of the output channels"),
    ],
)
def test_what_is_no_bias(extra, why):
    model = linear("matmul")
    model.graph.node.extend(extra)
    if not extra:
        scalar = numpy_helper.from_array(np.float32(1.0), "b")
        model.graph.initializer[1].CopyFrom(scalar)
    layer = only(model)
    assert (layer.bias, layer.output) == (None, "product"), why


# ----------------------------------------------------------------- other families' shapes


def unusual_encoder() -> onnx.ModelProto:
    """One block with what BERT lacks.

    Embeddings wider than the hidden size and projected down (ELECTRA), rotary positions from
    a product, heads wider than the hidden size and projected down (Qwen3), a gated
    feed-forward block with a layer scale (ModernBERT, Llama). Its wide halves are added, and a
    bottleneck lies in it: a layer that feeds an addition and does not narrow, one that narrows and
    feeds none.
    """
    rng = np.random.default_rng(0)
    sizes = {
        "table": (50, 16),
        "embeddings_project": (16, 8),
        "q_proj": (8, 16),
        "k_proj": (8, 16),
        "v_proj": (8, 16),
        "o_proj": (16, 8),
        "gate_proj": (8, 12),
        "up_proj": (8, 12),
        "squeeze": (12, 6),
        "expand": (6, 12),
        "down_proj": (12, 8),
        "dense_head": (8, 4),
        "layer_scale": (8,),
        "frequencies": (8, 1),
    }
    tensors = {name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()}

    def product(name: str, x: str) -> onnx.NodeProto:
        return node("MatMul", f"{x} {name}", name + "_out", name)

    nodes = [
        node("Gather", "table input_ids", "embedded", "embeddings"),
        product("embeddings_project", "embedded"),
        node("Cast", "input_ids", "steps", "rotary_emb", to=TensorProto.FLOAT),
        node("MatMul", "frequencies steps", "angles", "rotary_emb"),
        node("Cos", "angles", "cosines", "rotary_emb"),
        node("ReduceMean", "cosines", "turn", "rotary_emb"),
        product("q_proj", "embeddings_project_out"),
        node("Mul", "q_proj_out turn", "query", "attn"),
        product("k_proj", "embeddings_project_out"),
        node("Transpose", "k_proj_out", "key", "attn", perm=[0, 2, 1]),
        product("v_proj", "embeddings_project_out"),
        node("MatMul", "query key", "scores", "attn.scores"),
        node("Softmax", "scores", "shares", "attn"),
        node("MatMul", "shares v_proj_out", "mixed", "attn.mix"),
        product("o_proj", "mixed"),
        node("Add", "o_proj_out embeddings_project_out", "x1", "attn"),
        product("gate_proj", "x1"),
        node("Sigmoid", "gate_proj_out", "gate", "mlp"),
        product("up_proj", "x1"),
        node("Add", "up_proj_out gate", "wide", "mlp.wide"),
        product("squeeze", "wide"),
        node("Relu", "squeeze_out", "few", "mlp"),
        product("expand", "few"),
        product("down_proj", "expand_out"),
        node("Mul", "down_proj_out layer_scale", "scaled", "layer_scale"),
        node("Add", "scaled x1", "last_hidden_state", "mlp"),
        product("dense_head", "last_hidden_state"),
    ]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, 8])
    return graph(nodes, tensors, inputs=(ids,))


def test_an_unusual_encoder_is_sorted_right():
    found = read_layers(unusual_encoder())
    assert [layer.path for layer in found.linears] == [
        "embeddings_project",
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "squeeze",
        "expand",
        "down_proj",
    ]
    assert [layer.path for layer in found.linears if layer.ends_ffn] == ["down_proj"]
    assert found.attention == ("attn.scores/MatMul", "attn.mix/MatMul")
    assert found.head == {"dense_head/MatMul"}


def test_a_fused_attention_is_one():
    tensors = {name: weights()["W"] for name in ("q", "k", "v")}
    nodes = [node("MatMul", f"x {one}", f"{one}_out", one) for one in tensors]
    nodes.append(
        helper.make_node(
            "Attention",
            ["q_out", "k_out", "v_out"],
            ["last_hidden_state"],
            name="attn/Attention",
            q_num_heads=1,
            kv_num_heads=1,
        )
    )
    assert read_layers(graph(nodes, tensors, opset=23)).attention == ("attn/Attention",)


def test_lookups_of_integers_and_along_other_axes_are_no_embeddings():
    model = lookup()
    assert [(one.path, one.num_rows) for one in read_layers(model).embeddings] == [("words", 1500)]
    model.graph.node[0].attribute[0].i = 1
    assert read_layers(model).embeddings == ()


# ------------------------------------------------------------------------------- patterns


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("*.intermediate.dense", 2),
        ("encoder.layer.0.*", 6),
        ("encoder.layer.[01].attention.self.query", 2),
        ("encoder.layer.1.output.dense", 1),
        ("ffn.down", 2),
        ("*", 12),
    ],
)
def test_patterns_are_globs_on_module_paths(layers, pattern, count):
    found = match(pattern, layers)
    assert len({layer.node for layer in found}) == len(found) == count


def test_a_pattern_without_a_match_names_the_nearest_layers(layers):
    with pytest.raises(CompileError) as caught:
        match("encoder.layer.0.outptu.dense", layers)
    assert caught.value.what == "no layer matches 'encoder.layer.0.outptu.dense'"
    assert "encoder.layer.0.output.dense" in caught.value.why
    assert "ffn.down" in caught.value.hint


def test_no_end_of_a_block_is_no_match():
    with pytest.raises(CompileError, match=r"ffn\.down"):
        match("ffn.down", read_layers(linear("matmul")))


# ------------------------------------------------------------------------------- refusals


def test_a_graph_without_token_embeddings_is_refused():
    model = encoder()
    del model.graph.output[0]
    with pytest.raises(CompileError, match="last_hidden_state"):
        read_layers(model)


@pytest.mark.parametrize("name", ["", "pooling/Mul"])
def test_nodes_without_names_of_their_own_are_refused(name):
    model = encoder()
    model.graph.node[3].name = name
    with pytest.raises(CompileError, match="named 'pooling/Mul'" if name else "no name"):
        read_layers(model)
