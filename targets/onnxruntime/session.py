"""ONNX Runtime's side of the runner: one file that travels to the device.

Imports numpy and onnxruntime only; the runner loads it by its path and calls `open_session`.
Serves `.onnx` and `.ort` files. Option names: ONNX Runtime 1.32, `onnxruntime_c_api.h` and
`onnxruntime_session_options_config_keys.h`.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Inputs = dict[str, NDArray[np.int64]]
ExecutedRow = tuple[str, str, int, float | None]

OPTIMIZATION = "graph_optimization_level"
SPINNING = "intra_op_spinning"
EXECUTION = "execution_mode"
CONCURRENT = "concurrent_runs"
_DEFAULTS = {OPTIMIZATION: "all", SPINNING: "1", EXECUTION: "sequential", CONCURRENT: "1"}

_PROVIDERS = ["CPUExecutionProvider"]
_SPINNING_KEY = "session.intra_op.allow_spinning"
_LEVELS = {
    "disabled": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}
_MODES = {"sequential": "ORT_SEQUENTIAL", "parallel": "ORT_PARALLEL"}
_FATAL = 4
"""Log level: what fails is raised; warnings would reach a terminal that belongs to others."""

_INTEGER_KERNELS = frozenset(
    {
        "MatMulInteger",
        "MatMulInteger16",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "QLinearMatMul",
        "QGemm",
        "QAttention",
        "ConvInteger",
        "QLinearConv",
    }
)
"""Kernels that multiply eight-bit integers, whatever else they read and write."""
_BLOCK_KERNEL = "MatMulNBits"
_BITS = re.compile(r"_Q(\d+)(?:/|$)")
"""How quantizers name nodes of block weights: `<node>_Q4`; the profile tells no attributes."""
_KERNEL_TIME = "_kernel_time"
_DTYPES = {"float": "float32", "double": "float64"}


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

    @property
    def num_threads(self) -> int:
        """CPU threads."""


def open_session(model: Path, plan: Plan) -> OnnxRuntimeSession:
    """Load an `.onnx` or `.ort` file on the CPU.

    Args:
        model: the file; external data lies beside it.
        plan: names, options and threads.

    Raises:
        ValueError: an option or its value is unknown, or the graph lacks a tensor of the plan.
        ImportError: ONNX Runtime is not installed.
        RuntimeError: ONNX Runtime refuses the file; one line.
    """
    options = _checked_options(plan.options)
    concurrent = int(options[CONCURRENT])
    kind = ConcurrentSession if concurrent > 1 else OnnxRuntimeSession
    return kind(model, plan, options)


def _checked_options(given: Mapping[str, str]) -> dict[str, str]:
    if unknown := sorted(given.keys() - _DEFAULTS.keys()):
        raise ValueError(f"unknown options {unknown}; known are {sorted(_DEFAULTS)}")
    options: dict[str, str] = {**_DEFAULTS, **given}
    allowed = {OPTIMIZATION: _LEVELS, EXECUTION: _MODES, SPINNING: ("0", "1")}
    for name, values in allowed.items():
        if options[name] not in values:
            raise ValueError(f"{name}={options[name]}: it is one of {', '.join(values)}")
    if not options[CONCURRENT].isdecimal() or int(options[CONCURRENT]) < 1:
        raise ValueError(f"{CONCURRENT}={options[CONCURRENT]}: it is a number from 1 on")
    return options


class OnnxRuntimeSession:
    """A loaded graph that embeds one batch at a time."""

    def __init__(self, model: Path, plan: Plan, options: Mapping[str, str]) -> None:
        self._model = model
        self._options = options
        self._num_threads = max(1, plan.num_threads // int(options[CONCURRENT]))
        self._outputs = [plan.output]
        self._session = self._open()
        _check_names(self._session, plan)

    def _open(self, profile: Path | None = None) -> Any:  # noqa: ANN401 - onnxruntime is untyped
        import onnxruntime

        onnxruntime.set_default_logger_severity(_FATAL)
        settings = _session_options(self._options, self._num_threads)
        if profile is not None:
            settings.enable_profiling = True
            settings.profile_file_prefix = str(profile)
        try:
            return onnxruntime.InferenceSession(self._model, settings, providers=_PROVIDERS)
        except Exception as error:  # onnxruntime's own classes share no base but Exception
            raise RuntimeError(" ".join(str(error).split())) from error

    def run(self, inputs: Inputs) -> NDArray[np.float32]:
        """Embed one padded batch.

        Args:
            inputs: int64 arrays, shape [batch, length]; read in place.

        Returns:
            The embedding output, shape [batch, dim], float32.
        """
        embeddings: NDArray[np.float32] = self._session.run(self._outputs, inputs)[0]
        return embeddings

    def inspect(self, inputs: Inputs) -> list[ExecutedRow]:
        """Load once more with ONNX Runtime's profiler and say what one batch executed.

        The session that is timed stays without it. The last run is read: the first one also
        pays for memory.
        """
        with tempfile.TemporaryDirectory(prefix="ort-profile-") as folder:
            session = self._open(Path(folder) / "profile")
            for _ in range(2):
                session.run(self._outputs, inputs)
            events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
        return _aggregate(_last_runs(events))

    def versions(self) -> dict[str, str]:
        """Return ONNX Runtime's version."""
        import onnxruntime

        return {"onnxruntime": str(onnxruntime.__version__)}

    def options(self) -> dict[str, str]:
        """Return the options that are in effect, read back from the session."""
        settings = self._session.get_session_options()
        levels = {name: key for key, name in _LEVELS.items()}
        modes = {name: key for key, name in _MODES.items()}
        return {
            OPTIMIZATION: levels[settings.graph_optimization_level.name],
            EXECUTION: modes[settings.execution_mode.name],
            SPINNING: settings.get_session_config_entry(_SPINNING_KEY),
            CONCURRENT: self._options[CONCURRENT],
            "intra_op_num_threads": str(settings.intra_op_num_threads),
            "providers": ",".join(self._session.get_providers()),
        }

    def close(self) -> None:
        """Release the session and its threads."""
        del self._session


class ConcurrentSession(OnnxRuntimeSession):
    """One loaded graph that several threads run at once, each on its share of the threads.

    ONNX Runtime lets any number of callers run one session; weights are there once.
    """

    def __init__(self, model: Path, plan: Plan, options: Mapping[str, str]) -> None:
        super().__init__(model, plan, options)
        self._callers = ThreadPoolExecutor(int(options[CONCURRENT]), "embed")

    def run_many(self, batches: list[Inputs]) -> list[NDArray[np.float32]]:
        """Embed padded batches, several at once.

        Args:
            batches: int64 arrays, shape [batch, length].

        Returns:
            The embedding outputs in the order of the batches, each [batch, dim], float32.
        """
        return list(self._callers.map(self.run, batches))

    def close(self) -> None:
        """End the callers before the session that they use."""
        self._callers.shutdown()
        super().close()


def _session_options(options: Mapping[str, str], num_threads: int) -> Any:  # noqa: ANN401
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    level = _LEVELS[options[OPTIMIZATION]]
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    settings.execution_mode = getattr(onnxruntime.ExecutionMode, _MODES[options[EXECUTION]])
    settings.intra_op_num_threads = num_threads
    # Operators beside each other; sequential execution has none.
    settings.inter_op_num_threads = 1 if options[EXECUTION] == "sequential" else num_threads
    settings.add_session_config_entry(_SPINNING_KEY, options[SPINNING])
    return settings


def _check_names(session: Any, plan: Plan) -> None:  # noqa: ANN401 - onnxruntime is untyped
    inputs = {one.name for one in session.get_inputs()}
    outputs = {one.name for one in session.get_outputs()}
    if inputs != set(plan.inputs):
        raise ValueError(f"the plan feeds {list(plan.inputs)}, the graph takes {sorted(inputs)}")
    if plan.output not in outputs:
        raise ValueError(f"no output {plan.output!r} among {sorted(outputs)}")


# ------------------------------------------------------------------------- what executed


def _last_runs(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return each node's last kernel event."""
    last = {
        (event["name"], event["args"]["node_index"]): event
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith(_KERNEL_TIME)
    }
    return list(last.values())


def _aggregate(events: list[dict[str, Any]]) -> list[ExecutedRow]:
    """Count nodes and share out time by op type and dtype, the longest first."""
    counts: defaultdict[tuple[str, str], int] = defaultdict(int)
    spent_us: defaultdict[tuple[str, str], int] = defaultdict(int)
    for event in events:
        row = (event["args"]["op_name"], _executed_dtype(event))
        counts[row] += 1
        spent_us[row] += event["dur"]
    total_us = sum(spent_us.values())
    rows = sorted(counts, key=lambda row: (-spent_us[row], row))
    return [
        (*row, counts[row], spent_us[row] / total_us if total_us else None)  # too fast to count
        for row in rows
    ]


def _executed_dtype(event: Mapping[str, Any]) -> str:
    """Name the precision that a node computes in.

    Integer kernels are known by their names: weights that were packed when the model was
    loaded are no longer among the inputs that the profile lists. Block weights give their own
    width; activations meet them as int8 or float32, depending on the CPU, which no profile
    tells. Every other node computes in what it puts out.
    """
    op_type = event["args"]["op_name"]
    if op_type in _INTEGER_KERNELS:
        return "int8"
    if op_type == _BLOCK_KERNEL:
        bits = _BITS.search(event["name"].removesuffix(_KERNEL_TIME))
        return f"int{bits[1]}" if bits else "unknown"
    types = [name for one in event["args"]["output_type_shape"] for name in one]
    found = types[0] if types else "unknown"
    return _DTYPES.get(found, found)
