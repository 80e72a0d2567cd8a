from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from targets.contract import Device, ExecutedPrecision, Hardware, TokenSequences
from targets.devices.local import LocalDevice
from targets.errors import RunnerFailedError


def test_info_says_what_loading_took_and_what_is_in_effect(start):
    info = start(num_threads=1).info()
    assert info.load_s > 0
    assert info.first_call_ms > 0
    assert 0 < info.rss_bytes <= info.peak_rss_bytes
    assert info.tool_versions["table"] == "1.0"
    assert info.tool_versions["numpy"] == np.__version__
    assert info.tool_versions["python"] == ".".join(map(str, sys.version_info[:3]))
    assert info.options["num_threads"] == "1"
    assert info.options["omp"] == "1"
    assert info.warnings == ()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system cannot pin")
def test_the_runner_is_pinned_to_the_first_allowed_cpus(start):
    allowed = sorted(os.sched_getaffinity(0))
    runner = start(num_threads=1)
    assert os.sched_getaffinity(runner.pid) == {allowed[0]}
    assert runner.info().options["cpus"] == str(allowed[0])


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system cannot pin")
def test_more_threads_than_cpus_is_a_warning(start):
    allowed = len(os.sched_getaffinity(0))
    (warning,) = start(num_threads=allowed + 1).info().warnings
    assert f"{allowed} CPUs are allowed" in warning


def test_an_option_that_the_runtime_did_not_take_is_a_warning(start):
    """The numpy adapter always says hint=f32."""
    assert start(options={"hint": "F32"}).info().warnings == ()
    (warning,) = start(options={"hint": "bf16"}).info().warnings
    assert warning == "hint=bf16 was asked for, the runtime uses f32"


def test_the_callers_own_memory_is_not_counted(start):
    """Linux starts a child's ru_maxrss with the parent's size."""
    ballast = np.ones(30_000_000)
    assert start().info().peak_rss_bytes < 150e6 < ballast.nbytes


def test_inspect_returns_the_adapters_rows(start, texts):
    assert start().inspect(texts) == (
        ExecutedPrecision(op_type="Gather", dtype="float32", count=1, time_share=0.25),
        ExecutedPrecision(op_type="Mean", dtype="float32", count=3, time_share=None),
    )


def test_inspecting_without_texts_is_refused(start):
    with pytest.raises(RunnerFailedError, match="at least one text"):
        start().inspect(TokenSequences.from_lists([], 1))


def test_the_callers_python_settings_do_not_leak(start, texts, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONSTARTUP", str(tmp_path / "numpy.py"))
    monkeypatch.chdir(tmp_path)
    runner = start()
    assert runner.embed(texts).shape == (30, 6)
    assert Path(runner.info().options["cwd"]) != tmp_path


def test_the_devices_environment_reaches_the_runner_but_not_the_threads(start, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    device = LocalDevice("local:capped", environment={"ONEDNN_MAX_CPU_ISA": "AVX2"})
    runner = start(device=device)
    environment = Path(f"/proc/{runner.pid}/environ").read_bytes()
    assert b"ONEDNN_MAX_CPU_ISA=AVX2" in environment
    assert runner.info().options["omp"] == "1"


def test_the_local_device_keeps_the_contract():
    device = LocalDevice()
    assert isinstance(device, Device)
    assert device.name == "local"
    assert device.measures_latency
    hardware = device.hardware()
    assert isinstance(hardware, Hardware)
    assert hardware.num_cores >= 1


def test_a_runner_without_threads_is_refused(start):
    with pytest.raises(ValueError, match="at least 1"):
        start(num_threads=0)
