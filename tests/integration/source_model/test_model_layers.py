"""Layers of every family's graph: what the architecture has, and what OpenVINO's graph shows."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from exported_model import Exported
from tiny_models import Family

from targets.hardware.precisions import adds_pairs_with_saturation
from targets.quantization.calibrators import Range
from targets.quantization.layers import EncoderLayers, match, read_layers
from targets.quantization.qdq import LayerPlan, QdqPlan, insert_qdq
from targets.quantization.validate import validate_qdq
from targets.registry import open_device

_BERT = (
    "encoder.layer.{}.attention.self.query",
    "encoder.layer.{}.attention.self.key",
    "encoder.layer.{}.attention.self.value",
    "encoder.layer.{}.attention.output.dense",
    "encoder.layer.{}.intermediate.dense",
    "encoder.layer.{}.output.dense",
)
_MPNET = tuple(
    path.replace("attention.output.dense", "attention.attn.o").replace(
        f"attention.self.{part}", f"attention.attn.{part[0]}"
    )
    for path, part in zip(_BERT, ("query", "key", "value", "x", "x", "x"), strict=True)
)
_DISTILBERT = tuple(
    f"transformer.layer.{{}}.{part}"
    for part in (
        "attention.q_lin",
        "attention.k_lin",
        "attention.v_lin",
        "attention.out_lin",
        "ffn.lin1",
        "ffn.lin2",
    )
)
_MODERNBERT = tuple(f"layers.{{}}.{part}" for part in ("attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"))
_QWEN3 = tuple(
    f"layers.{{}}.{part}"
    for part in (
        *(f"self_attn.{one}_proj" for one in "qkvo"),
        *(f"mlp.{one}_proj" for one in ("gate", "up", "down")),
    )
)
# Family: blocks, paths of one block (the last ends its feed-forward part), lookups.
FAMILIES = {
    "bert": (2, _BERT, 3),
    "roberta": (1, _BERT, 3),
    "xlm-roberta": (1, _BERT, 3),
    "electra": (1, _BERT, 3),
    "mpnet": (1, _MPNET, 3),
    "distilbert": (1, _DISTILBERT, 2),
    "modernbert": (2, _MODERNBERT, 1),
    "qwen3": (1, _QWEN3, 1),
}


@pytest.fixture(scope="session")
def graph(exported: Exported) -> onnx.ModelProto:
    return onnx.load(str(exported.artifact.path))


@pytest.fixture(scope="session")
def layers(graph: onnx.ModelProto) -> EncoderLayers:
    return read_layers(graph)


def expected_paths(family: Family) -> list[str]:
    blocks, paths, _ = FAMILIES[family.name]
    before = ["embeddings_project"] if family.name == "electra" else []
    return before + [path.format(block) for block in range(blocks) for path in paths]


def test_linear_layers_are_those_of_the_architecture(layers: EncoderLayers, family: Family) -> None:
    assert sorted(layer.path for layer in layers.linears) == sorted(expected_paths(family))
    has_bias = family.name not in ("modernbert", "qwen3")
    assert {layer.bias is not None for layer in layers.linears} == {has_bias}
    assert {layer.output_axis for layer in layers.linears} == {1}


def test_shapes_are_those_of_pytorch(
    layers: EncoderLayers, graph: onnx.ModelProto, exported: Exported
) -> None:
    modules = dict(exported.encoder.transformer.named_modules())
    stored = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer}
    for layer in layers.linears:
        weight = modules[layer.path].weight
        assert stored[layer.weight] == tuple(weight.shape)[::-1]


def test_ends_of_feed_forward_blocks(layers: EncoderLayers, family: Family) -> None:
    blocks, paths, _ = FAMILIES[family.name]
    assert [layer.path for layer in match("ffn.down", layers)] == [
        paths[-1].format(block) for block in range(blocks)
    ]


def test_attention_is_two_products_a_block(layers: EncoderLayers, family: Family) -> None:
    blocks, _, _ = FAMILIES[family.name]
    assert len(layers.attention) == 2 * blocks
    assert not [name for name in layers.attention if "rotary" in name]


def test_embeddings_are_pytorch_s_tables(
    layers: EncoderLayers, family: Family, exported: Exported
) -> None:
    modules = dict(exported.encoder.transformer.named_modules())
    assert len(layers.embeddings) == FAMILIES[family.name][2]
    for table in layers.embeddings:
        assert modules[table.path].weight.shape[0] == table.num_rows


def test_the_head_is_not_the_encoder(layers: EncoderLayers) -> None:
    assert layers.head
    modules = {name.partition("/")[0] for name in layers.head if "/" in name}
    assert modules <= {"pooling", "normalize"}


@pytest.mark.openvino
def test_openvino_s_graph_shows_the_same(layers: EncoderLayers, exported: Exported) -> None:
    """An independent reading: another graph, another implementation."""
    openvino = pytest.importorskip("openvino")
    from targets.openvino.layers import find_layers

    # As it is read, before attention is fused into one node.
    found = find_layers(openvino.Core().read_model(exported.artifact.path))
    assert [(one.node, one.path, one.ends_ffn) for one in found.linears] == [
        (one.node, one.path, one.ends_ffn)
        for one in sorted(layers.linears, key=lambda one: _place(found.linears, one.node))
    ]
    assert set(found.attention) == set(layers.attention)
    assert layers.head & {one.node for one in found.linears} == set()


def _place(linears: tuple[object, ...], node: str) -> int:
    return [one.node for one in linears].index(node)  # type: ignore[attr-defined]


def test_every_layer_in_int8_still_says_the_same(
    layers: EncoderLayers, graph: onnx.ModelProto, exported: Exported
) -> None:
    ids = np.stack([tokens for tokens in exported.tokens if len(tokens) == 40]).astype(np.int64)
    values = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }
    feeds = {value.name: values[value.name] for value in graph.graph.input}
    plan = QdqPlan(
        layers=tuple(
            LayerPlan(
                layer=layer,
                activation=chosen,
                integers="U8S8",
                symmetric=False,
                reduce_range=adds_pairs_with_saturation(open_device("local").hardware()),
            )
            for layer, chosen in zip(layers.linears, _ranges(graph, layers, feeds), strict=True)
        )
    )
    quantized = insert_qdq(graph, plan)
    onnx.checker.check_model(quantized, full_check=True)
    validate_qdq(quantized, layers, [one.path for one in layers.linears], symmetric=False)
    exact, rounded = (_run(one, ["sentence_embedding"], feeds)[0] for one in (graph, quantized))
    cosines = (exact * rounded).sum(axis=1)
    assert cosines.min() > 0.99
    assert cosines.max() < 1


def _ranges(
    model: onnx.ModelProto, layers: EncoderLayers, feeds: dict[str, np.ndarray]
) -> list[Range]:
    names = [layer.activation for layer in layers.linears]
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names))
    seen = _run(shown, names, feeds)
    return [Range(low=min(0.0, float(one.min())), high=max(0.0, float(one.max()))) for one in seen]


def _run(
    model: onnx.ModelProto, outputs: list[str], feeds: dict[str, np.ndarray]
) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    result: list[np.ndarray] = session.run(outputs, feeds)
    return result
