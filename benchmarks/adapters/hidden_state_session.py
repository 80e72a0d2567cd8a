"""A peer's artifact in the runner: token states from its runtime, then mean pooling.

The peers' graphs end with `last_hidden_state`; their users pool and normalize behind them,
so this is part of what a text costs. It is done here in numpy without copies of the states,
which is no slower than the peers do it in PyTorch. Imports numpy and one runtime only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Inputs = dict[str, NDArray[np.int64]]
ExecutedRow = tuple[str, str, int, float | None]
States = NDArray[np.float32]

_OUTPUT = "last_hidden_state"
# The floors are PyTorch's own in the peers: Pooling's clamp and F.normalize's eps.
_MIN_TOKENS = 1e-9
_MIN_NORM = 1e-12
_OPENVINO_READ_BACK = ("INFERENCE_PRECISION_HINT", "PERFORMANCE_HINT", "INFERENCE_NUM_THREADS")


class Plan(Protocol):
    """What this file reads of the runner's plan."""

    @property
    def num_threads(self) -> int:
        """CPU threads."""


class Runtime(Protocol):
    """A loaded graph that ends with token states."""

    def states(self, inputs: Inputs) -> States:
        """Return `last_hidden_state`, shape [batch, length, dim]."""

    def versions(self) -> dict[str, str]:
        """Return the runtime's version."""

    def options(self) -> dict[str, str]:
        """Return the effective options."""


def open_session(model: Path, plan: Plan) -> PooledSession:
    """Load an ONNX file with ONNX Runtime, an IR with OpenVINO; only the threads are set."""
    runtime = OnnxRuntime if model.suffix == ".onnx" else OpenVino
    return PooledSession(runtime(model, plan.num_threads))


class PooledSession:
    """Token states, mean pooling over the mask, length one."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def run(self, inputs: Inputs) -> NDArray[np.float32]:
        """Embed one padded batch; returns [batch, dim], float32."""
        return pool(self._runtime.states(inputs), inputs["attention_mask"])

    def inspect(self, inputs: Inputs) -> list[ExecutedRow]:
        """Return nothing: how a peer's graph ran inside is not part of the comparison."""
        return []

    def versions(self) -> dict[str, str]:
        """Return the runtime's version."""
        return self._runtime.versions()

    def options(self) -> dict[str, str]:
        """Return the runtime's effective options."""
        return self._runtime.options()

    def close(self) -> None:
        """Release the runtime."""
        del self._runtime


def pool(states: States, attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
    """Average the states of real tokens and scale every row to length one.

    Args:
        states: shape [batch, length, dim], float32.
        attention_mask: 1 on tokens, 0 on padding, shape [batch, length].

    Returns:
        Shape [batch, dim], float32.
    """
    mask = attention_mask.astype(np.float32)
    summed = np.matmul(mask[:, None, :], states)[:, 0, :]
    mean = summed / np.maximum(mask.sum(axis=1, keepdims=True), _MIN_TOKENS)
    norm = np.sqrt(np.einsum("bd,bd->b", mean, mean))[:, None]
    rows: NDArray[np.float32] = mean / np.maximum(norm, _MIN_NORM)
    return rows


class OnnxRuntime:
    """ONNX Runtime on the CPU as Optimum opens it."""

    def __init__(self, model: Path, num_threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )

    def states(self, inputs: Inputs) -> States:
        """Return `last_hidden_state`, shape [batch, length, dim]."""
        found: States = self._session.run([_OUTPUT], inputs)[0]
        return found

    def versions(self) -> dict[str, str]:
        """Return ONNX Runtime's version."""
        import onnxruntime

        return {"onnxruntime": onnxruntime.__version__}

    def options(self) -> dict[str, str]:
        """Return the threads and providers in effect."""
        threads = self._session.get_session_options().intra_op_num_threads
        return {
            "intra_op_num_threads": str(threads),
            "providers": ",".join(self._session.get_providers()),
        }


class OpenVino:
    """OpenVINO on the CPU as Optimum Intel opens it: latency hint, precision left open."""

    def __init__(self, model: Path, num_threads: int) -> None:
        import openvino

        properties = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": num_threads}
        self._compiled: Any = openvino.Core().compile_model(model, "CPU", properties)

    def states(self, inputs: Inputs) -> States:
        """Return `last_hidden_state`, shape [batch, length, dim]."""
        found: States = self._compiled(inputs, share_inputs=True, share_outputs=True)[_OUTPUT]
        return found

    def versions(self) -> dict[str, str]:
        """Return OpenVINO's build."""
        import openvino

        return {"openvino": openvino.get_version()}

    def options(self) -> dict[str, str]:
        """Return what OpenVINO chose, the precision above all."""
        return {name: _spell(self._compiled.get_property(name)) for name in _OPENVINO_READ_BACK}


def _spell(value: Any) -> str:  # noqa: ANN401 - openvino is untyped
    if hasattr(value, "get_type_name"):
        return str(value.get_type_name())
    return str(getattr(value, "name", value))
