"""`export --target openvino` on the real all-MiniLM-L6-v2, as the README says."""

from __future__ import annotations

import json
from importlib.resources import files

import numpy as np
import pytest
from export_command import ROOT, run_command

pytestmark = [pytest.mark.model, pytest.mark.openvino, pytest.mark.slow]

QUALITY = {"finite", "mean_cosine", "p1_cosine", "overlap@10", "stability"}


def checks_of(report):
    return {check["name"]: check for check in report["targets"][0]["checks"]}


def test_the_artifact_keeps_what_the_policy_promises(real_run):
    assert real_run.code in (0, 1, 3), real_run.err
    checks = checks_of(real_run.report)
    assert {name for name in QUALITY if checks[name]["verdict"] == "pass"} == QUALITY
    assert checks["precision"]["verdict"] == "pass"


def test_verdict_exit_code_and_terminal_agree(real_run):
    report = real_run.report
    assert report["exit_code"] == real_run.code
    verdicts = {check["verdict"] for check in report["targets"][0]["checks"]}
    assert (report["verdict"] == "pass") == (verdicts == {"pass"}) == (real_run.code == 0)
    assert report["targets"][0]["recipe"]["name"] in real_run.out


def test_the_report_obeys_the_published_schema(real_run):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((files("exporter.deliver.report") / "schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator(schema).validate(real_run.report)


def test_every_candidate_says_what_became_of_it(real_run):
    candidates = real_run.report["targets"][0]["candidates"]
    assert [c["status"] for c in candidates].count("chosen") == 1
    assert all(candidate["reason"] for candidate in candidates)
    assert candidates[0]["recipe"]["name"] == "float32"
    assert {c["recipe"]["precision"] for c in candidates} >= {"float32", "int8"}


def test_the_precision_hint_is_set_and_reported(real_run):
    options = real_run.report["targets"][0]["options"]
    assert options["INFERENCE_PRECISION_HINT"] in ("f32", "bf16", "f16")


def test_every_workload_was_timed_beside_fp32(real_run):
    latency = {row["workload"]: row for row in real_run.report["targets"][0]["latency"]}
    assert {"1x16", "1x32", "1x128", "1x256", "8x128", "32x128"} <= set(latency)
    assert {"mix-single", "mix-batched"} <= set(latency)
    for row in latency.values():
        assert row["median_ms"] > 0
        assert (row["p99_ms"] is not None) == (row["num_samples"] >= 662)
        assert (row["p90_ms"] is not None) == (row["num_samples"] >= 64)


def test_the_model_that_was_loaded_is_named_and_pinned(real_run):
    model = real_run.report["model"]
    assert model["weights_sha256"] == (
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    )
    assert model["revision"] == "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"


def test_every_file_is_what_the_manifest_says(real_run):
    from exporter.deliver.manifest import verify_bundle

    assert verify_bundle(real_run.folder) == ()


def test_the_shipped_artifact_embeds_as_the_source_model_does(real_run, minilm_dir):
    """The bundle's default file, run by plain OpenVINO, against sentence-transformers."""
    import openvino
    from sentence_transformers import SentenceTransformer
    from transformers import AutoTokenizer

    texts = ["A cat sleeps on the mat.", "Where can I renew my passport?", "int main(void)"]
    report = real_run.report["targets"][0]
    compiled = openvino.Core().compile_model(
        real_run.folder / "openvino" / "openvino_model.xml", "CPU", report["options"]
    )
    tokens = AutoTokenizer.from_pretrained(real_run.folder)(
        texts, padding=True, return_tensors="np"
    )
    feed = {port.get_any_name(): tokens[port.get_any_name()] for port in compiled.inputs}
    ours = compiled(feed)["sentence_embedding"]
    theirs = SentenceTransformer(str(minilm_dir), device="cpu").encode(texts)
    cosine = np.sum(ours * theirs, axis=1) / np.linalg.norm(ours, axis=1)
    floor = report["fidelity"]["p1_cosine"]["interval"]["low"]
    assert cosine.min() > floor - 0.01
    assert [port.get_any_name() for port in compiled.outputs] == [
        "last_hidden_state",
        "sentence_embedding",
    ]


def test_a_second_run_takes_everything_from_the_cache(real_run, tmp_path, shared_cache):
    again = run_command(["--target", "openvino"], tmp_path / "out", shared_cache, ROOT)
    assert again.code == real_run.code
    stages = again.report["provenance"]["stage_s"]
    assert set(stages) <= {"bundle"}
    for part in ("model", "evaluation", "calibration", "targets"):
        assert again.report[part] == real_run.report[part]
