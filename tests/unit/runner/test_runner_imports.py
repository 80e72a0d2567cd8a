"""The runner travels alone: standard library, numpy and itself."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import targets.openvino.session
import targets.runner

RUNNER = Path(targets.runner.__file__).parent
SESSION = Path(targets.openvino.session.__file__)


def foreign_imports(source: str, allowed: frozenset[str]) -> list[str]:
    """Names of imported packages that are neither the standard library nor allowed."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            found += [node.module or ""] if node.level == 0 else []
            found += [f"{'.' * node.level}{node.module}"] if node.level > 1 else []
    known = allowed | sys.stdlib_module_names
    return [name for name in found if name.split(".")[0] not in known]


@pytest.mark.parametrize("path", sorted(RUNNER.rglob("*.py")), ids=lambda path: path.name)
def test_the_runner_imports_nothing_else(path):
    assert foreign_imports(path.read_text(), frozenset({"numpy"})) == []


def test_the_runner_is_one_flat_package():
    """`targets.devices.archive` packs the files of one folder."""
    assert {path.parent for path in RUNNER.rglob("*.py")} == {RUNNER}


def test_the_openvino_adapter_imports_numpy_and_its_runtime_only():
    source = SESSION.read_text()
    assert foreign_imports(source, frozenset({"numpy", "openvino"})) == []
    assert foreign_imports(source, frozenset({"numpy"})) != []  # and the check sees openvino


@pytest.mark.parametrize(
    "line",
    [
        "import torch",
        "from targets import contract",
        "from ..errors import StepError",
        "import os, psutil",
    ],
)
def test_the_check_sees_what_is_foreign(line):
    assert foreign_imports(f"def late():\n    {line}\n", frozenset({"numpy"})) != []


def test_heavy_imports_wait_until_a_session_is_opened():
    top = [node for node in ast.parse(SESSION.read_text()).body if isinstance(node, ast.Import)]
    assert "openvino" not in [alias.name for node in top for alias in node.names]
