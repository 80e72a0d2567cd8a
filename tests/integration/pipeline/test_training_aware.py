"""`exporter train-aware` and `export --qat` in child processes, on a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from export_command import environment

from exporter.deliver.report import read_report

pytestmark = pytest.mark.slow

TRAINING = ["--training-steps", "6", "--learning-rate", "0.02"]


@pytest.fixture
def train(tiny_model, tiny_texts, shared_cache, tmp_path):
    """Run `exporter train-aware` on the tiny model; later flags win."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        calibration, evaluation = tiny_texts
        command = [sys.executable, "-m", "exporter", "train-aware", "--model", str(tiny_model)]
        command += ["--calibration", str(calibration), "--eval", str(evaluation), *TRAINING]
        return subprocess.run(
            [*command, *arguments],
            cwd=tmp_path,
            env=environment(shared_cache),
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    return run


def test_figures_and_curve_are_written_and_made_once(train, tmp_path):
    done = train("-o", "first.json", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    written = json.loads((tmp_path / "first.json").read_text("utf-8"))
    assert {**written, "path": "first.json"} == told
    assert [point["step"] for point in written["curve"]] == [0, 6]
    assert written["num_steps"] == 6
    assert written["agreement"] > 0.999
    assert written["used"] == (written["drift_after"] < written["drift_before"])
    again = train("-o", "second.json")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "second.json").read_bytes() == (tmp_path / "first.json").read_bytes()
    assert "drift on held-out texts" in again.stdout


def test_the_export_says_what_training_did_and_uses_it_only_where_it_helps(export_tiny, tmp_path):
    ran = export_tiny("--target", "onnxruntime", "--qat", *TRAINING)
    assert ran.code in (0, 1, 3), ran.err
    (section,) = (one for one in ran.report["targets"] if one["target"] == "onnxruntime")
    training = section["quantization"]["training"]
    names = [one["recipe"]["name"] for one in section["candidates"]]
    assert ("int8-static-qat" in names) == training["used"]
    assert "int8-static" in names, "PTQ stands beside it"
    assert "trained for 6 steps" in (ran.folder / "reports" / "report.md").read_text("utf-8")
    assert read_report(ran.folder / "reports").targets


def test_texts_of_the_evaluation_are_never_trained_on(train, tiny_texts, tmp_path):
    done = train("--training", str(tiny_texts[1]), "-o", "none.json")
    assert done.returncode == 2
    assert "evaluation" in done.stderr
    assert not (tmp_path / "none.json").exists()


def test_no_texts_end_clearly(train, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    done = train("--training", str(empty))
    assert done.returncode == 2
    assert "empty.txt" in done.stderr


def test_a_recipe_that_cannot_be_trained_ends_clearly(export_tiny):
    ran = export_tiny("--precision", "float32", "--qat")
    assert ran.code == 2
    assert "nothing to train" in ran.err
    assert not Path(ran.folder / "reports").exists()


def test_a_target_without_static_int8_ends_clearly(train):
    done = train("--target", "torch")
    assert done.returncode == 2
    assert "nothing to train" in done.stderr
