"""`exporter build`: a prepared bundle finished where its device is, by a stand-in for the GPU."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from export_command import ROOT, Ran, environment, run_command
from stand_in_target import StandInGpu

from exporter.config import Settings
from exporter.deliver.bundle import read_manifest, verify_bundle
from exporter.deliver.codec import dump_json
from exporter.deliver.folders import describe_files
from exporter.deliver.manifest import MANIFEST, with_files
from exporter.deliver.report import Report
from exporter.optimize.rounds import Protocol
from exporter.pipeline import open_workspace
from exporter.progress import Reporter, SilentReporter
from exporter.steps import building, bundled, certify, encode, finish, members
from exporter.steps.compilers import finish_apart
from exporter.steps.encode import EncodeRequest
from exporter.steps.finish import FinishAsked, finish_bundle
from targets.errors import (
    CompileError,
    NotInstalledError,
    StorageError,
    TextsError,
    UsageError,
)

pytestmark = [pytest.mark.slow]
JOB = "tensorrt/job/build_job.json"


@pytest.fixture(scope="module")
def export(
    tiny_model: Path,
    tiny_texts: tuple[Path, Path],
    tmp_path_factory: pytest.TempPathFactory,
    shared_cache: Path,
) -> Callable[..., Ran]:
    calibration, evaluation = tiny_texts

    def run(*arguments: str) -> Ran:
        folder = tmp_path_factory.mktemp("prepared")
        flags = ["--model", str(tiny_model), "--calibration", str(calibration)]
        flags += ["--eval", str(evaluation), "--target", "tensorrt", *arguments]
        return run_command(flags, folder / "out", shared_cache, folder)

    return run


@pytest.fixture(scope="module")
def prepared(export: Callable[..., Ran]) -> Ran:
    """An int8 bundle that waits for a GPU."""
    return export("--precision", "int8")


class Notes(SilentReporter):
    """Keeps what the user is told."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, message: str) -> None:
        self.notes.append(message)


@dataclass
class Machine:
    """A machine with the stand-in GPU."""

    cache: Path
    gpu: StandInGpu

    def build(
        self,
        bundle: Path,
        output: Path | None = None,
        reporter: Reporter | None = None,
        texts: Path | None = None,
        **asked,
    ) -> Report:
        calibration = str(texts) if texts else None
        settings = Settings(output=output or bundle, cache=self.cache, calibration=calibration)
        with open_workspace(settings, reporter or SilentReporter()) as work:
            return finish_bundle(
                work, FinishAsked(bundle=bundle, command="exporter build", **asked)
            )


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(cache=tmp_path / "cache", gpu=StandInGpu())
    monkeypatch.setattr(finish, "load_target", lambda name: made.gpu)
    # no child can load a stand-in; what happens when a builder's process dies is tested below
    monkeypatch.setattr(building, "finish_apart", lambda _, request: made.gpu.finish(request))
    monkeypatch.setattr(certify, "FULL", Protocol(rounds=2, round_s=0.01, max_passes=2))
    return made


@pytest.fixture
def bundle(prepared: Ran, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared.folder, tmp_path / "bundle"))


def read_job(bundle: Path) -> dict:
    return json.loads((bundle / JOB).read_text("utf-8"))


def hashes(bundle: Path) -> dict[str, str]:
    return {file.path: file.sha256 for file in describe_files(bundle)}


def reseal(bundle: Path) -> None:
    """Write the manifest anew, as somebody would who wants a changed file to pass for ours."""
    manifest = read_manifest(bundle)
    files = describe_files(bundle, frozenset((MANIFEST,)))
    (bundle / MANIFEST).write_bytes(dump_json(with_files(manifest, files)))


# ---------------------------------------------------------------------------- the job


def test_a_prepared_bundle_carries_its_job(prepared):
    assert prepared.code == 3, prepared.err
    job = read_job(prepared.folder)
    assert (job["chosen"], job["best_float"], job["baseline"]) == ("int8", "float16", "float32")
    assert [one["recipe"]["name"] for one in job["artifacts"]] == ["int8", "float16", "float32"]
    assert job["graph_sha256"] == prepared.report["model"]["graph"]["sha256"]
    listed = {file.path: file.sha256 for file in read_manifest(prepared.folder).files}
    for artifact in job["artifacts"]:
        names = {file["name"] for file in artifact["files"]}
        assert {"build_plan.json", "layers.json"} <= names
        for file in artifact["files"]:
            assert listed[file["shipped"]["path"]] == file["shipped"]["sha256"]
    assert job["policy"]["min_mean_cosine"] == 0.99
    assert job["settings"]["precision"] == "int8"


def test_company_was_built_and_not_judged(prepared):
    (target,) = prepared.report["targets"]
    reasons = {one["recipe"]["name"]: one["reason"] for one in target["candidates"]}
    assert reasons["int8"] == "asked for"
    assert "times it beside int8" in reasons["float16"]


def test_the_fp32_graph_lies_in_the_bundle_once(prepared):
    files = [file.path for file in read_manifest(prepared.folder).files]
    assert [path for path in files if path.endswith(".onnx")] == [
        "onnx/model.onnx",
        "tensorrt/job/float16/model_float16.onnx",
        "tensorrt/model_int8.onnx",
    ]


# ------------------------------------------------------------------------- finished here


def test_a_bundle_is_finished_with_nothing_but_itself(machine, bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("exporter.steps.source.Source", None)  # neither model nor texts are read
    before, out = hashes(bundle), tmp_path / "finished"
    report = machine.build(bundle, out)
    (section,) = report.targets
    assert (section.status, section.numerics) == ("verified", "device")
    assert section.hardware.model_name == "stand-in GPU"
    assert section.artifact.path == "tensorrt/model.plan"
    assert {one.workload for one in section.latency} >= {"mix-single", "mix-batched"}
    checks = {check.name: check for check in section.checks}
    assert checks["mean_cosine"].value > 0.9
    assert checks["precision"].value == 1.0
    assert {"speedup", "int8_gain"} <= checks.keys()
    codes = {"pass": 0, "fail": 1, "inconclusive": 3}  # a stand-in's speed is what it is
    assert report.exit_code == codes[report.verdict]
    assert [one.recipe.name for one in section.candidates] == ["float32", "float16", "int8"]
    assert section.quantization is not None
    assert [one.name for one in section.variants] == ["default", "other"]
    assert [one.status for one in section.variants].count("chosen") == 1
    assert report.provenance.command.endswith("; exporter build")
    built = [request.artifact.recipe.name for request in machine.gpu.requests]
    assert built == ["int8", "float16", "float32"]
    assert verify_bundle(out) == ()
    assert read_manifest(out).verdict == report.verdict
    assert read_manifest(out).devices[0].model_name == "stand-in GPU"
    assert hashes(bundle) == before


def test_in_place_and_then_again(machine, bundle):
    """The job stays, whatever became of the files that it shared with the prepared artifact."""
    first = machine.build(bundle)
    assert not (bundle / "tensorrt/model_int8.onnx").exists()
    assert (bundle / "tensorrt/job/int8/model_int8.onnx").is_file()
    again = machine.build(bundle)
    assert again.targets[0].artifact == first.targets[0].artifact
    assert verify_bundle(bundle) == ()


def test_an_engine_that_trtexec_built_is_taken(machine, bundle, tmp_path):
    engine = tmp_path / "engine.plan"
    engine.write_bytes((bundle / "tensorrt/model_int8.onnx").read_bytes())
    machine.build(bundle, tmp_path / "finished", engine=engine, options={"key": "value"})
    assert {one.options["key"] for one in machine.gpu.requests} == {"value"}
    given = {one.artifact.recipe.name: one.engine for one in machine.gpu.requests}
    assert given == {"int8": engine, "float16": None, "float32": None}


def test_another_engine_s_embeddings_fail(machine, bundle, tmp_path):
    """An engine is judged by what it computes, whoever built it."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(bundle / "tensorrt/model_int8.onnx")
    table = next(one for one in model.graph.initializer if "word_embeddings" in one.name)
    rows = numpy_helper.to_array(table)
    table.CopyFrom(numpy_helper.from_array(rows[::-1].copy(), table.name))
    onnx.save(model, tmp_path / "other.plan")
    report = machine.build(bundle, tmp_path / "finished", engine=tmp_path / "other.plan")
    checks = {check.name: check.verdict for check in report.targets[0].checks}
    assert checks["mean_cosine"] == "fail"
    assert report.exit_code == 1


def test_what_was_finished_embeds_as_its_report_says(machine, bundle, monkeypatch):
    report = machine.build(bundle)
    for module in (encode, members, bundled):
        monkeypatch.setattr(module, "load_target", lambda name: machine.gpu)
    texts = ("a red cat", "a blue house by the river")
    asked = EncodeRequest(bundle=bundle, texts=texts)
    encoded = encode.encode_texts(asked, SilentReporter())
    assert encoded.embeddings.shape == (2, report.model.embedding_dim)
    assert encoded.artifact_sha256 == report.targets[0].artifact.sha256
    assert encoded.space_id == read_manifest(bundle).devices[0].space_id


def test_other_targets_keep_their_sections(export, machine, tiny_texts, tmp_path):
    calibration, _ = tiny_texts
    flags = ["--target", "onnxruntime", "--precision", "float32", "--workload", str(calibration)]
    ran = export(*flags)
    calibration.rename(tmp_path / "elsewhere")  # the job has its tokens
    reporter = Notes()
    try:
        report = machine.build(ran.folder, tmp_path / "finished", reporter)
    finally:
        (tmp_path / "elsewhere").rename(calibration)
    assert report.workload.num_texts == 120
    verified = {section.target: section for section in report.targets}
    assert {section.status for section in report.targets} == {"verified"}
    assert verified["onnxruntime"].latency is not None
    assert ran.report["compatibility"] is not None
    assert report.compatibility is None  # it spoke of the simulated artifact
    assert any("compatibility matrix" in one for one in reporter.notes)
    assert report.exit_code == 0, [check for t in report.targets for check in t.checks]
    assert (tmp_path / "finished/onnx/model.onnx").is_file()


# ----------------------------------------------------------------------------- refused


def test_without_its_device_it_says_what_is_missing(machine, bundle):
    before = hashes(bundle)
    machine.gpu = StandInGpu(here=False)
    with pytest.raises(NotInstalledError, match="cannot be finished here") as caught:
        machine.build(bundle)
    assert caught.value.why == "no GPU: bring one"
    assert "the bundle stays as it is" in caught.value.hint
    assert hashes(bundle) == before


def test_a_build_that_fails_leaves_the_bundle_as_it_was(machine, bundle, monkeypatch):
    before = hashes(bundle)
    machine.gpu = StandInGpu(breaks="float16")
    with pytest.raises(CompileError, match="no engine of float16"):
        machine.build(bundle)
    assert hashes(bundle) == before


KILLED = """
import os, signal
os.write(2, b"[E] autotuning ran out of memory\\n")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_builder_whose_process_is_killed_leaves_everything_as_it_was(
    machine, bundle, tmp_path, monkeypatch
):
    """The child, its death and the error are real; in TensorRT's place lies a module that dies."""
    machine.build(bundle)
    before, kept = hashes(bundle), hashes(machine.cache)
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "tensorrt.py").write_text(KILLED)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setattr(building, "finish_apart", finish_apart)
    with pytest.raises(CompileError, match="the process that built int8 died") as caught:
        machine.build(bundle, options={"optimization_level": "5"})
    assert caught.value.why == "[E] autotuning ran out of memory"
    assert hashes(bundle) == before
    assert hashes(machine.cache) == kept


def test_texts_for_tensorrt_s_own_calibrator_reach_its_int8_build(
    machine, bundle, tiny_texts, tmp_path
):
    calibration, _ = tiny_texts
    asked = {"options": {"calibrator": "tensorrt"}, "calibrates": True}
    machine.build(bundle, tmp_path / "finished", texts=calibration, **asked)
    first = machine.gpu.requests[0]
    assert first.options == {"calibrator": "tensorrt"}
    assert len(first.calibration) >= 100
    assert {one.calibration.sha256 for one in machine.gpu.requests} == {first.calibration.sha256}
    machine.gpu.requests.clear()
    machine.build(bundle, tmp_path / "again", options={"other": "build"})
    assert [one.calibration for one in machine.gpu.requests] == [None] * 3


def test_evaluation_texts_calibrate_nothing(machine, bundle, tiny_texts, tmp_path):
    with pytest.raises(TextsError, match="is an evaluation text too"):
        machine.build(bundle, tmp_path / "out", texts=tiny_texts[1], calibrates=True)
    assert machine.gpu.requests == []


def test_a_bundle_without_int8_is_not_calibrated(export, machine, tmp_path):
    ran = export("--precision", "float16")
    with pytest.raises(UsageError, match="builds from this bundle is int8"):
        machine.build(ran.folder, tmp_path / "out", calibrates=True)
    assert machine.gpu.requests == []


def test_a_changed_file_is_found_before_anything_is_built(machine, bundle):
    path = bundle / "tensorrt/model_int8.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StorageError, match="not what its manifest says"):
        machine.build(bundle)
    assert machine.gpu.requests == []


def test_a_graph_exchanged_under_a_new_manifest_is_found(machine, bundle):
    path = bundle / "tensorrt/model_int8.onnx"
    path.write_bytes((bundle / "tensorrt/job/float16/model_float16.onnx").read_bytes())
    reseal(bundle)
    with pytest.raises(StorageError, match="not the job of this bundle"):
        machine.build(bundle)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "build job of version 99"),
        ({"schema_version": None}, "build job of version None"),
        ({"artifacts": "none"}, "is not a build job"),
        ({"graph_sha256": "0" * 64}, "not the job of this bundle"),
        ({"evaluation_sha256": "0" * 64}, "do not belong together"),
        ({"settings": {"objective": "beauty"}}, "settings that this version does not know"),
    ],
    ids=["version", "no version", "shape", "graph", "texts", "settings"],
)
def test_another_job_is_refused(machine, bundle, change, message):
    (bundle / JOB).write_text(json.dumps({**read_job(bundle), **change}))
    reseal(bundle)
    with pytest.raises(StorageError, match=message):
        machine.build(bundle)
    assert machine.gpu.requests == []


@pytest.mark.parametrize("name", ["../escaped.onnx", "/tmp/escaped.onnx", "a/../../escaped"])
def test_a_job_that_leaves_its_folder_is_refused(machine, bundle, name):
    job = read_job(bundle)
    job["artifacts"][0]["files"][0]["name"] = name
    (bundle / JOB).write_text(json.dumps(job))
    reseal(bundle)
    with pytest.raises(StorageError, match="outside of their folder"):
        machine.build(bundle)


def test_a_bundle_without_a_job_is_refused_with_what_to_do(machine, bundle, tmp_path):
    shutil.rmtree(bundle / "tensorrt/job")
    reseal(bundle)
    with pytest.raises(UsageError, match="holds no build job") as caught:
        machine.build(bundle)
    assert "exporter export" in caught.value.hint


def test_what_is_not_there_is_refused(machine, bundle, tmp_path):
    with pytest.raises(UsageError, match="no build job for openvino"):
        machine.build(bundle, target="openvino")
    with pytest.raises(UsageError, match="no such file"):
        machine.build(bundle, engine=tmp_path / "nothing.plan")
    with pytest.raises(StorageError, match="cannot be read"):
        machine.build(tmp_path / "no-bundle", tmp_path / "out")


def test_the_command_where_no_gpu_may_be_used(bundle, shared_cache, tmp_path):
    before = hashes(bundle)
    command = [sys.executable, "-m", "exporter", "build", str(bundle), "--quiet"]
    hidden = environment(shared_cache) | {"CUDA_VISIBLE_DEVICES": ""}
    ran = subprocess.run(
        command, cwd=ROOT, env=hidden, capture_output=True, text=True, check=False, timeout=120
    )
    assert ran.returncode == 2, ran.stderr
    assert "cannot be finished here" in ran.stderr
    assert "no NVIDIA GPU" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert hashes(bundle) == before
