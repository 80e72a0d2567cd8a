"""`exporter export --target torch` on the real model; its folder loads without our code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from exporter.deliver.manifest import verify_bundle

pytestmark = [pytest.mark.model, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
WORDS = ("red", "green", "blue", "cat", "dog", "house", "tree", "river", "stone", "bird", "lamp")
TEXTS = [
    f"{WORDS[i % 11]} {WORDS[(i * 5 + 2) % 11]} number {i} beside the {WORDS[(i * 7 + 4) % 11]}"
    for i in range(260)
]
KEPT = "encoder.layer.5.output.dense"


@pytest.fixture(scope="module")
def ran(minilm_dir, tmp_path_factory, shared_cache):
    """Weights in int8, one layer in float, tables in half: one line for each."""
    pytest.importorskip("torchao", reason="pip install 'embedding-exporter[torch]'")
    folder = tmp_path_factory.mktemp("torch")
    (folder / "calibration.txt").write_text("\n".join(TEXTS[:120]))
    (folder / "evaluation.txt").write_text("\n".join(TEXTS[120:]))
    command = [sys.executable, "-m", "exporter", "export", "-t", "torch", "-o", "out", "-q"]
    command += ["--calibration", "calibration.txt", "--eval", "evaluation.txt"]
    command += ["--precision", "int8-weights", "--layer-precision", f"{KEPT}=float32"]
    # short texts: of the fixed shapes only two are timed; one thread waits for no other
    command += ["--threads", "1"]
    command += ["--embeddings", "float16", "--max-seq-length", "32"]
    path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"EMBEDDING_EXPORTER_CACHE": str(shared_cache), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert (folder / "out" / "reports" / "report.json").is_file(), done.stderr
    return folder / "out", done


@pytest.fixture(scope="module")
def section(ran):
    report = json.loads((ran[0] / "reports" / "report.json").read_text("utf-8"))
    (found,) = report["targets"]
    return found


def test_it_is_verified(ran, section):
    folder, done = ran
    assert section["status"] == "verified"
    checks = {one["name"]: one["verdict"] for one in section["checks"]}
    assert {checks[name] for name in ("finite", "mean_cosine", "precision")} == {"pass"}
    # so few texts do not decide a first percentile
    assert checks["p1_cosine"] != "fail"
    assert done.stderr == "", "--quiet, and somebody talks"
    assert verify_bundle(folder) == ()


def test_what_was_asked_for_is_what_the_report_says(section):
    recipe = section["recipe"]
    assert (recipe["name"], recipe["embeddings"]) == ("int8-weights", "float16")
    assert {"pattern": KEPT, "precision": "float32"} in recipe["overrides"]
    assert section["artifact"]["path"] == "torch/model.safetensors"


def test_the_folder_is_a_sentence_transformers_model(ran, section, minilm_dir):
    """Loaded without our code: the same layers are int8, and the embeddings are the model's."""
    from sentence_transformers import SentenceTransformer

    from targets.pytorch.model import is_quantized
    from targets.pytorch.sdk import quiet

    texts = TEXTS[:40]
    with quiet():
        model = SentenceTransformer(str(ran[0] / "torch"), device="cpu", local_files_only=True)
        rows = model.encode(texts, show_progress_bar=False)
        source = SentenceTransformer(str(minilm_dir), device="cpu", local_files_only=True)
        expected = source.encode(texts, show_progress_bar=False)
    named = model[0].auto_model.named_modules()
    quantized = {path for path, module in named if is_quantized(module)}
    assert len(quantized) == 35 and KEPT not in quantized
    assert (rows * expected).sum(axis=1).min() > 0.995
    assert not np.allclose(rows, expected, atol=1e-5), "float32 was loaded"
    assert model.max_seq_length == 32


def test_the_bundle_is_opened_again(ran, tmp_path):
    """`exporter encode` runs the artifact from the bundle: what later modules need lies there."""
    from sentence_transformers import SentenceTransformer

    from targets.pytorch.sdk import quiet

    out = tmp_path / "vectors.jsonl"
    path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    done = subprocess.run(
        [sys.executable, "-m", "exporter", "encode", str(ran[0]), TEXTS[0], "-q", "-o", str(out)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    found = next(line["embedding"] for line in lines if "embedding" in line)
    with quiet():
        model = SentenceTransformer(str(ran[0] / "torch"), device="cpu", local_files_only=True)
        expected = model.encode(TEXTS[:1], show_progress_bar=False)[0]
    assert np.allclose(found, expected, atol=1e-5)


def test_its_size_is_that_of_eight_bits_and_halves(section, minilm_dir):
    whole = (minilm_dir / "model.safetensors").stat().st_size
    assert section["artifact"]["size_bytes"] < 0.45 * whole


def test_bad_input_ends_clearly(tmp_path):
    path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    command = [sys.executable, "-m", "exporter", "export", "-t", "torch", "--device", "local:avx2"]
    done = subprocess.run(
        [*command, "-o", "out"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "cannot be held to older instructions" in done.stderr
