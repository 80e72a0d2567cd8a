"""`exporter calibrate` in a child process, on a tiny model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import BERT, build

from exporter.cli.app import run
from exporter.source.resolve import resolve_encoder
from targets.errors import ExitCode
from targets.hashing import sha256_file
from targets.quantization.table import CalibrationTable

ROOT = Path(__file__).parents[3]
NUM_LINES = 130


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(BERT, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def lines() -> list[str]:
    words = ["red", "green", "blue", "cat", "dog", "house", "tree", "river", "stone", "bird"]
    return [f"{words[i % 10]} and {words[i * 3 % 7]} " * (1 + i % 4) + str(i) for i in range(130)]


@pytest.fixture(scope="module")
def texts(lines, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("\n".join(lines))
    return path


Calibrate = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def calibrate(model, texts, shared_cache, tmp_path) -> Calibrate:
    """Run the command in an empty folder; later flags win."""

    def command(*flags: str) -> subprocess.CompletedProcess[str]:
        given = ["--model", str(model), "--calibration", str(texts), *flags]
        return subprocess.run(
            [sys.executable, "-m", "exporter", "calibrate", *given],
            cwd=tmp_path,
            env=os.environ
            | {"EMBEDDING_EXPORTER_CACHE": str(shared_cache), "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    return command


def test_json_on_stdout_describes_the_table_written(calibrate, model, tmp_path):
    done = calibrate("--json", "--num-samples", "110")
    assert done.returncode == ExitCode.PASS, done.stderr
    said = json.loads(done.stdout)
    path = tmp_path / "calibration.npz"
    assert (said["path"], said["sha256"]) == ("calibration.npz", sha256_file(path))
    table = CalibrationTable.load(path)
    table.require(
        graph_sha256=said["graph_sha256"],
        tokenizer_sha256=resolve_encoder(str(model)).tokenizer_sha256,
        corpus_sha256=said["corpus_sha256"],
    )
    assert said["num_texts"] == table.num_texts == 110
    assert said["num_tokens"] == table.num_tokens > 110
    assert said["num_tensors"] == len(table.tensors) > 0
    assert said["size_bytes"] == path.stat().st_size
    assert said["gram"] is False


def test_all_streams_every_text_in_both_layouts(calibrate, lines, texts, tmp_path):
    repeated = tmp_path / "texts.jsonl"
    rows = [json.dumps({"body": line}) for line in [*lines, lines[0], "  "]]
    repeated.write_text("\n".join(rows))
    said = []
    for flags in ([], ["--calibration", str(repeated), "--field", "body"]):
        done = calibrate("--num-samples", "all", "--json", "-o", "t.npz", *flags)
        assert done.returncode == ExitCode.PASS, done.stderr
        said.append(json.loads(done.stdout))
    # Repeated texts count, blank ones do not.
    assert [one["num_texts"] for one in said] == [NUM_LINES, NUM_LINES + 1]
    assert said[0]["corpus_sha256"] != said[1]["corpus_sha256"]


def test_a_person_gets_a_short_table(calibrate, tmp_path):
    done = calibrate("-o", "deep/er/t.npz", "--gram")
    assert done.returncode == ExitCode.PASS, done.stderr
    for word in ("tensors", "texts", "tokens", "seconds", "size", "t.npz", str(NUM_LINES)):
        assert word in done.stdout
    assert "calibrate the FP32 graph" in done.stderr
    table = CalibrationTable.load(tmp_path / "deep/er/t.npz")
    assert all(one.gram is not None for one in table.tensors.values())


def test_quiet_says_nothing_on_stderr(calibrate):
    done = calibrate("--quiet")
    assert (done.returncode, done.stderr) == (ExitCode.PASS, "")


def test_few_texts_are_noted(calibrate):
    done = calibrate("--num-samples", "20")
    assert done.returncode == ExitCode.PASS
    assert "20 texts calibrate" in done.stderr


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--num-samples", "many"], "--num-samples many"),
        (["--num-samples", "0"], "--num-samples 0"),
        (["--num-samples", "all", "--calibration", "nowhere.txt"], "nowhere.txt"),
        (["--num-samples", "all", "--calibration", "empty.txt"], "has no texts"),
        (["--calibration", "empty.txt"], "calibration needs"),
        (["-o", "folder"], "is a folder"),
        (["--pooling", "nonsense"], "pooling"),
    ],
)
def test_what_the_user_got_wrong_is_usage(flags, said, model, texts, tmp_path, monkeypatch, capsys):
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.txt").write_text("\n  \n")
    monkeypatch.chdir(tmp_path)
    given = ["calibrate", "--model", str(model), "--calibration", str(texts), "--json", *flags]
    assert run(given) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""
    assert not list(tmp_path.glob("*.npz"))


def test_a_failed_run_leaves_the_earlier_table(calibrate, tmp_path):
    (tmp_path / "calibration.npz").write_text("earlier")
    assert calibrate("--calibration", "nowhere.txt").returncode == ExitCode.USAGE
    assert (tmp_path / "calibration.npz").read_text() == "earlier"


def test_help_names_every_flag_of_the_job(capsys):
    assert run(["calibrate", "--help"]) == ExitCode.PASS
    shown = capsys.readouterr().out
    for flag in ("--model", "--calibration", "--num-samples", "--output", "--pooling", "--json"):
        assert flag in shown
