"""OpenVINO's side of the runner: one file that travels to the device.

Imports numpy and OpenVINO only; the runner loads it by its path and calls
`open_session`. Property names: OpenVINO 2026.4, `openvino/runtime/properties.hpp`.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Inputs = dict[str, NDArray[np.int64]]
ExecutedRow = tuple[str, str, int, float | None]

_DEVICE = "CPU"
_PRECISION = "INFERENCE_PRECISION_HINT"
_READ_BACK = (
    _PRECISION,
    "EXECUTION_MODE_HINT",
    "PERFORMANCE_HINT",
    "NUM_STREAMS",
    "INFERENCE_NUM_THREADS",
    "ENABLE_CPU_PINNING",
    "ENABLE_HYPER_THREADING",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE",
    "RUNTIME_REQUIREMENTS",
)
_STREAMS = "NUM_STREAMS"
_ISA_CAP = "ONEDNN_MAX_CPU_ISA"

_GEMM_LAYERS = frozenset({"FullyConnected", "MatMul", "Convolution", "Subgraph"})
"""Layers that multiply matrices; a Subgraph is a fused attention."""
_DTYPES = {
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "i8": "int8",
    "u8": "uint8",
    "i16": "int16",
    "u16": "uint16",
    "i32": "int32",
    "u32": "uint32",
    "i64": "int64",
    "u64": "uint64",
    "i4": "int4",
    "u4": "uint4",
    "boolean": "bool",
    "dynamic": "unknown",  # a constant that was freed after its weights had been packed
    "undefined": "unknown",
}


class Plan(Protocol):
    """What this file reads of the runner's plan."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Graph input names."""

    @property
    def output(self) -> str:
        """Name of the embedding output."""

    @property
    def options(self) -> Mapping[str, str]:
        """OpenVINO properties; the precision hint must be among them."""

    @property
    def num_threads(self) -> int:
        """CPU threads."""


def open_session(model: Path, plan: Plan) -> OpenVinoSession:
    """Read an IR or ONNX file and compile it for the CPU.

    Args:
        model: the `.xml` (weights beside it) or `.onnx` file.
        plan: names, options and threads.

    Raises:
        ValueError: if the plan leaves the inference precision to OpenVINO, which would
            take bfloat16 without a word where the CPU has it, or names a tensor that
            the graph lacks.
        ImportError: if OpenVINO is not installed.
        RuntimeError: from OpenVINO: an unreadable model or an unknown property.
    """
    if _PRECISION not in plan.options:
        raise ValueError(f"the plan sets no {_PRECISION}")
    _silence_telemetry()
    import openvino

    graph = openvino.Core().read_model(model)
    _check_names(graph, plan)
    several = plan.options.get(_STREAMS, "1") not in ("0", "1")
    return StreamedSession(graph, plan) if several else OpenVinoSession(graph, plan)


def _silence_telemetry() -> None:
    """Keep OpenVINO from reporting its import to a web service from a forked process.

    A module that is None cannot be imported; OpenVINO then uses its own silent stub
    (`openvino/tools/ovc/telemetry_utils.py`).
    """
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)


def _check_names(graph: Any, plan: Plan) -> None:  # noqa: ANN401 - openvino is untyped
    inputs = {name for port in graph.inputs for name in port.get_names()}
    outputs = {name for port in graph.outputs for name in port.get_names()}
    if len(plan.inputs) != len(graph.inputs) or not inputs >= set(plan.inputs):
        raise ValueError(f"the plan feeds {list(plan.inputs)}, the graph takes {sorted(inputs)}")
    if plan.output not in outputs:
        raise ValueError(f"no output {plan.output!r} among {sorted(outputs)}")


class OpenVinoSession:
    """A compiled model with one reused infer request."""

    def __init__(self, graph: Any, plan: Plan) -> None:  # noqa: ANN401 - openvino is untyped
        self._graph = graph
        self._properties = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(plan.num_threads),
            **plan.options,
        }
        self._output = plan.output
        self._compiled = self._compile({})
        self._request = self._compiled.create_infer_request()
        self._fed: Inputs = {}

    def _compile(self, extra: Mapping[str, str]) -> Any:  # noqa: ANN401 - openvino is untyped
        import openvino

        return openvino.Core().compile_model(self._graph, _DEVICE, {**self._properties, **extra})

    def run(self, inputs: Inputs) -> NDArray[np.float32]:
        """Embed one padded batch.

        Args:
            inputs: int64 arrays, shape [batch, length], contiguous; read in place.

        Returns:
            A copy of the embedding output, shape [batch, dim], float32.
        """
        embeddings = _infer(self._request, inputs, self._output)
        self._fed = inputs  # the request points into these arrays until it is fed others
        return embeddings

    def inspect(self, inputs: Inputs) -> list[ExecutedRow]:
        """Compile once more with counters and say what one batch executed.

        The session that is timed stays without counters. The second run is read: the
        first one also pays for building the kernels of this shape.
        """
        compiled = self._compile({"PERF_COUNT": "YES"})
        request = compiled.create_infer_request()
        for _ in range(2):
            _infer(request, inputs, self._output)
        times_us = _executed_us(request.get_profiling_info())
        return _aggregate(compiled.get_runtime_model(), times_us)

    def versions(self) -> dict[str, str]:
        """Return OpenVINO's build."""
        import openvino

        return {"openvino": openvino.get_version()}

    def options(self) -> dict[str, str]:
        """Return the properties that are in effect, in OpenVINO's own spelling.

        An instruction set capped by the environment belongs to them.
        """
        supported = set(self._compiled.get_property("SUPPORTED_PROPERTIES"))
        asked = dict.fromkeys((*_READ_BACK, *sorted(self._properties)))
        effective = {
            name: _spell(self._compiled.get_property(name)) for name in asked if name in supported
        }
        cap = os.environ.get(_ISA_CAP)
        return effective if cap is None else effective | {_ISA_CAP: cap}

    def close(self) -> None:
        """Release the request before the model it belongs to."""
        del self._request, self._compiled
        self._fed = {}


class StreamedSession(OpenVinoSession):
    """A compiled model whose streams embed several batches at once."""

    def __init__(self, graph: Any, plan: Plan) -> None:  # noqa: ANN401 - openvino is untyped
        super().__init__(graph, plan)
        self._num_streams = int(plan.options[_STREAMS])
        self._results: dict[int, NDArray[np.float32]] = {}
        self._queue = self._open_queue()

    def _open_queue(self) -> Any:  # noqa: ANN401 - openvino is untyped
        import openvino

        queue = openvino.AsyncInferQueue(self._compiled, self._num_streams)
        queue.set_callback(self._keep)
        return queue

    def _keep(self, request: Any, number: int) -> None:  # noqa: ANN401 - openvino is untyped
        self._results[number] = np.array(request.get_tensor(self._output).data, np.float32)

    def run_many(self, batches: list[Inputs]) -> list[NDArray[np.float32]]:
        """Embed padded batches, as many at once as there are streams.

        Args:
            batches: int64 arrays, shape [batch, length], contiguous; read in place.

        Returns:
            The embedding outputs in the order of the batches, each [batch, dim], float32.
        """
        self._results.clear()
        try:
            for number, inputs in enumerate(batches):
                self._queue.start_async(inputs, userdata=number, share_inputs=True)
            self._queue.wait_all()
        except RuntimeError:
            self._queue = self._open_queue()  # a queue keeps its errors and raises them again
            raise
        return [self._results.pop(number) for number in range(len(batches))]

    def close(self) -> None:
        """Release the requests before the model they belong to."""
        del self._queue
        super().close()


def _infer(request: Any, inputs: Inputs, output: str) -> NDArray[np.float32]:  # noqa: ANN401
    """Feed without copying and copy nothing but the embeddings out.

    `request.infer(inputs)` would copy the token-level output too.
    """
    import openvino

    for name, array in inputs.items():
        request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
    request.infer(share_inputs=True, share_outputs=True)
    return np.array(request.get_tensor(output).data, np.float32)


def _spell(value: Any) -> str:  # noqa: ANN401 - openvino is untyped
    """Spell a property's value as it would be set."""
    if isinstance(value, bool):
        return "YES" if value else "NO"
    if hasattr(value, "get_type_name"):
        return str(value.get_type_name())
    return str(getattr(value, "name", value))


def _executed_us(profile: list[Any]) -> dict[str, int]:
    """Microseconds of every node that belongs to the running graph, by name."""
    return {node.node_name: round(node.real_time.total_seconds() * 1e6) for node in profile}


def _aggregate(runtime_model: Any, times_us: Mapping[str, int]) -> list[ExecutedRow]:  # noqa: ANN401
    """Count nodes and share out time by op type and dtype, the longest first.

    Constants are listed without time. What turned a constant into another layout or
    precision ran once, while the model was compiled, and is left out.
    """
    counts: defaultdict[tuple[str, str], int] = defaultdict(int)
    spent_us: defaultdict[tuple[str, str], int] = defaultdict(int)
    for node in runtime_model.get_ordered_ops():
        facts = {name: str(value.value) for name, value in node.get_rt_info().items()}
        name, op_type = node.get_friendly_name(), facts["layerType"]
        if name not in times_us and op_type != "Const":
            continue
        row = (op_type, _executed_dtype(op_type, facts))
        counts[row] += 1
        spent_us[row] += times_us.get(name, 0)
    total_us = sum(spent_us.values())
    rows = sorted(counts, key=lambda row: (-spent_us[row], row))
    return [
        (*row, counts[row], spent_us[row] / total_us if total_us else None)  # too fast to count
        for row in rows
    ]


def _executed_dtype(op_type: str, facts: Mapping[str, str]) -> str:
    """Name the precision that a node computes in.

    The kernel's name ends with it ("brgemm_avx512_bf16"). `runtimePrecision` is no proof:
    a matrix product with compressed weights says i8 there while its kernel is
    "brgemm_avx512_f32". Kernels spell both 8-bit types "I8" at times; outside of matrix
    products u8 is most often a boolean mask, so it keeps its own name there.
    """
    named = facts.get("runtimePrecision", "")
    kernel = facts.get("primitiveType", "").rpartition("_")[2].lower()
    found = kernel if kernel in _DTYPES else named
    if found in ("i8", "u8"):
        found = "i8" if op_type in _GEMM_LAYERS else named
    return _DTYPES.get(found, found or "unknown")
