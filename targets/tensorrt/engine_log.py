"""What TensorRT complains of while it loads and runs an engine.

Imports the standard library only: the session adapter loads this file by its path.
"""

from __future__ import annotations

from typing import Any


def make_logger(module: Any) -> Any:  # noqa: ANN401 - its base class is the module's
    """Return a logger that keeps errors in `problems`."""
    severity = module.ILogger.Severity
    bad = (severity.INTERNAL_ERROR, severity.ERROR)

    class Logger(module.ILogger):  # type: ignore[misc]
        """Keeps errors; the terminal belongs to others."""

        def __init__(self) -> None:
            super().__init__()
            self.problems: list[str] = []

        def log(self, level: Any, message: str) -> None:  # noqa: ANN401
            if level in bad:
                self.problems.append(message)

    return Logger()
