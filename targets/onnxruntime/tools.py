"""ONNX Runtime's own command-line tools, run quietly in a process of their own.

They change Python's logging and import paths when they are imported, print, and take torch along
if it is installed (`onnxruntime/tools/__init__.py`); a crash in them ends this process only.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence

from targets.errors import CompileError

_PROGRAM = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
sys.modules["torch"] = None
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""Runs a module as a program; ends when its standard input is closed: with its parent."""

_MAX_LINES = 5


def run_tool(
    name: str, arguments: Sequence[str], doing: str, environment: Mapping[str, str] | None = None
) -> str:
    """Run `python -m onnxruntime.tools.NAME` and return what it printed, errors among it.

    Args:
        name: module of `onnxruntime.tools`.
        arguments: its command line.
        doing: what errors call it, e.g. "converting model.onnx".
        environment: variables set for it beside the caller's own.

    Raises:
        CompileError: it ended with an error; `why` carries its last words.
    """
    # -P: a module of the working directory must not stand in for one of the standard library.
    python = (sys.executable, "-P", "-X", "utf8", "-W", "ignore", "-c", _PROGRAM)
    with subprocess.Popen(  # noqa: S603 - this interpreter, a fixed program
        (*python, f"onnxruntime.tools.{name}", *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | dict(environment or {}),
    ) as process:
        assert process.stdout is not None
        printed = process.stdout.read().decode("utf-8", errors="replace")
        code = process.wait()
    if code:
        raise CompileError(
            f"{doing} failed",
            why=_last_words(printed) or f"onnxruntime.tools.{name} ended with code {code}",
            hint="check the graph with onnx.checker; another recipe may still do",
        )
    return printed


def _last_words(printed: str) -> str:
    """Return what an exception says, without the places it came through; else the last lines."""
    lines = printed.rpartition("Traceback (most recent call last):\n")[2].splitlines()
    said = [line.rstrip() for line in lines if line.strip() and not line[0].isspace()]
    return "\n".join(said[-_MAX_LINES:])
