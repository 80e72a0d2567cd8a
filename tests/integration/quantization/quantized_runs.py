"""Running a graph in ONNX Runtime and OpenVINO, and reading back what they made of it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from targets.quantization.calibrators import Range
from targets.quantization.layers import EncoderLayers
from targets.quantization.qdq import LayerPlan, QdqPlan

Feeds = dict[str, np.ndarray]
OUTPUT = "sentence_embedding"
INTEGERS = ("i8", "u8")


def random_feeds(model: onnx.ModelProto, shape: tuple[int, int], seed: int) -> Feeds:
    """Random token ids, the last text padded."""
    (words,) = (node.input[0] for node in model.graph.node if "input_ids" in node.input[1:])
    (vocabulary,) = (one.dims[0] for one in model.graph.initializer if one.name == words)
    ids = np.random.default_rng(seed).integers(5, vocabulary, shape)
    mask = np.ones_like(ids)
    mask[-1, shape[1] // 2 :] = 0
    values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {value.name: values[value.name].astype(np.int64) for value in model.graph.input}


def observed_ranges(
    model: onnx.ModelProto, layers: EncoderLayers, batches: Sequence[Feeds]
) -> dict[str, Range]:
    """Extremes of every layer's activation over the batches."""
    names = sorted({layer.activation for layer in layers.linears})
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = _session(shown, optimized=True)
    seen = [session.run(names, feeds) for feeds in batches]
    return {
        name: Range(
            low=min(0.0, *(float(run[place].min()) for run in seen)),
            high=max(0.0, *(float(run[place].max()) for run in seen)),
        )
        for place, name in enumerate(names)
    }


def plan_all(
    layers: EncoderLayers,
    ranges: dict[str, Range],
    integers: str,
    symmetric: bool,
    *,
    embeddings: str = "float32",
    keep_ffn_down: bool = False,
    reduce_range: bool = False,
) -> QdqPlan:
    """Plan every layer with its observed range."""
    return QdqPlan(
        layers=tuple(
            LayerPlan(
                layer=layer,
                activation=ranges[layer.activation],
                integers=integers,  # type: ignore[arg-type]
                symmetric=symmetric,
                reduce_range=reduce_range,
            )
            for layer in layers.linears
            if not (keep_ffn_down and layer.ends_ffn)
        ),
        embeddings=embeddings,  # type: ignore[arg-type]
    )


def run_ort(
    model: onnx.ModelProto, feeds: Feeds, *, optimized: bool = True, output: str | None = OUTPUT
) -> np.ndarray:
    """Run in ONNX Runtime on one thread."""
    result: np.ndarray = _session(model, optimized=optimized).run(output and [output], feeds)[0]
    return result


def optimized_by_ort(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph that ONNX Runtime executes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options = _options(optimized=True)
        options.optimized_model_filepath = str(path)
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(str(path))


def _options(*, optimized: bool) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not optimized:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _session(model: onnx.ModelProto, *, optimized: bool) -> ort.InferenceSession:
    return ort.InferenceSession(
        model.SerializeToString(),
        _options(optimized=optimized),
        providers=["CPUExecutionProvider"],
    )


@dataclass(frozen=True)
class OpenVinoRun:
    """An output, and the operand types of every fully connected layer and lookup."""

    output: np.ndarray
    fully_connected: list[tuple[str, str]]
    lookups: list[str]

    @property
    def num_int8(self) -> int:
        """Layers whose two operands are integers.

        `runtimePrecision` does not tell: it says u8 of a float product with u8 weights too.
        """
        return sum(one in INTEGERS and two in INTEGERS for one, two in self.fully_connected)

    @property
    def num_float(self) -> int:
        return len(self.fully_connected) - self.num_int8


def run_openvino(model: onnx.ModelProto, feeds: Feeds, output: str = OUTPUT) -> OpenVinoRun:
    """Compile and run in OpenVINO, everything that is not int8 in float32."""
    import openvino

    core = openvino.Core()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        compiled = core.compile_model(core.read_model(path), "CPU", hints)
    result = compiled(feeds)[output].copy()
    nodes = compiled.get_runtime_model().get_ordered_ops()
    return OpenVinoRun(
        output=result,
        fully_connected=[_operands(node) for node in nodes if _kind(node) == "FullyConnected"],
        lookups=[_operands(node)[0] for node in nodes if _kind(node) == "Gather"],
    )


def _kind(node: object) -> str:
    return str(node.get_rt_info()["layerType"].astype(str))  # type: ignore[attr-defined]


def _operands(node: object) -> tuple[str, str]:
    inputs = node.inputs()[:2]  # type: ignore[attr-defined]
    first, second = (one.get_element_type().to_string() for one in inputs)
    return first, second


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    result: np.ndarray = (one * other).sum(axis=-1) / norms
    return result
