"""`exporter train-aware` and `export --qat` in child processes, on a tiny model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from export_command import Ran, environment, run_command

from exporter.deliver.report import read_report
from targets.hardware.precisions import is_backed
from targets.registry import load_target, open_device

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


def write_labelled(path: Path, evaluation: Path, labels: tuple[str, ...]) -> Path:
    """Write texts that name their class, none of them an evaluation text."""
    known = set(evaluation.read_text("utf-8").splitlines())
    kinds = [labels[number % len(labels)] for number in range(200)]
    rows = [{"text": f"about {kind} number {i}", "kind": kind} for i, kind in enumerate(kinds)]
    lines = [json.dumps(row) for row in rows if row["text"] not in known]
    path.write_text("\n".join(lines), "utf-8")
    return path


def test_labels_are_read_and_what_they_tell_is_said(train, tiny_texts, tmp_path):
    texts = write_labelled(tmp_path / "kinds.jsonl", tiny_texts[1], ("river", "stone", "house"))
    given = ("--training", str(texts), "--json")
    labelled = train("-o", "labelled.json", *given, "--training-labels", "kind")
    assert labelled.returncode == 0, labelled.stderr
    told = json.loads(labelled.stdout)
    classes = told["labels"]
    counts = [classes[f"num_{what}"] for what in ("classes", "labelled", "held_out")]
    assert counts == [3, 180, 20]
    assert 1 / 3 < classes["accuracy_fp32"] <= 1.0
    plain = json.loads(train("-o", "plain.json", *given).stdout)
    assert plain["labels"] is None
    assert plain["curve"][1] != told["curve"][1], "another training: its batches and loss differ"


def test_labels_that_are_not_there_end_clearly(train, tiny_texts, tmp_path):
    texts = write_labelled(tmp_path / "kinds.jsonl", tiny_texts[1], ("river", "stone"))
    done = train("--training", str(texts), "--training-labels", "sort", "-o", "none.json")
    assert done.returncode == 2, done.stderr
    assert 'no field "sort"' in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "none.json").exists()


NOTHING_PASSES = "[policy]\nmin_mean_cosine = 0.999999\n"
"""Float32 keeps this, no rounding to eight bits does."""


@pytest.fixture
def export_by(tiny_model, tiny_texts, shared_cache, tmp_path):
    """Run the whole export with a policy file of the test's own, where static int8 is fast."""
    hardware = open_device("local").hardware()
    recipes = load_target("onnxruntime").candidates(None, hardware)
    static = next(one for one in recipes if one.name == "int8-static")
    if not is_backed(static, hardware):
        pytest.skip("this CPU has no int8 dot products: the policy would not train here")

    def run(policy: str) -> Ran:
        config = tmp_path / "exporter.toml"
        config.write_text(policy)
        calibration, evaluation = tiny_texts
        flags = ["--model", str(tiny_model), "--calibration", str(calibration)]
        flags += ["--eval", str(evaluation), "--target", "onnxruntime", *TRAINING]
        flags += ["--config", str(config)]
        return run_command(flags, tmp_path / "out", shared_cache, tmp_path)

    return run


def training_of(ran: Ran) -> dict | None:
    (section,) = ran.report["targets"]
    assert section["recipe"]["precision"] != "int8", "the policy lets no int8 through"
    return section["quantization"]["training"]


def test_a_policy_that_no_int8_keeps_trains_by_itself_and_says_so(export_by):
    ran = export_by(f'{NOTHING_PASSES}on_failure = "qat"\n')
    assert ran.code in (0, 1, 3), ran.err
    training = training_of(ran)
    assert training["num_steps"] == 6
    assert training["agreement"] > 0.999
    assert "trained for 6 steps" in (ran.folder / "reports" / "report.md").read_text("utf-8")


def test_the_same_policy_without_that_word_does_not_train(export_by):
    ran = export_by(NOTHING_PASSES)
    assert ran.code in (0, 1, 3), ran.err
    assert training_of(ran) is None
    assert "training" not in ran.report["provenance"]["stage_s"]
    assert "trained for" not in (ran.folder / "reports" / "report.md").read_text("utf-8")


def test_what_is_prepared_for_a_gpu_can_be_trained(tiny_model, tiny_texts, shared_cache, tmp_path):
    calibration, evaluation = tiny_texts
    flags = ["--model", str(tiny_model), "--calibration", str(calibration)]
    flags += ["--eval", str(evaluation), "--target", "tensorrt", "--qat", *TRAINING]
    ran = run_command(flags, tmp_path / "out", shared_cache, tmp_path)
    assert ran.code in (1, 3), ran.err
    (section,) = ran.report["targets"]
    assert section["status"] == "prepared"
    training = section["quantization"]["training"]
    assert training["agreement"] > 0.999
    names = [one["recipe"]["name"] for one in section["candidates"]]
    assert ("int8-qat" in names) == training["used"]
    assert "int8" in names


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
