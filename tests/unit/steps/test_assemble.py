"""Artifacts of several targets and devices in one bundle."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from exporter.deliver.bundle import BundleWriter
from exporter.steps.assemble import Shipment, add_artifacts
from exporter.values import TargetResult


@pytest.fixture
def bundle(tmp_path):
    with BundleWriter(tmp_path / "out") as writer:
        yield writer


@pytest.fixture
def shipment(tmp_path):
    """Make what one target ships for one device: {path in the bundle: content}."""
    number = iter(range(100))

    def make(target: str, device: str, files: dict[str, str]) -> Shipment:
        directory = tmp_path / f"artifact-{next(number)}"
        directory.mkdir()
        for path, content in files.items():
            (directory / Path(path).name).write_text(content)
        return Shipment(
            target=SimpleNamespace(
                ship=lambda artifact: [(Path(path).name, path) for path in files]
            ),
            result=TargetResult(target=target, device=device, status="verified"),
            built=SimpleNamespace(artifact=SimpleNamespace(directory=directory)),
        )

    return make


def content(bundle: BundleWriter) -> dict[str, str]:
    root = bundle.directory
    return {
        str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()
    }


def test_two_devices_with_the_same_artifact_share_it(bundle, shipment):
    files = {"onnx/model_qint8_arm64.onnx": "same"}
    found = add_artifacts(bundle, [shipment("m", "emulated:a", files), shipment("m", "b", files)])
    assert content(bundle) == files
    assert {entry.path for entry in found.values()} == set(files)
    assert set(found) == {("m", "emulated:a"), ("m", "b")}


def test_another_artifact_of_a_second_device_gets_a_folder_of_its_own(bundle, shipment):
    path = "onnx/model_qint8_arm64.onnx"
    first = shipment("m", "local", {path: "one", "m/notes": "n"})
    second = shipment("m", "ssh://user@host:22", {path: "two", "m/notes": "n"})
    found = add_artifacts(bundle, [first, second])
    assert content(bundle) == {
        path: "one",
        "m/notes": "n",
        f"devices/ssh-user-host-22/{path}": "two",
        "devices/ssh-user-host-22/m/notes": "n",
    }
    assert found["m", "local"].path == path
    assert found["m", "ssh://user@host:22"].path == f"devices/ssh-user-host-22/{path}"
    assert found["m", "local"].sha256 != found["m", "ssh://user@host:22"].sha256


def test_targets_do_not_disturb_each_other(bundle, shipment):
    found = add_artifacts(
        bundle, [shipment("a", "local", {"a/x": "1"}), shipment("b", "local", {"b/x": "2"})]
    )
    assert content(bundle) == {"a/x": "1", "b/x": "2"}
    assert [entry.path for entry in found.values()] == ["a/x", "b/x"]


def test_a_target_that_ships_one_file_under_two_names(bundle, shipment):
    one = shipment("a", "local", {"a/x": "1", "b/x": "1"})
    add_artifacts(bundle, [one])
    assert content(bundle) == {"a/x": "1", "b/x": "1"}
