"""The graph that TensorRT is given, run by ONNX Runtime on this CPU: one file for the runner.

Integers, scales and float16 are those of the graph; kernels and the order of sums are not those
of the GPU. No time taken here says anything about it. Imports numpy and onnxruntime only.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Inputs = dict[str, NDArray[np.int64]]
ExecutedRow = tuple[str, str, int, float | None]


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
        """None are known."""

    @property
    def num_threads(self) -> int:
        """CPU threads."""


def open_session(model: Path, plan: Plan) -> SimulatedSession:
    """Open the ONNX file.

    Args:
        model: the `.onnx` file.
        plan: names and threads.

    Raises:
        ValueError: the plan has options; there is nothing to tune in a simulation.
        ImportError: onnxruntime is not installed.
    """
    if plan.options:
        raise ValueError(f"a simulation takes no options, not {sorted(plan.options)}")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = plan.num_threads
    options.log_severity_level = 4
    return SimulatedSession(
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]), plan
    )


class SimulatedSession:
    """ONNX Runtime on the CPU."""

    def __init__(self, session: Any, plan: Plan) -> None:  # noqa: ANN401 - untyped
        self._session = session
        self._output = plan.output
        self._names = plan.inputs

    def run(self, inputs: Inputs) -> NDArray[np.float32]:
        """Run one padded batch; shape [batch, dim], float32."""
        fed = {name: inputs[name] for name in self._names}
        rows: NDArray[np.float32] = self._session.run([self._output], fed)[0]
        return rows

    def inspect(self, inputs: Inputs) -> list[ExecutedRow]:
        """Say nothing of what runs: that is the engine's to tell."""
        return []

    def options(self) -> dict[str, str]:
        """Name what embedded."""
        return {"simulated_by": "onnxruntime, CPU"}

    def versions(self) -> dict[str, str]:
        """Return the version of what embedded."""
        import onnxruntime

        return {"onnxruntime": onnxruntime.__version__}

    def close(self) -> None:
        """Free the session."""
        self._session = None
