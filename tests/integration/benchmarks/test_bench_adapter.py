"""The peers' adapter in the real runner: both runtimes against the same sum in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import contenders
from targets.contract import Batching, RunPlan, TokenSequences
from targets.devices.local import LocalDevice
from targets.errors import RunnerFailedError

pytestmark = pytest.mark.openvino

# The runner's first call takes ids below 900.
VOCABULARY, DIM = 1000, 8
TOKENS = TokenSequences.from_lists([[5, 7, 9], [11], list(range(2, 20))], 0)


def table() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(VOCABULARY, DIM)).astype(np.float32)


def write_graph(path: Path, output: str) -> Path:
    """A graph whose token states are the rows of a table, scaled by the mask plus one.

    So the padding has states of its own, which pooling must leave out.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    shape = ["batch_size", "sequence_length"]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, shape)
        for name in ("input_ids", "attention_mask")
    ]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "axis"], ["column"]),
        helper.make_node("Add", ["rows", "column"], [output]),
    ]
    states = helper.make_tensor_value_info(output, TensorProto.FLOAT, [*shape, DIM])
    weights = [
        numpy_helper.from_array(table(), "table"),
        numpy_helper.from_array(np.array([2], np.int64), "axis"),
    ]
    graph = helper.make_graph(nodes, "states", inputs, [states], weights)
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


def to_ir(path: Path) -> Path:
    import openvino

    openvino.save_model(openvino.Core().read_model(path), path.with_suffix(".xml"))
    return path.with_suffix(".xml")


def plan_for(model: Path) -> RunPlan:
    return RunPlan(
        adapter=contenders._ADAPTER,
        model=model,
        inputs=("input_ids", "attention_mask"),
        output="last_hidden_state",
        pad_token_id=0,
        embedding_dim=DIM,
        max_seq_length=32,
        length_multiple=1,
        max_batch_tokens=1024,
    )


def expected() -> np.ndarray:
    rows = np.stack([(table()[text] + 1.0).mean(axis=0) for text in TOKENS])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_embeddings_are_the_normalized_mean_of_real_tokens(tmp_path, runtime):
    graph = write_graph(tmp_path / "model.onnx", "last_hidden_state")
    model = graph if runtime == "onnxruntime" else to_ir(graph)
    with LocalDevice().start(plan_for(model), 1) as runner:
        together = runner.embed(TOKENS)
        alone = runner.embed(TOKENS, Batching(max_batch=1))
        info = runner.info()
    # OpenVINO may take bfloat16 by itself: eight bits of mantissa.
    tolerance = 1e-6 if runtime == "onnxruntime" else 2e-2
    np.testing.assert_allclose(together, expected(), atol=tolerance)
    np.testing.assert_allclose(alone, expected(), atol=tolerance)
    assert runtime in info.tool_versions
    threads = {"onnxruntime": "intra_op_num_threads", "openvino": "INFERENCE_NUM_THREADS"}
    assert info.options[threads[runtime]] == "1"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_graph_without_token_states_is_refused(tmp_path, runtime):
    graph = write_graph(tmp_path / "model.onnx", "something_else")
    model = graph if runtime == "onnxruntime" else to_ir(graph)
    with pytest.raises(RunnerFailedError, match="load failed") as caught:
        LocalDevice().start(plan_for(model), 1)
    assert "last_hidden_state" in caught.value.why
