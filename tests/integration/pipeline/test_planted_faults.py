"""Bad artifacts planted into the real flow; the gate must stop each of them by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from export_command import Ran, environment, run_command
from planted_targets import write_distribution
from safetensors.numpy import load_file, save_file
from tiny_models import BERT, build

pytestmark = [pytest.mark.slow]

NUM_WORDS, NUM_LOUD = 13, 5
"""Loud words' states reach far beyond those of all others."""
MIN_OVERLAP = 0.94
"""Per-tensor weights keep .903 to .920 with eight bits (AMX), fewer with seven."""
EMBEDDINGS = "embeddings.word_embeddings.weight"


@dataclass(frozen=True)
class Material:
    """A tiny encoder with what makes quantizing hard, and texts for it."""

    model: Path
    own: Path
    swapped: Path
    evaluation: Path


def words_of(model: Path) -> list[str]:
    """Words that the tokenizer keeps whole; the last ones are to be loud."""
    whole = [one for one in vocabulary_of(model) if one.isalpha() and len(one) > 3]
    return sorted(whole)[:NUM_WORDS]


def vocabulary_of(model: Path) -> dict[str, int]:
    (path,) = model.glob("tokenizer.json")
    vocabulary: dict[str, int] = json.loads(path.read_text())["model"]["vocab"]
    return vocabulary


def lines_of(words: list[str], numbers: range) -> str:
    count = len(words)
    return "\n".join(
        f"{words[i % count]} {words[(i * 5 + 2) % count]} number {i} beside the "
        f"{words[(i * 7 + 4) % count]}"
        for i in numbers
    )


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    folder = tmp_path_factory.mktemp("planted")
    model = build(BERT, folder)
    _make_hard(model)
    own, swapped, evaluation = (folder / f"{n}.txt" for n in ("own", "swapped", "evaluation"))
    words = words_of(model)
    own.write_text(lines_of(words, range(120)))
    swapped.write_text(lines_of(words[:-NUM_LOUD], range(1000, 1120)))
    evaluation.write_text(lines_of(words, range(120, 900)))
    return Material(model=model, own=own, swapped=swapped, evaluation=evaluation)


def _make_hard(model: Path) -> None:
    """Give three words a loud channel each, and weights a few heavy rows, as real encoders have."""
    (path,) = model.rglob("model.safetensors")
    weights = load_file(path)
    vocabulary = vocabulary_of(model)
    for channel, word in enumerate(words_of(model)[-NUM_LOUD:]):
        weights[EMBEDDINGS][vocabulary[word]] = 0
        weights[EMBEDDINGS][vocabulary[word], channel] = 100
    for name, value in weights.items():
        if name.endswith("intermediate.dense.weight"):
            value[:2] *= 20
    save_file({n: np.ascontiguousarray(v) for n, v in weights.items()}, path, {"format": "pt"})


@pytest.fixture
def export(material, tmp_path, shared_cache, monkeypatch):
    """Export with one of the planted targets."""
    site = write_distribution(tmp_path / "site")
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", ":".join(paths))

    def run(target: str, calibration: Path = material.own) -> Ran:
        flags = ["--model", str(material.model), "--eval", str(material.evaluation)]
        flags += ["--calibration", str(calibration), "--target", target]
        flags += ["--precision", "int8-static", "--min-overlap", str(MIN_OVERLAP)]
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


def test_a_swapped_calibration_set_is_stopped_by_name(export, material, shared_cache):
    ran = export("sound", material.swapped)
    assert ran.code == 1, ran.out + ran.err
    assert failed_checks(ran) & {"mean_cosine", "p1_cosine", "overlap@10"}
    code, said = gated(ran.folder, shared_cache)
    assert code == 1
    assert "FAIL sound on local" in said
    assert "FP32" in said


def test_the_twin_without_a_fault_is_stopped_by_speed_at_most(export, shared_cache):
    """A tiny encoder need not gain by int8."""
    ran = export("sound")
    assert not failed_checks(ran) - {"speedup", "int8_gain"}, ran.out
    _, said = gated(ran.folder, shared_cache)
    stopped = [line for line in said.splitlines() if "FAIL sound on local" in line]
    assert not [line for line in stopped if ": speed" not in line], said
