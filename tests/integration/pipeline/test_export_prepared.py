"""`export --target tensorrt` where no GPU is: prepared, simulated, and no latency anywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from export_command import Ran, run_command

from exporter.deliver.manifest import verify_bundle

pytestmark = [pytest.mark.slow]


@pytest.fixture
def export(
    tiny_model: Path, tiny_texts: tuple[Path, Path], tmp_path: Path, shared_cache: Path
) -> Callable[..., Ran]:
    """Run `exporter export` on the tiny model for targets of a test's own."""
    calibration, evaluation = tiny_texts

    def run(*arguments: str) -> Ran:
        flags = ["--model", str(tiny_model), "--calibration", str(calibration)]
        flags += ["--eval", str(evaluation), *arguments]
        return run_command(flags, tmp_path / "out", shared_cache, tmp_path)

    return run


def test_tensorrt_is_prepared(export):
    ran = export("--target", "tensorrt", "--precision", "int8")
    assert ran.code == 3, ran.out + ran.err
    (target,) = ran.report["targets"]
    assert target["status"] == "prepared"
    assert target["numerics"] == "simulated"
    assert target["latency"] is None
    assert target["runner"]["load_s"] is None
    assert target["hardware"]["microarchitecture"] == "sm_89"
    checks = {one["name"]: one for one in target["checks"]}
    assert checks["speedup"]["verdict"] == "not_run"
    assert "nothing was timed without the device" in checks["speedup"]["reason"]
    assert checks["mean_cosine"]["value"] > 0.9
    folder = ran.folder / "tensorrt"
    assert {"model_int8.onnx", "build_plan.json", "trtexec.txt"} <= {
        one.name for one in folder.iterdir()
    }
    page = (ran.folder / "reports" / "report.md").read_text("utf-8")
    assert "simulated: the same graph on this machine's CPU" in page
    verify_bundle(ran.folder)


def test_beside_a_target_that_runs_here_both_are_told(export):
    ran = export("--target", "tensorrt", "--target", "onnxruntime", "--precision", "float32")
    status = {one["target"]: one["status"] for one in ran.report["targets"]}
    assert status["tensorrt"] == "prepared"
    assert status["onnxruntime"] == "verified"
    assert ran.code == 3


def test_a_gpu_that_nobody_builds_for_is_refused_before_the_work(export):
    ran = export("--target", "tensorrt", "--compute-capability", "3.5")
    assert ran.code == 2
    assert "3.5" in ran.err
    assert not ran.folder.exists()


@pytest.mark.parametrize(("target", "said"), [
    ("openvino", "openvino has no attention in int8"),
    ("tensorrt", "needs several heads of 16, 32, 64 values"),
])  # fmt: skip
def test_attention_in_int8_is_refused_with_the_reason(export, target, said):
    ran = export("--target", target, "--attention-int8")
    assert ran.code == 2
    assert said in ran.err
    assert not ran.folder.exists()
