"""`ci/devices.toml`: every mistake in it is named before any job runs."""

from __future__ import annotations

import pytest
from fleets import OWN, TWO, write_fleet

from exporter.ci.fleet import device_named, load_fleet
from exporter.config import load_settings
from targets.errors import ConfigError


def test_a_fleet_is_read_as_it_is_written(tmp_path):
    fleet = load_fleet(write_fleet(tmp_path))
    assert list(fleet.device) == ["server", "gpu-t4"]
    assert fleet.gate == tmp_path / "gate.toml"
    server = fleet.device["server"]
    assert server.targets == ("openvino", "onnxruntime")
    assert server.policy == tmp_path / "strict.toml"
    assert (server.device, server.finish_runner) == ("local", ())
    assert fleet.device["gpu-t4"].policy is None


def test_the_project_s_own_fleet_and_policies_are_valid():
    fleet = load_fleet(OWN)
    assert {"openvino", "onnxruntime", "onnxruntime-mobile", "tensorrt"} <= {
        target for device in fleet.device.values() for target in device.targets
    }
    policies = [device.policy for device in fleet.device.values() if device.policy]
    assert policies
    for policy in policies:
        load_settings(policy, {})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("targets =", "tragets =", "did you mean 'targets'?"),
        ("gate =", "gates =", "did you mean 'gate'?"),
        ('runner = ["linux", "x64"]', "", "device.server.runner is not valid"),
        ('["openvino", "onnxruntime"]', "[]", "device.server.targets is not valid"),
        ('["openvino", "onnxruntime"]', '"openvino"', "device.server.targets is not valid"),
        ('"openvino", "demo"', '"demo; rm"', "letters, digits"),
        ('"onnxruntime"]', '"$(id)"]', "letters, digits"),
        ('policy = "strict.toml"', 'policy = "lost.toml"', "device.server.policy names lost.toml"),
        ('gate = "gate.toml"', 'gate = "lost.toml"', "gate names lost.toml"),
        ("[device.server]", '[device."../server"]', "'../server' is not made of letters"),
        ("[device.server]", "[device.server", "is not valid TOML"),
        ('["tensorrt"]', '["openvino"]', "server and gpu-t4 both have openvino on local"),
    ],
)
def test_every_mistake_is_named(old, new, message, tmp_path):
    assert old in TWO
    path = write_fleet(tmp_path, TWO.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load_fleet(path)
    assert message in str(caught.value)
    assert "devices.toml" in caught.value.what


def test_a_fleet_without_devices_is_none(tmp_path):
    with pytest.raises(ConfigError, match="device is not valid"):
        load_fleet(write_fleet(tmp_path, 'model = "a"'))


def test_a_missing_file_says_where_it_is_looked_for(tmp_path):
    with pytest.raises(ConfigError, match="no such file") as caught:
        load_fleet(tmp_path / "devices.toml")
    assert "--devices" in caught.value.hint


def test_an_unknown_device_names_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="no device 'sever'") as caught:
        device_named(load_fleet(write_fleet(tmp_path)), "sever")
    assert "'server'" in caught.value.hint
