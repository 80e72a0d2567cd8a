"""This machine's GPU as a device; a script stands for the driver's tool: there may be no GPU."""

from __future__ import annotations

import numpy as np
import pytest

from targets.devices import catalogue
from targets.devices.cuda import CudaDevice
from targets.errors import DeviceError
from targets.registry import describe_targets, device_names, load_target, open_device

H100 = "NVIDIA H100 80GB HBM3, 9.0, 81559, 580.65.06"
T4 = "Tesla T4, 7.5, 15360, 580.65.06"


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """Put a script in the place of the driver's tool, which names a GPU."""

    def plug_in(line: str) -> None:
        path = tmp_path / "nvidia-smi"
        path.write_text(f'#!/bin/sh\nprintf "%s\\n" "{line}"\n')
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return plug_in


@pytest.fixture
def no_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))


def row():
    return next(one for one in catalogue.describe_devices() if one.name == "local:cuda")


def test_it_says_what_the_gpu_multiplies(gpu):
    gpu(H100)
    hardware = open_device("local:cuda").hardware()
    assert (hardware.architecture, hardware.microarchitecture) == ("cuda", "sm_90")
    assert {"cuda", "sm_90", "tensor_fp8", "tensor_int8", "tensor_bfloat16"} <= hardware.features
    assert hardware.memory_bytes == 81559 << 20
    assert hardware.num_cores == open_device("local").hardware().num_cores


def test_another_gpu_is_another_machine(gpu):
    gpu(H100)
    hopper = CudaDevice().hardware()
    gpu(T4)
    turing = CudaDevice().hardware()
    assert hopper.fingerprint != turing.fingerprint
    assert "tensor_fp8" not in turing.features
    assert open_device("local").hardware().fingerprint not in (
        hopper.fingerprint,
        turing.fingerprint,
    )


def test_it_is_listed_with_what_it_is(gpu):
    gpu(H100)
    assert "local:cuda" in device_names()
    assert row().is_ready
    assert row().hardware == "NVIDIA H100 80GB HBM3 (sm_90)"
    assert row().latency == "real"


def test_without_a_gpu_the_reason_is_given(no_gpu):
    assert not row().is_ready
    assert "no NVIDIA GPU is here" in row().state
    with pytest.raises(DeviceError, match="no NVIDIA GPU is here"):
        open_device("local:cuda")


def test_its_runners_are_children_of_this_machine(gpu, start, texts, expected):
    """They count GPUs as the driver's tool does, by the bus."""
    gpu(H100)
    device = CudaDevice()
    assert device._environment == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert np.allclose(start(device=device).embed(texts), expected(texts), atol=1e-5)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime", "onnxruntime-mobile"])
def test_targets_of_cpus_do_not_take_it(gpu, name):
    gpu(H100)
    found = next(one for one in describe_targets(open_device("local:cuda")) if one.name == name)
    assert found.availability is not None and not found.availability.ok


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt-rtx"])
def test_tensorrt_finds_the_gpu_by_itself_and_says_so(gpu, name):
    gpu(H100)
    found = load_target(name).probe(open_device("local:cuda"))
    assert not found.ok
    assert any("take --device local" in one for one in found.missing)
    here = load_target(name).probe(open_device("local"))
    assert not any("take --device local" in one for one in here.missing)


def test_torch_takes_it_if_it_was_built_for_it(gpu, monkeypatch):
    from targets.pytorch import sdk

    gpu(H100)
    versions = {"torch": "2.11.0+cu130"}
    monkeypatch.setattr(sdk.metadata, "version", lambda name: versions.get(name, "1.0"))
    found = load_target("torch").probe(open_device("local:cuda"))
    assert found.ok
    assert (found.device_name, "tensor_fp8" in found.features) == ("NVIDIA H100 80GB HBM3", True)
    versions["torch"] = "2.13.0+cpu"
    refused = load_target("torch").probe(open_device("local:cuda"))
    assert not refused.ok
    assert "is built for CPUs" in refused.missing[0]
    assert load_target("torch").probe(open_device("local")).ok
