"""An adapter that imports a runtime which its target's spec does not name."""

from __future__ import annotations

from pathlib import Path

import onnxruntime


def open_session(model: Path, plan: object) -> tuple[object, object]:
    return onnxruntime.InferenceSession(model), plan
