"""Bad artifacts of the real model planted into the real flow; the gate must stop each by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from export_command import Ran, environment, run_command
from planted_targets import write_distribution

pytestmark = [pytest.mark.slow]

NUM_TEXTS = 200


@pytest.fixture(scope="module")
def swapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A calibration set of something else: rows of numbers."""
    path = tmp_path_factory.mktemp("swapped") / "numbers.txt"
    path.write_text("\n".join(f"{i} {i * 7 % 1000} {i * 13 % 977}" for i in range(NUM_TEXTS)))
    return path


@pytest.fixture
def export(tmp_path, shared_cache, monkeypatch):
    """Export the real model, by default with its own texts, with one of the planted targets."""
    site = write_distribution(tmp_path / "site")
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", ":".join(paths))

    def run(target: str, *more: str) -> Ran:
        flags = ["--target", target, "--precision", "int8-static", *more]
        return run_command(flags, tmp_path / "out", shared_cache, tmp_path)

    return run


def gated(bundle: Path, cache: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "exporter", "gate", str(bundle)],
        env=environment(cache) | {"COLUMNS": "200"},
        cwd=bundle.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def failed_checks(ran: Ran) -> set[str]:
    return {c["name"] for c in ran.report["targets"][0]["checks"] if c["verdict"] == "fail"}


@pytest.mark.parametrize(
    ("target", "check", "words"),
    [
        ("wrong-pooling", "mean_cosine", "mean cosine with FP32"),
        ("scrambled-rows", "overlap@10", "FP32's own 10 nearest neighbours kept"),
        ("per-tensor-weights", "overlap@10", "FP32's own 10 nearest neighbours kept"),
    ],
)
def test_a_bad_artifact_is_stopped_by_name(export, shared_cache, target, check, words):
    ran = export(target)
    assert ran.code == 1, ran.out + ran.err
    assert check in failed_checks(ran)
    code, said = gated(ran.folder, shared_cache)
    assert code == 1
    (line,) = (one for one in said.splitlines() if words in one)
    assert f"FAIL {target} on local" in line


def test_a_swapped_calibration_set_is_stopped_by_name(export, swapped, shared_cache):
    ran = export("sound", "--calibration", str(swapped))
    assert ran.code == 1, ran.out + ran.err
    assert failed_checks(ran) >= {"mean_cosine", "p1_cosine", "overlap@10"}
    code, said = gated(ran.folder, shared_cache)
    assert code == 1
    assert "FAIL sound on local" in said
    assert "FP32" in said


def test_the_twin_without_a_fault_is_stopped_by_speed_at_most(export, shared_cache):
    """What static int8 gains is this machine's affair, which may be busy."""
    ran = export("sound")
    assert not failed_checks(ran) - {"speedup", "int8_gain"}, ran.out
    _, said = gated(ran.folder, shared_cache)
    stopped = [line for line in said.splitlines() if "FAIL sound on local" in line]
    assert not [line for line in stopped if ": speed" not in line], said
