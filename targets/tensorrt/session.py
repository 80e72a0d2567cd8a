"""TensorRT's side of the runner: an engine on the first GPU, by an own stream and pinned memory.

The runner loads this file by its path. It imports numpy, TensorRT (or TensorRT for RTX) and one
CUDA package; `cuda.py`, `nvml.py` and all `engine_….py` that it loads lie beside it and import
nothing of ours either. One batch is at work at a time, so that all execution contexts share one
scratch memory.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Inputs = dict[str, NDArray[np.int64]]
ExecutedRow = tuple[str, str, int, float | None]
Shape = tuple[int, int]

RUNTIME, CUDA_API, CUDA_GRAPH, HOST_CODE = "runtime", "cuda_api", "cuda_graph", "host_code"
_DEFAULTS = {RUNTIME: "tensorrt", CUDA_API: "cuda-bindings", CUDA_GRAPH: "0", HOST_CODE: "0"}
_ALLOWED = {
    RUNTIME: ("tensorrt", "tensorrt_rtx"),
    CUDA_API: ("cuda-bindings", "pycuda"),
    CUDA_GRAPH: ("0", "1"),
    HOST_CODE: ("0", "1"),
}
_MAX_GRAPHS = 64
"""Shapes that get a graph and a context of their own; further ones run without."""
_ALIGNMENT_BYTES = 256


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
        """Names and values of `_DEFAULTS`."""


def open_session(model: Path, plan: Plan) -> TensorRtSession:
    """Load an engine.

    Args:
        model: the plan file; its header and hash were looked at before.
        plan: names and options.

    Raises:
        ValueError: an option is unknown, or the engine lacks a tensor of the plan.
        ImportError: TensorRT or the CUDA package is not installed.
        RuntimeError: TensorRT does not take the engine, or there is no GPU.
    """
    options = _checked_options(plan.options)
    module = _import_runtime(options[RUNTIME])
    cuda = _sibling("cuda").open_cuda(options[CUDA_API])
    try:
        if options[CUDA_GRAPH] == "1" and not cuda.has_graphs:
            raise ValueError(f"{CUDA_GRAPH}=1: {cuda.name} has no CUDA graphs")
        return TensorRtSession(module, cuda, model.read_bytes(), plan, options)
    except BaseException:
        cuda.close()
        raise


def _checked_options(given: Mapping[str, str]) -> dict[str, str]:
    if unknown := sorted(given.keys() - _DEFAULTS.keys()):
        raise ValueError(f"unknown options {unknown}; known are {sorted(_DEFAULTS)}")
    options: dict[str, str] = {**_DEFAULTS, **given}
    for name, values in _ALLOWED.items():
        if options[name] not in values:
            raise ValueError(f"{name}={options[name]}: it is one of {', '.join(values)}")
    return options


def _import_runtime(name: str) -> Any:  # noqa: ANN401 - untyped
    try:
        return importlib.import_module(name)
    except ImportError:
        if name != "tensorrt_rtx":
            raise
        return importlib.import_module("tensorrt_rtx_bindings")


def _sibling(name: str) -> Any:  # noqa: ANN401 - this file belongs to no package when it is loaded
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"{__name__}_{name}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"no {path}", name=name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class TensorRtSession:
    """A loaded engine that embeds one batch at a time."""

    def __init__(
        self,
        module: Any,  # noqa: ANN401 - untyped
        cuda: Any,  # noqa: ANN401 - `cuda.Cuda`, of a file that was loaded by its path
        data: bytes,
        plan: Plan,
        options: Mapping[str, str],
    ) -> None:
        self._module, self._cuda, self._options = module, cuda, options
        self._stream = cuda.stream()
        self._times = _sibling("engine_times").EngineTimes(cuda, self._stream)
        self._logger = _sibling("engine_log").make_logger(module)
        self._runtime = module.Runtime(self._logger)
        self._engine = self._deserialized(data)
        self._io = _sibling("engine_io")
        self._inputs, self._outputs = self._io.read_tensors(module, self._engine)
        self._io.require_plan(self._inputs, self._outputs, plan)
        self._output = self._outputs[plan.output]
        self._profiles = self._io.read_profiles(self._engine, next(iter(self._inputs)))
        self._contexts: dict[int, Any] = {}
        self._shapes: dict[int, Shape] = {}
        self._graphs: dict[Shape, tuple[Any, Any]] = {}
        self._scratch_bytes = max(_ALIGNMENT_BYTES, self._engine.device_memory_size_v2)
        self._scratch = cuda.device(self._scratch_bytes)
        self._allocate()

    # ------------------------------------------------------------------------------ opening

    def _deserialized(self, data: bytes) -> Any:  # noqa: ANN401
        if self._options[HOST_CODE] == "1":  # only then: a plan can hold code for the CPU
            self._runtime.engine_host_code_allowed = True
        engine = self._runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise self._refused("does not take the engine: build it again on this machine")
        return engine

    def _allocate(self) -> None:
        """Make room for the largest shape of any profile, once: addresses never change."""
        for number, (_, largest) in enumerate(self._profiles):
            context = self._context(number)
            self._set_shapes(context, largest)
            for tensor in (*self._inputs.values(), *self._outputs.values()):
                tensor.needs(tuple(context.get_tensor_shape(tensor.name)))
        for tensor in (*self._inputs.values(), *self._outputs.values()):
            tensor.address = self._cuda.device(max(tensor.size_bytes, _ALIGNMENT_BYTES))
        for tensor in (*self._inputs.values(), self._output):
            tensor.pinned = self._cuda.pinned(tensor.size_bytes)
        for context in self._contexts.values():
            self._set_addresses(context)

    def _new_context(self, profile: int) -> Any:  # noqa: ANN401
        strategy = self._module.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._engine.create_execution_context(strategy)
        if context is None:
            raise self._refused("makes no execution context")
        context.set_device_memory(self._scratch, self._scratch_bytes)
        number = self._cuda.stream_number(self._stream)
        if not context.set_optimization_profile_async(profile, number):
            raise self._refused(f"does not take optimization profile {profile}")
        self._cuda.synchronize(self._stream)
        return context

    def _context(self, profile: int) -> Any:  # noqa: ANN401
        if profile not in self._contexts:
            self._contexts[profile] = self._new_context(profile)
        return self._contexts[profile]

    def _set_shapes(self, context: Any, shape: Shape) -> None:  # noqa: ANN401
        for name in self._inputs:
            if not context.set_input_shape(name, shape):
                raise self._refused(f"does not take {name} of shape {shape}")
        if missing := context.infer_shapes():
            raise self._refused(f"lacks shapes of {missing}")

    def _set_addresses(self, context: Any) -> None:  # noqa: ANN401
        for tensor in (*self._inputs.values(), *self._outputs.values()):
            if not context.set_tensor_address(tensor.name, tensor.address):
                raise self._refused(f"does not take the memory of {tensor.name}")

    def _refused(self, what: str) -> RuntimeError:
        said = "; ".join(self._logger.problems[-3:]) or "it gives no reason"
        return RuntimeError(" ".join(f"TensorRT {what} ({said})".split()))

    # ------------------------------------------------------------------------------ running

    def run(self, inputs: Inputs) -> NDArray[np.float32]:
        """Embed one padded batch.

        Args:
            inputs: int64 arrays, shape [batch, length].

        Returns:
            The embedding output, shape [batch, dim], float32.
        """
        rows, length = next(iter(inputs.values())).shape
        shape = (int(rows), int(length))
        for tensor in self._inputs.values():
            part = tensor.part(shape).view(tensor.dtype).reshape(shape)
            np.copyto(part, inputs[tensor.name], "same_kind")
        context, graph = self._ready(shape)
        found = tuple(context.get_tensor_shape(self._output.name))
        out = self._output.part(found)
        self._times.start()
        self._send(shape)
        self._times.split()
        if graph is None:
            self._execute(context)
        else:
            self._cuda.launch(graph, self._stream)
        self._times.split()
        self._cuda.to_host(out, self._output.address, self._stream)
        self._times.split()
        self._cuda.synchronize(self._stream)
        self._times.remember()
        # a copy: the next batch is written over the pinned memory
        embeddings = out.view(self._output.dtype).reshape(found)
        copied: NDArray[np.float32] = embeddings.astype(np.float32, copy=True)
        return copied

    def _send(self, shape: Shape) -> None:
        for tensor in self._inputs.values():
            self._cuda.to_device(tensor.address, tensor.part(shape), self._stream)

    def _ready(self, shape: Shape) -> tuple[Any, Any]:
        """Return a context that has the shape, and its graph or None."""
        if shape in self._graphs:
            return self._graphs[shape]
        profile = self._io.profile_of(shape, self._profiles)
        if self._options[CUDA_GRAPH] == "1" and len(self._graphs) < _MAX_GRAPHS:
            self._graphs[shape] = self._captured(profile, shape)
            return self._graphs[shape]
        context = self._context(profile)
        if self._shapes.get(profile) != shape:
            self._set_shapes(context, shape)
            self._shapes[profile] = shape
        return context, None

    def _captured(self, profile: int, shape: Shape) -> tuple[Any, Any]:
        """Capture a shape; a context of its own, because a graph holds on to its state."""
        context = self._new_context(profile)
        self._set_shapes(context, shape)
        self._set_addresses(context)
        self._send(shape)  # ids that nobody has set would be looked up beyond the table
        self._execute(context)  # what TensorRT does on a first run cannot be captured
        self._cuda.synchronize(self._stream)
        return context, self._cuda.capture(lambda: self._execute(context), self._stream)

    def _execute(self, context: Any) -> None:  # noqa: ANN401
        if not context.execute_async_v3(self._cuda.stream_number(self._stream)):
            raise self._refused("does not run the batch")

    # ------------------------------------------------------------------------------ telling

    def inspect(self, inputs: Inputs) -> list[ExecutedRow]:
        """Ask the engine's inspector what its layers are; no layer's time is taken."""
        inspector = self._engine.create_engine_inspector()
        told = inspector.get_engine_information(self._module.LayerInformationFormat.JSON)
        rows: list[ExecutedRow] = _sibling("engine_layers").rows_of(told)
        return rows

    def versions(self) -> dict[str, str]:
        """Return versions of TensorRT and CUDA."""
        cuda: dict[str, str] = self._cuda.versions()
        return {self._options[RUNTIME]: str(self._module.__version__), **cuda}

    def options(self) -> dict[str, str]:
        """Return the options, the GPU's clocks and temperature, and times taken by events."""
        profiles = "; ".join(f"{a[0]}x{a[1]} to {b[0]}x{b[1]}" for a, b in self._profiles)
        state: dict[str, str] = _sibling("nvml").gpu_state(self._cuda.bus_id())
        told: dict[str, str] = {**self._options, "profiles": profiles, **state}
        return {**told, **self._times.medians()}

    def close(self) -> None:
        """Free what TensorRT holds before CUDA's."""
        self._graphs.clear()
        self._contexts.clear()
        self._engine = self._runtime = None
        self._cuda.close()
