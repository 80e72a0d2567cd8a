"""Opening a delivered bundle: nothing that was changed is ever loaded."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from opened import SECTION

from exporter.deliver.bundle import BundleWriter, facts_of
from exporter.deliver.report import write_reports
from exporter.steps.bundled import open_bundle
from exporter.steps.execution import Built
from exporter.values import ShippedFile
from targets.contract import RunPlan
from targets.errors import StorageError
from targets.hashing import sha256_file
from tests.unit.deliver.deliver_records import RECORD, TARGET

ENTRY = "openvino/openvino_model.xml"


def write(folder, weights: bytes = b"weights"):
    """A bundle of one target: entry file and weights beside it."""
    with BundleWriter(folder) as writer:
        entry = writer.add_bytes(b"<net/>", ENTRY)
        writer.add_bytes(weights, "openvino/openvino_model.bin")
        writer.add_bytes(b"graph", "onnx/model.onnx")
        writer.add_bytes(b"data", "onnx/model.onnx_data")
        writer.add_bytes(b"other", "onnx/model_quantized.onnx")
        shipped = ShippedFile(path=ENTRY, sha256=sha256_file(entry), size_bytes=6)
        record = replace(
            RECORD,
            encoder=replace(RECORD.encoder, trust_remote_code=True),
            targets=(replace(TARGET, artifact=shipped),),
        )
        write_reports(record, writer.directory / "reports")
        writer.commit(facts_of(record))
    return folder


@pytest.fixture
def bundle(tmp_path):
    return write(tmp_path / "out")


def test_a_bundle_is_opened_with_its_own_tokenizer_and_graph(bundle):
    found = open_bundle(bundle)
    assert found.spec.directory == bundle
    assert found.spec.weights_sha256 == RECORD.encoder.weights_sha256
    assert found.graph.path == bundle / "onnx" / "model.onnx"
    assert not found.spec.trust_remote_code  # whatever the report says


def test_the_reference_is_the_fp32_graph_with_its_weights_and_nothing_else(bundle):
    files = [file.path for file in open_bundle(bundle).reference.files]
    assert files == ["onnx/model.onnx", "onnx/model.onnx_data"]


def test_equal_graphs_with_other_weights_are_not_the_same_artifact(bundle, tmp_path):
    """The entry file may be the same: what is beside it decides embeddings too."""
    other = write(tmp_path / "other", b"WEIGHTS")
    identities = []
    for one in (open_bundle(bundle), open_bundle(other)):
        artifact = one.artifact(one.report.targets[0])
        assert artifact.files[0].path == ENTRY
        plan = RunPlan(adapter=bundle, model=bundle, inputs=(), output="", pad_token_id=0,
                       embedding_dim=1, max_seq_length=1)  # fmt: skip
        identities.append(Built(artifact=artifact, plan=plan).identity)
    assert identities[0] != identities[1]


@pytest.mark.parametrize(("path", "content", "said"), [
    (ENTRY, b"<NET/>", "not the bytes that the manifest lists"),
    ("openvino/openvino_model.bin", b"weigh", "not the bytes"),
    ("onnx/model.onnx", None, "listed in the manifest, but not there"),
    ("reports/report.json", b"{}", "not the bytes"),
    ("openvino/evil.py", b"import os", "there, but not listed"),
])  # fmt: skip
def test_a_tampered_or_truncated_bundle_is_refused(bundle, path, content, said):
    if content is None:
        (bundle / path).unlink()
    else:
        (bundle / path).write_bytes(content)
    with pytest.raises(StorageError, match="is not what its manifest says") as caught:
        open_bundle(bundle)
    assert path in caught.value.why
    assert said in caught.value.why


def test_what_is_no_bundle_is_named(tmp_path):
    with pytest.raises(StorageError, match="cannot be read"):
        open_bundle(tmp_path)


def test_an_entry_file_that_only_the_report_knows_otherwise_is_refused(bundle):
    found = open_bundle(bundle)
    section = replace(SECTION, artifact=replace(SECTION.artifact, path=ENTRY))
    with pytest.raises(StorageError, match="not the file that the bundle's report is about"):
        found.artifact(section)


def test_a_manifest_of_a_newer_version_is_refused(bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 2}))
    with pytest.raises(StorageError, match="not a manifest that this version reads"):
        open_bundle(bundle)
