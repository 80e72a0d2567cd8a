"""The transformer in float16, what is behind it in float32, and nothing that overflows."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from contract.tiny_graph import build_model, make_tokens, make_weights
from onnx import TensorProto, numpy_helper

from targets.errors import CompileError
from targets.quantization.layers import read_layers
from targets.tensorrt.half import MASKED, to_half

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16


def encoder(masked: float | None = None) -> onnx.ModelProto:
    """The tiny encoder, its mask constant replaced."""
    model = build_model(make_weights(0))
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if masked is not None and values.size == 1 and values.reshape(-1)[0] == -10000.0:
            changed = np.full(values.shape, masked, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    return model


def run(model: onnx.ModelProto, *, nothing_unmasked: bool = False) -> list[np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    tokens = make_tokens(4)
    ids = np.zeros((4, int(tokens.lengths.max())), np.int64)
    for row, text in enumerate(tokens):
        ids[row, : len(text)] = text
    mask = (ids != 0).astype(np.int64)
    if nothing_unmasked:
        mask[-1] = 0
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return session.run(None, feeds)


def types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model)
    values = (*inferred.graph.value_info, *inferred.graph.output)
    return {one.name: one.type.tensor_type.elem_type for one in values}


def test_the_transformer_is_half_and_its_outputs_are_not():
    model = to_half(encoder())
    onnx.checker.check_model(model, full_check=True)
    found = types(model)
    assert found["last_hidden_state"] == found["sentence_embedding"] == FLOAT
    products = [node.output[0] for node in model.graph.node if node.op_type == "MatMul"]
    assert {found[name] for name in products} == {HALF}
    weights = {layer.weight for layer in read_layers(model).linears}
    stored = {one.name: one.data_type for one in model.graph.initializer}
    assert {stored[name] for name in weights} == {HALF}


def test_layers_keep_their_names():
    model = encoder()
    assert read_layers(to_half(model)).linears == read_layers(model).linears


def test_the_original_is_left_alone():
    model = encoder()
    before = model.SerializeToString()
    to_half(model)
    assert model.SerializeToString() == before


def test_it_computes_the_same_to_half_precision():
    exact, half = run(encoder()), run(to_half(encoder()))
    for left, right in zip(exact, half, strict=True):
        assert right.dtype == np.float32
        np.testing.assert_allclose(left, right, atol=0.02)


def test_a_row_of_nothing_but_padding_is_finite():
    lowest = float(np.finfo(np.float32).min)
    for row in run(to_half(encoder(lowest)), nothing_unmasked=True):
        assert np.isfinite(row).all()
    stored = [numpy_helper.to_array(one) for one in to_half(encoder(lowest)).graph.initializer]
    assert any(one.size == 1 and one.reshape(-1)[0] == np.float16(MASKED) for one in stored)


def test_without_the_clamp_it_would_not_be(monkeypatch):
    """The negative twin: minus infinity in a whole row makes softmax NaN."""
    monkeypatch.setattr("targets.tensorrt.half.MASKED", float("-inf"))
    lowest = float(np.finfo(np.float32).min)
    with pytest.raises(CompileError, match="does not fit into float16"):
        to_half(encoder(lowest))


def test_a_weight_beyond_float16_is_refused_by_name():
    model = encoder()
    layer = read_layers(model).linears[0]
    for tensor in model.graph.initializer:
        if tensor.name == layer.weight:
            values = numpy_helper.to_array(tensor).copy()
            values[0, 0] = 1e6
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    with pytest.raises(CompileError, match="does not fit into float16") as caught:
        to_half(model)
    assert layer.weight in str(caught.value)


def test_what_both_sides_read_is_stored_twice():
    model = encoder()
    shared = "embeddings.LayerNorm.bias"
    model.graph.node.append(
        onnx.helper.make_node("Add", ["sentence_embedding", shared], ["more"], name="more/Add")
    )
    model.graph.output.append(onnx.helper.make_tensor_value_info("more", FLOAT, None))
    changed = to_half(model)
    stored = {one.name: one.data_type for one in changed.graph.initializer}
    assert (stored[shared], stored[f"{shared}_half"]) == (FLOAT, HALF)
    assert len(run(changed)) == 3
