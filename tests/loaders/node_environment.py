"""Transformers.js from npm on this machine's node, installed once into the user's cache."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.side_env import cache_root
from exporter.deliver.storage import locked
from targets.hashing import sha256_json

SOURCES = Path(__file__).with_name("transformers_js")
_PINS = ("package.json", "package-lock.json")
_OLDEST_NODE = 18
_INSTALL_S = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEnvironment:
    """A folder with `node_modules` and our program beside it."""

    directory: Path

    def run(self, request: Mapping[str, object]) -> Any:
        """Run the loading program in a process of its own."""
        with tempfile.TemporaryDirectory(prefix="node-program-") as folder:
            asked, answer = Path(folder) / "request.json", Path(folder) / "answer.json"
            asked.write_text(json.dumps(request), "utf-8")
            program = self.directory / "load_bundles.mjs"
            shutil.copyfile(SOURCES / program.name, program)  # node looks for modules beside it
            done = subprocess.run(
                ["node", str(program), str(asked), str(answer)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr[-2000:]
            return json.loads(answer.read_text("utf-8"))


def node_environment() -> NodeEnvironment:
    """Install what package-lock.json pins, unless it is there; skip where there is no node."""
    version = _node_version()
    if shutil.which("npm") is None or version < _OLDEST_NODE:
        pytest.skip(f"needs node {_OLDEST_NODE} or newer with npm: apt-get install nodejs npm")
    pins = [(SOURCES / name).read_text("utf-8") for name in _PINS]
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    place = root / f"transformers-js-{sha256_json([*pins, os.uname().machine, version])[:16]}"
    with locked(root / f".{place.name}.lock"):
        if not place.is_dir():
            _install(place)
    return NodeEnvironment(directory=place)


def _node_version() -> int:
    if shutil.which("node") is None:
        return 0
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.lstrip("v").partition(".")[0])


def _install(place: Path) -> None:
    staging = place.with_name(f".{place.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    for name in _PINS:
        shutil.copyfile(SOURCES / name, staging / name)
    # scripts of packages are not run: they would fetch CUDA libraries
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(
        command, cwd=staging, capture_output=True, text=True, check=False, timeout=_INSTALL_S
    )
    assert done.returncode == 0, done.stderr[-2000:]
    staging.rename(place)
