"""The vendor's side of the runner: numpy and onnxruntime only, because it travels alone."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

_NAMES = {"float": "float32", "float16": "float16", "int64": "int64"}


class Plan(Protocol):
    """What this file reads of the runner's plan."""

    inputs: tuple[str, ...]
    output: str
    options: Mapping[str, str]
    num_threads: int


def open_session(model: Path, plan: Plan) -> AcmeSession:
    """Load an ONNX file; raises ImportError where the runtime is missing."""
    return AcmeSession(model, plan)


class AcmeSession:
    """One loaded model."""

    def __init__(self, model: Path, plan: Plan) -> None:
        self._model = model
        self._plan = plan
        self._session = self._open()

    def _open(self, profile: str = "") -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self._plan.num_threads
        if profile:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        return onnxruntime.InferenceSession(
            str(self._model), options, providers=["CPUExecutionProvider"]
        )

    def run(self, inputs: dict[str, np.ndarray]) -> np.ndarray:
        """Embed one padded batch."""
        rows: np.ndarray = self._session.run([self._plan.output], inputs)[0]
        return rows

    def inspect(self, inputs: dict[str, np.ndarray]) -> list[tuple[str, str, int, float | None]]:
        """Run once under the runtime's profiler and say which kernels took part."""
        with tempfile.TemporaryDirectory() as folder:
            session = self._open(str(Path(folder) / "profile"))
            session.run([self._plan.output], inputs)
            events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
        counts: Counter[tuple[str, str]] = Counter()
        times_us: Counter[tuple[str, str]] = Counter()
        for event in events:
            if event.get("name", "").endswith("_kernel_time"):
                key = (event["args"]["op_name"], _dtype(event["args"]))
                counts[key] += 1
                times_us[key] += event["dur"]
        whole = max(1, times_us.total())
        return [(*key, counts[key], times_us[key] / whole) for key in sorted(counts)]

    def versions(self) -> dict[str, str]:
        """Return the runtime's version."""
        import onnxruntime

        return {"onnxruntime": onnxruntime.__version__}

    def options(self) -> dict[str, str]:
        """Return the effective options."""
        threads = self._session.get_session_options().intra_op_num_threads
        return {"intra_op_threads": str(threads)}

    def close(self) -> None:
        """Let go of the model."""
        self._session = None


def _dtype(arguments: Mapping[str, Any]) -> str:
    """Weights in blocks are int8; of everything else the first input tells."""
    if arguments["op_name"] == "MatMulNBits":
        return "int8"
    first = next(iter(arguments.get("input_type_shape", [])), {"unknown": []})
    name = next(iter(first))
    return _NAMES.get(name, name)
