"""The GPU as the driver's tool names it; the tool is a script here, since no GPU may be at hand."""

from __future__ import annotations

import pytest

from targets.errors import DeviceError
from targets.hardware.nvidia import detect_gpu, parse_gpu

LINE = "NVIDIA H100 80GB HBM3, 9.0, 81559, 580.65.06"


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """Put a script in the tool's place: what it prints, how it ends; what it was asked."""

    def make(prints: str, code: int = 0):
        path, asked = tmp_path / "nvidia-smi", tmp_path / "asked"
        path.write_text(f'#!/bin/sh\necho "$@" > {asked}\nprintf "%s\\n" "{prints}"\nexit {code}\n')
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return asked

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return make


def test_a_gpu_is_named_with_its_capability_and_memory():
    gpu = parse_gpu(LINE)
    assert (gpu.name, gpu.profile.sm) == ("NVIDIA H100 80GB HBM3", "sm_90")
    assert (gpu.memory_bytes, gpu.driver) == (81559 << 20, "580.65.06")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "something else than a GPU"),
        ("NVIDIA H100, 9.0", "something else than a GPU"),
        ("NVIDIA H100, 9.0, [N/A], 580", "something else than a GPU"),
        ("Tesla K80, 3.7, 11441, 470", "not known"),
    ],
)
def test_other_answers_are_refused(line, message):
    with pytest.raises(DeviceError, match=message):
        parse_gpu(line)


def test_the_first_gpu_that_cuda_may_use_is_asked_for(tool, monkeypatch):
    asked = tool(LINE)
    assert detect_gpu().profile.compute_capability == "9.0"
    assert asked.read_text().split()[-1] == "--id=0"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    detect_gpu()
    assert asked.read_text().split()[-1] == "--id=2"


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_gpus_are_not_used(tool, monkeypatch, hidden):
    tool(LINE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    with pytest.raises(DeviceError, match="is to be used here"):
        detect_gpu()


def test_a_driver_that_finds_none_is_quoted(tool):
    tool("No devices were found", code=6)
    with pytest.raises(DeviceError, match="finds no GPU 0") as caught:
        detect_gpu()
    assert "No devices were found" in caught.value.why


def test_no_driver_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="no NVIDIA GPU is here"):
        detect_gpu()
