"""The wheel by itself: built, installed into an empty environment, run elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from export_command import ROOT

pytestmark = [
    pytest.mark.network,
    pytest.mark.slow,
    pytest.mark.model,
    pytest.mark.openvino,
    pytest.mark.timeout(1500),
]


def run(*command: str | Path, cwd: Path) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    builder = [sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT]
    run(*builder, cwd=folder)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def bin_folder(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of an environment that has the wheel and what it asks for, nothing else."""
    folder = tmp_path_factory.mktemp("empty") / "environment"
    venv.create(folder, with_pip=True)
    bin_folder = folder / ("Scripts" if os.name == "nt" else "bin")
    constraints = ROOT / "constraints.txt"
    pip = [bin_folder / "python", "-m", "pip", "install", "--quiet", "-c", constraints]
    run(*pip, "torch", cwd=folder)
    run(*pip, f"{wheel}[openvino,demo]", cwd=folder)
    return bin_folder


def test_the_wheel_carries_texts_and_schema_but_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "calibration_data/texts.jsonl" in names
    assert "calibration_data/manifest.json" in names
    assert "exporter/deliver/report/schema.json" in names
    assert "exporter/deliver/report/templates/report.html.jinja" in names
    assert "targets/openvino/session.py" in names
    assert not [name for name in names if name.startswith(("tests", "benchmarks", "docs"))]


def test_the_installed_command_does_the_whole_job_elsewhere(bin_folder, tmp_path):
    assert "openvino" in run(bin_folder / "exporter", "targets", cwd=tmp_path)
    out = run(
        bin_folder / "export",
        *("--target", "openvino", "--precision", "float32", "--json", "-o", "bundle"),
        cwd=tmp_path,
    )
    report = json.loads(out)
    assert report["verdict"] == "pass"
    assert report["calibration"]["name"] == "builtin"
    assert (tmp_path / "bundle" / "openvino" / "openvino_model.xml").is_file()
