"""What a simulated Q/DQ graph says of an int8 product is what integer kernels compute.

ONNX Runtime multiplies what was dequantized, in float; tensor cores multiply integers and scale the
sum. Within float32's own rounding both are the same number: that is why simulated fidelity speaks
for the GPU. The integer product is torch's, here on the CPU, on a GPU where there is one.
"""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

ROWS, INNER, COLUMNS = 32, 384, 1536
"""The shape of a feed-forward layer of all-MiniLM-L6-v2; torch's kernel wants more than 16 rows."""
RNG = np.random.default_rng(7)
VALUES = RNG.normal(size=(ROWS, INNER)).astype(np.float32)
SCALE = np.float32(np.abs(VALUES).max() * 0.8 / 127)  # some values are clipped
WEIGHT = RNG.integers(-127, 128, (INNER, COLUMNS)).astype(np.int8)
WEIGHT_SCALES = RNG.uniform(1e-4, 1e-2, COLUMNS).astype(np.float32)


def simulated() -> np.ndarray:
    """Run the pair and the product as ONNX Runtime simulates them."""
    stored = {
        "scale": SCALE,
        "zero": np.int8(0),
        "weight": WEIGHT,
        "weight_scales": WEIGHT_SCALES,
        "weight_zeros": np.zeros(COLUMNS, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node(
            "DequantizeLinear", ["weight", "weight_scales", "weight_zeros"], ["w"], axis=1
        ),
        helper.make_node("MatMul", ["d", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [ROWS, INNER])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [ROWS, COLUMNS])],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(["y"], {"x": VALUES})[0]


def by_integers(device: str, weight_scales: np.ndarray) -> np.ndarray:
    """Multiply integers exactly, then scale."""
    integers = np.clip(np.rint(VALUES / SCALE), -128, 127).astype(np.int8)
    one, columns = (torch.from_numpy(v).to(device) for v in (integers, WEIGHT.T.copy()))
    other = columns.T  # behind each other by column: the only layout that Hopper multiplies
    sums = torch._int_mm(one, other).cpu().numpy()
    assert sums.dtype == np.int32
    return sums * (SCALE.astype(np.float64) * weight_scales)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs an NVIDIA GPU and torch for CUDA")
    return request.param


def test_the_simulated_product_is_the_integer_product(device):
    found, wanted = simulated(), by_integers(device, WEIGHT_SCALES)
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


def test_a_scale_along_the_wrong_axis_is_another_number(device):
    wrong = by_integers(device, np.roll(WEIGHT_SCALES, 1))
    assert not np.allclose(simulated(), wrong, atol=1e-2 * np.abs(wrong).max())
