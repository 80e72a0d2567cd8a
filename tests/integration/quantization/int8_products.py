"""Multiplies bytes in OpenVINO: `python int8_products.py IN.npz OUT.npz`, one layer after another.

A program of its own, because oneDNN reads `ONEDNN_MAX_CPU_ISA` once in a process.
IN holds `activations.<layer>` [rows, channels] uint8 and `weights.<layer>` [out, channels] int8;
OUT gets `<layer>` [rows, out] float32.
"""

from __future__ import annotations

import sys

import numpy as np
from onnx import TensorProto, helper, numpy_helper

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


def product_graph(weights: np.ndarray) -> bytes:
    """One linear layer with Q/DQ whose scales are 1 and whose zero points are 0."""
    outputs, channels = weights.shape
    stored = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "weights": np.ascontiguousarray(weights.T),
        "ones": np.ones(outputs, np.float32),
        "zeros": np.zeros(outputs, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["q"], name="q"),
        helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["dq"], name="dq"),
        helper.make_node("DequantizeLinear", ["weights", "ones", "zeros"], ["w"], axis=1, name="w"),
        helper.make_node("MatMul", ["dq", "w"], ["y"], name="product"),
    ]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", channels])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", outputs])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


def multiply(core, activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "2"}
    model = core.read_model(product_graph(weights))
    compiled = core.compile_model(model, "CPU", options)
    kernels = {
        info["primitiveType"].value
        for info in (node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops())
        if info["layerType"].value == "FullyConnected"
    }
    if not all(kernel.endswith("I8") for kernel in kernels) or not kernels:
        raise RuntimeError(f"the product does not run in int8 but in {sorted(kernels)}")
    return compiled([activations.astype(np.float32)])[0]


def main(source: str, destination: str) -> None:
    import openvino

    core = openvino.Core()
    with np.load(source, allow_pickle=False) as data:
        layers = sorted({name.partition(".")[2] for name in data})
        products = {
            layer: multiply(core, data[f"activations.{layer}"], data[f"weights.{layer}"])
            for layer in layers
        }
    np.savez(destination, **products)


if __name__ == "__main__":
    main(*sys.argv[1:])
