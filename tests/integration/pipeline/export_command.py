"""The `export` command in a child process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Ran:
    """A finished command."""

    code: int
    out: str
    err: str
    folder: Path

    @property
    def report(self) -> dict[str, Any]:
        return json.loads((self.folder / "reports" / "report.json").read_text("utf-8"))


def environment(cache: Path) -> dict[str, str]:
    return os.environ | {"EMBEDDING_EXPORTER_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}


def run_command(arguments: Sequence[str], folder: Path, cache: Path, cwd: Path) -> Ran:
    done = subprocess.run(
        [sys.executable, "-m", "exporter", "export", "-o", str(folder), *arguments],
        cwd=cwd,
        env=environment(cache),
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    return Ran(done.returncode, done.stdout, done.stderr, folder)
