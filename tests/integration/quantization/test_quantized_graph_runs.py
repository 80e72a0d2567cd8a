"""Q/DQ graphs in the real runtimes: right values, integers where they were planned."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from contract.tiny_graph import LINEAR_PATHS
from onnx import TensorProto, helper
from quantized_runs import (
    Feeds,
    cosines,
    observed_ranges,
    optimized_by_ort,
    plan_all,
    random_feeds,
    run_openvino,
    run_ort,
)
from unit.quantization.qdq_cases import (
    FAN_IN,
    FAN_OUT,
    FORMS,
    SCHEMES,
    check,
    encoder,
    linear,
    lookup,
    plan_for,
    stored,
)

from targets.errors import CompileError
from targets.hardware.precisions import adds_pairs_with_saturation
from targets.quantization.calibrators import Range
from targets.quantization.layers import EncoderLayers, read_layers
from targets.quantization.qdq import insert_qdq
from targets.quantization.validate import validate_qdq
from targets.registry import open_device

INTEGER_PRODUCT = "MatMulIntegerToFloat"
NUM_LINEARS = len(LINEAR_PATHS)
SATURATES = adds_pairs_with_saturation(open_device("local").hardware())
"""This CPU's fused kernels are only exact where weights keep seven bits."""


@dataclass(frozen=True)
class Case:
    """A float graph with what quantizing it needs, and what it computes."""

    model: onnx.ModelProto
    layers: EncoderLayers
    ranges: dict[str, Range]
    feeds: Feeds
    reference: np.ndarray

    def quantized(self, integers: str, symmetric: bool = False, **options) -> onnx.ModelProto:
        plan = plan_all(self.layers, self.ranges, integers, symmetric, **options)
        result = insert_qdq(self.model, plan)
        paths = [one.layer.path for one in plan.layers]
        validate_qdq(result, self.layers, paths, symmetric=symmetric)
        return result


def make_case(model: onnx.ModelProto) -> Case:
    layers = read_layers(model)
    batches = [random_feeds(model, (4, 32), seed) for seed in range(3)]
    feeds = random_feeds(model, (3, 24), 100)
    return Case(
        model=model,
        layers=layers,
        ranges=observed_ranges(model, layers, batches),
        feeds=feeds,
        reference=run_ort(model, feeds),
    )


@pytest.fixture(scope="module")
def tiny() -> Case:
    return make_case(encoder())


@pytest.fixture(scope="module")
def minilm(minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    from exporter.source.encoder import load_encoder
    from exporter.source.onnx_export import export_onnx
    from exporter.source.resolve import resolve_encoder

    source = load_encoder(resolve_encoder(str(minilm_dir)))
    artifact = export_onnx(source, tmp_path_factory.mktemp("minilm"))
    return make_case(onnx.load(str(artifact.path)))


# --------------------------------------------------------------------------- single layers

X = np.random.default_rng(3).normal(size=(5, FAN_IN)).astype(np.float32) * 2
LOW, HIGH = -4.0, 6.0


def in_numpy(
    integers: str, symmetric: bool, *, reduced: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """One layer as the formulas say: integers of the activation, and the output in float64."""
    signed = integers.startswith("S")
    scale = np.float32(HIGH / 127 if symmetric else (HIGH - LOW) / 255)
    zero_point = 0 if symmetric else round(-LOW / float(scale)) - 128 * signed
    ends = (-128, 127) if signed else (0, 255)
    x = np.clip(np.rint(X / scale) + zero_point, *ends).astype(np.int64)
    model = linear("matmul")
    weight, bias = stored(model, "W"), stored(model, "b").astype(np.float64)
    steps = np.abs(weight).max(axis=0) / np.float32(63 if reduced else 127)
    w = np.rint(weight / steps).astype(np.int64)
    return x, (x - zero_point) @ w * (scale.astype(np.float64) * steps) + bias


@pytest.mark.parametrize(("integers", "symmetric"), SCHEMES)
def test_a_layer_is_the_formulas_to_the_last_digits(integers: str, symmetric: bool) -> None:
    model = linear("matmul")
    result = insert_qdq(model, plan_for(model, integers=integers, symmetric=symmetric))
    kind = TensorProto.INT8 if integers.startswith("S") else TensorProto.UINT8
    result.graph.output.append(helper.make_tensor_value_info("x_quantized", kind, [None, FAN_IN]))
    x, expected = in_numpy(integers, symmetric)
    seen = run_ort(result, {"x": X}, optimized=False, output="x_quantized")
    np.testing.assert_array_equal(seen, x)
    output = run_ort(result, {"x": X}, optimized=False, output="last_hidden_state")
    # Sums of six products: a few roundings in float32 of the largest summand.
    np.testing.assert_allclose(output, expected, rtol=3e-7, atol=3e-7 * np.abs(expected).max())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("integers", "symmetric"), SCHEMES)
def test_every_form_runs_alike(form: str, integers: str, symmetric: bool) -> None:
    model = linear(form)
    plan = plan_for(model, integers=integers, symmetric=symmetric, reduce_range=SATURATES)
    result = insert_qdq(model, plan)
    plain, fast = (
        run_ort(result, {"x": X}, optimized=one, output="last_hidden_state")
        for one in (False, True)
    )
    np.testing.assert_allclose(fast, plain, rtol=1e-6, atol=1e-5)
    expected = in_numpy(integers, symmetric, reduced=SATURATES)[1]
    bias = 0 if form != "matmul_no_bias" else stored(linear("matmul"), "b")
    np.testing.assert_allclose(plain + bias, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("form", ["matmul", "transpose", "identity", "constant_node"])
def test_every_form_becomes_an_integer_product(form: str) -> None:
    """With batches of texts, as encoders have them; two axes are fused into a float Gemm first."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "length", FAN_IN])
    model = linear(form, inputs=(x,), rank=3)
    result = insert_qdq(model, plan_for(model))
    assert Counter(n.op_type for n in optimized_by_ort(result).graph.node)[INTEGER_PRODUCT] == 1


@pytest.mark.openvino
@pytest.mark.parametrize("form", FORMS)
def test_openvino_runs_every_form_in_integers(form: str) -> None:
    pytest.importorskip("openvino")
    model = linear(form)
    result = insert_qdq(model, plan_for(model, reduce_range=SATURATES))
    seen = run_openvino(result, {"x": X}, "last_hidden_state")
    expected = run_ort(result, {"x": X}, optimized=False, output="last_hidden_state")
    np.testing.assert_allclose(seen.output, expected, rtol=1e-6, atol=1e-5)
    assert (seen.num_int8, seen.num_float) == (1, 0)


# -------------------------------------------------------------------------------- encoders


def test_schemes_stand_for_the_same_values(tiny: Case) -> None:
    """Unsigned or signed, the floats behind the integers are the same, bit by bit."""
    outputs = [
        run_ort(tiny.quantized(one), tiny.feeds, optimized=False)
        for one in ("U8S8", "S8S8", "U8U8")
    ]
    assert np.array_equal(outputs[0], outputs[1])
    assert np.array_equal(outputs[0], outputs[2])
    assert not np.array_equal(outputs[0], tiny.reference)


@pytest.mark.parametrize(("integers", "symmetric"), SCHEMES)
def test_a_tiny_encoder_keeps_its_meaning(tiny: Case, integers: str, symmetric: bool) -> None:
    result = tiny.quantized(integers, symmetric, reduce_range=SATURATES)
    plain, fast = (run_ort(result, tiny.feeds, optimized=one) for one in (False, True))
    assert cosines(plain, tiny.reference).min() > 0.999
    assert cosines(fast, plain).min() > 0.999


@pytest.mark.parametrize("integers", ["U8S8", "U8U8"])
def test_onnx_runtime_multiplies_integers_in_every_planned_layer(tiny: Case, integers: str) -> None:
    counts = Counter(n.op_type for n in optimized_by_ort(tiny.quantized(integers)).graph.node)
    assert counts[INTEGER_PRODUCT] == NUM_LINEARS
    partly = tiny.quantized(integers, keep_ffn_down=True)
    counts = Counter(n.op_type for n in optimized_by_ort(partly).graph.node)
    assert counts[INTEGER_PRODUCT] == NUM_LINEARS - 2


@pytest.mark.openvino
@pytest.mark.parametrize(("integers", "symmetric"), SCHEMES[:3])
def test_openvino_multiplies_integers_in_every_planned_layer(
    tiny: Case, integers: str, symmetric: bool
) -> None:
    pytest.importorskip("openvino")
    result = tiny.quantized(integers, symmetric, reduce_range=SATURATES)
    seen = run_openvino(result, tiny.feeds)
    assert (seen.num_int8, seen.num_float) == (NUM_LINEARS, 0)
    assert cosines(seen.output, tiny.reference).min() > 0.999
    partly = run_openvino(tiny.quantized(integers, symmetric, keep_ffn_down=True), tiny.feeds)
    assert (partly.num_int8, partly.num_float) == (NUM_LINEARS - 2, 2)


@pytest.mark.openvino
def test_openvino_multiplies_floats_where_weights_are_unsigned(tiny: Case) -> None:
    """The reason why U8U8 is no scheme for OpenVINO; its own figures claim u8."""
    pytest.importorskip("openvino")
    seen = run_openvino(tiny.quantized("U8U8"), tiny.feeds)
    assert seen.num_int8 == 0
    assert cosines(seen.output, tiny.reference).min() > 0.999


# ------------------------------------------------------------------------------ embeddings

IDS = {"input_ids": np.array([[0, 1, 1499, 700, 3, 3, 0, 1024]])}


@pytest.mark.parametrize("embeddings", ["int8", "float16"])
def test_small_embeddings_run_alike(embeddings: str) -> None:
    model = lookup()
    result = insert_qdq(model, plan_for(model, set(), embeddings=embeddings))
    plain, fast = (
        run_ort(result, IDS, optimized=one, output="last_hidden_state") for one in (False, True)
    )
    exact = run_ort(model, IDS, output="last_hidden_state")
    np.testing.assert_allclose(fast, plain, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(plain, exact, rtol=0.05, atol=0.02 * np.abs(exact).max())
    assert plain.shape == (1, 8, FAN_OUT)


def test_onnx_runtime_keeps_the_table_in_integers() -> None:
    model = lookup()
    result = insert_qdq(model, plan_for(model, set(), embeddings="int8"))
    stored_tables = {
        tensor.data_type
        for tensor in optimized_by_ort(result).graph.initializer
        if list(tensor.dims) == [1500, FAN_IN]
    }
    assert stored_tables == {TensorProto.INT8}


@pytest.mark.openvino
@pytest.mark.parametrize("embeddings", ["int8", "float16"])
def test_small_embeddings_in_openvino(embeddings: str) -> None:
    pytest.importorskip("openvino")
    model = lookup()
    result = insert_qdq(model, plan_for(model, set(), embeddings=embeddings))
    seen = run_openvino(result, IDS, "last_hidden_state")
    plain = run_ort(result, IDS, optimized=False, output="last_hidden_state")
    np.testing.assert_allclose(seen.output, plain, rtol=1e-5, atol=1e-5)
    assert ("i8" in seen.lookups) is (embeddings == "int8")


# -------------------------------------------------------------------------- the real model


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize(("integers", "symmetric"), SCHEMES)
def test_the_real_encoder_stays_close(minilm: Case, integers: str, symmetric: bool) -> None:
    result = minilm.quantized(integers, symmetric)
    check(result)
    plain, fast = (run_ort(result, minilm.feeds, optimized=one) for one in (False, True))
    assert cosines(plain, minilm.reference).min() > 0.9
    assert cosines(fast, minilm.reference).min() > 0.9
    assert result.ByteSize() < 0.66 * minilm.model.ByteSize()


@pytest.mark.model
@pytest.mark.slow
def test_the_real_encoder_with_small_embeddings(minilm: Case) -> None:
    result = minilm.quantized("U8S8", embeddings="int8")
    assert result.ByteSize() < 0.27 * minilm.model.ByteSize()
    assert cosines(run_ort(result, minilm.feeds), minilm.reference).min() > 0.9
    counts = Counter(n.op_type for n in optimized_by_ort(result).graph.node)
    assert counts[INTEGER_PRODUCT] == 36


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.openvino
def test_the_real_encoder_in_openvino(minilm: Case) -> None:
    pytest.importorskip("openvino")
    result = minilm.quantized("U8S8", embeddings="int8", keep_ffn_down=True)
    seen = run_openvino(result, minilm.feeds)
    assert (seen.num_int8, seen.num_float) == (30, 6)
    assert cosines(seen.output, minilm.reference).min() > 0.95


@pytest.mark.model
@pytest.mark.slow
def test_a_wrong_axis_is_accepted_by_all_but_us(minilm: Case) -> None:
    """onnx finds it valid, and ONNX Runtime's integer product does not even look at the axis."""
    result = minilm.quantized("U8S8")
    for node in result.graph.node:
        if node.op_type == "DequantizeLinear" and node.attribute:
            rows, columns = stored(result, node.input[0]).shape
            node.attribute[0].i = int(rows != columns)
    check(result)
    plain, fast = (run_ort(result, minilm.feeds, optimized=one) for one in (False, True))
    assert cosines(plain, minilm.reference).max() < 0.9
    assert cosines(fast, minilm.reference).min() > 0.9
    with pytest.raises(CompileError, match="one scale for each output channel"):
        validate_qdq(
            result, minilm.layers, [one.path for one in minilm.layers.linears], symmetric=False
        )
