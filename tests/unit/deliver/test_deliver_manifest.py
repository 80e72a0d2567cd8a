"""The manifest: says where everything comes from; every kind of tampering is named."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from deliver_records import (
    HARDWARE,
    INT8,
    NOT_RUN,
    RECORD,
    TARGET,
    fidelity,
    sha,
    with_target,
)

from exporter.deliver.bundle import BundleWriter
from exporter.deliver.manifest import (
    MANIFEST,
    BundleProblem,
    facts_of,
    foreign_files,
    read_manifest,
    verify_bundle,
)
from exporter.deliver.spaces import space_of
from exporter.values import reference_space
from targets.errors import StorageError


@pytest.fixture
def bundle(tmp_path) -> Path:
    with BundleWriter(tmp_path / "out") as writer:
        writer.add_bytes(b"graph", "onnx/model.onnx")
        writer.add_bytes(b"{}", "config.json")
        writer.commit(facts_of(RECORD))
    return tmp_path / "out"


def problems(bundle: Path) -> list[tuple[str, str]]:
    return [(problem.path, problem.kind) for problem in verify_bundle(bundle)]


def edit(bundle: Path, **changes: object) -> None:
    path = bundle / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_manifest_says_what_everything_was_made_from(bundle):
    said = json.loads((bundle / MANIFEST).read_text())
    assert next(iter(said)) == "schema_version"
    assert (said["schema_version"], said["tool"]) == (1, "embedding-exporter")
    assert said["model"]["id"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert said["model"]["weights_sha256"] == sha("1")
    assert said["graph_sha256"] == sha("3")
    assert said["calibration_sha256"] == sha("4")
    assert (said["development_sha256"], said["evaluation_sha256"]) == (sha("5"), sha("6"))
    assert said["devices"][0]["fingerprint"] == HARDWARE.fingerprint
    assert said["command"] == "exporter export --target openvino -o out"
    assert said["settings"]["seed"] == "0"
    assert said["tool_versions"]["torch"] == "2.13.0+cpu"
    assert [file["path"] for file in said["files"]] == ["config.json", "onnx/model.onnx"]
    assert said["files"][0]["size_bytes"] == 2


def test_every_device_names_its_embedding_space(bundle):
    said = json.loads((bundle / MANIFEST).read_text())["devices"][0]["space_id"]
    assert said == reference_space(RECORD.encoder)
    assert facts_of(NOT_RUN).devices[0].space_id == ""
    worse = replace(TARGET, fidelity=fidelity(0.99, 0.98, 0.9, 0.93), recipe=INT8)
    own = facts_of(with_target(worse)).devices[0].space_id
    assert own.startswith(said.removesuffix("float32") + "int8:")


def test_a_device_that_was_not_measured_on_has_a_space_of_its_own():
    here = space_of(RECORD.encoder, TARGET)
    assert space_of(RECORD.encoder, TARGET, fingerprint=HARDWARE.fingerprint) == here
    assert space_of(RECORD.encoder, TARGET, fingerprint="another") != here
    prepared = replace(TARGET, status="prepared")
    assert space_of(RECORD.encoder, prepared) != here


def test_a_manifest_from_before_the_spaces_is_still_read(bundle):
    devices = json.loads((bundle / MANIFEST).read_text())["devices"]
    for device in devices:
        del device["space_id"]
    edit(bundle, devices=devices)
    assert read_manifest(bundle).devices[0].space_id == ""


def test_same_inputs_give_the_same_manifest(bundle, tmp_path):
    with BundleWriter(tmp_path / "again") as writer:
        writer.add_bytes(b"{}", "config.json")
        writer.add_bytes(b"graph", "onnx/model.onnx")
        writer.commit(facts_of(RECORD))
    assert (tmp_path / "again" / MANIFEST).read_bytes() == (bundle / MANIFEST).read_bytes()


def test_a_device_that_was_not_there_has_no_fingerprint():
    facts = facts_of(replace(NOT_RUN, evaluation_dev=None))
    assert facts.devices[0].fingerprint is None
    assert facts.development_sha256 is None


def test_an_untouched_bundle_has_no_problem(bundle):
    assert verify_bundle(bundle) == ()
    assert foreign_files(bundle) == ()


def test_every_kind_of_tampering_is_named(bundle):
    (bundle / "config.json").write_bytes(b"[]")
    (bundle / "onnx" / "model.onnx").unlink()
    (bundle / "extra").mkdir()
    (bundle / "extra" / "pytorch_model.bin").write_bytes(b"evil")
    (bundle / "link").symlink_to("/etc/passwd")
    assert problems(bundle) == [
        ("config.json", "changed"),
        ("extra/pytorch_model.bin", "extra"),
        ("link", "unsafe"),
        ("onnx/model.onnx", "missing"),
    ]
    assert foreign_files(bundle) == ("extra/pytorch_model.bin", "link")


def test_a_file_swapped_for_a_link_to_the_same_bytes_is_named(bundle, tmp_path):
    (tmp_path / "same").write_bytes(b"{}")
    (bundle / "config.json").unlink()
    (bundle / "config.json").symlink_to(tmp_path / "same")
    assert problems(bundle) == [("config.json", "unsafe")]


def test_a_folder_swapped_for_a_link_is_named(bundle, tmp_path):
    (bundle / "onnx").rename(tmp_path / "elsewhere")
    (bundle / "onnx").symlink_to(tmp_path / "elsewhere")
    assert problems(bundle) == [("onnx", "unsafe"), ("onnx/model.onnx", "unsafe")]


def test_a_manifest_that_points_out_of_the_bundle_is_not_followed(bundle, tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    listed = [{"path": "../secret", "sha256": sha("0"), "size_bytes": 6}]
    edit(bundle, files=listed)
    assert ("../secret", "unsafe") in problems(bundle)


def test_a_problem_reads_as_a_sentence():
    problem = BundleProblem(path="config.json", kind="changed")
    assert str(problem) == "config.json: not the bytes that the manifest lists"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"schema_version": 2}, "not a manifest that this version reads"),
        ({"tool": "something-else"}, "not a manifest that this version reads"),
        ({"files": "none"}, "is not a manifest"),
        ({"exit_code": "0"}, "is not a manifest"),
    ],
)
def test_another_manifest_is_refused(bundle, changes, match):
    edit(bundle, **changes)
    with pytest.raises(StorageError, match=match) as error:
        read_manifest(bundle)
    assert str(bundle / MANIFEST) in error.value.what


def test_a_missing_or_truncated_manifest_is_refused(bundle, tmp_path):
    with pytest.raises(StorageError, match="cannot be read"):
        verify_bundle(tmp_path / "absent")
    path = bundle / MANIFEST
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StorageError, match="is not a manifest"):
        verify_bundle(bundle)
