"""What a target says it compiled is held against what lies there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporter.steps.compiled import check_compiled
from targets.contract import (
    ArtifactFile,
    CompiledArtifact,
    CompileRequest,
    Hardware,
    OnnxArtifact,
    Recipe,
    TargetSpec,
    TokenSequences,
)
from targets.errors import CompileError
from targets.hashing import sha256_file

SPEC = TargetSpec(
    name="acme-npu",
    vendor="Acme",
    runtime="Acme NPU",
    precisions=("float32", "int8"),
    max_opset=20,
    artifact_kind="ONNX",
    extra="acme-npu",
)
RECIPE = Recipe(name="int8", precision="int8", float_precision="float32", why="it is small")


@pytest.fixture
def request_(tmp_path: Path) -> CompileRequest:
    graph = OnnxArtifact(
        path=tmp_path / "model.onnx",
        sha256="f" * 64,
        opset=20,
        inputs=(),
        outputs=(),
        model_id="tiny",
        revision=None,
        embedding_dim=4,
        pooling="mean",
        normalized=True,
        max_seq_length=16,
    )
    hardware = Hardware(
        architecture="x86_64",
        vendor="v",
        model_name="m",
        microarchitecture="u",
        features=frozenset(),
        num_cores=1,
        memory_bytes=1,
    )
    output = tmp_path / "files"
    output.mkdir()
    return CompileRequest(
        graph=graph,
        recipe=RECIPE,
        calibration=TokenSequences.from_lists([np.array([1], np.int32)], 0),
        hardware=hardware,
        output_dir=output,
        num_threads=1,
        seed=0,
    )


@pytest.fixture
def artifact(request_: CompileRequest) -> CompiledArtifact:
    """Two files, one of them in a folder of its own."""
    (request_.output_dir / "weights").mkdir()
    files = []
    for name, content in {"model.onnx": b"graph", "weights/0.bin": b"weights"}.items():
        path = request_.output_dir / name
        path.write_bytes(content)
        files.append(ArtifactFile(path=name, sha256=sha256_file(path), size_bytes=len(content)))
    return CompiledArtifact(
        directory=request_.output_dir,
        files=tuple(files),
        target=SPEC.name,
        recipe=RECIPE,
        built_from="f" * 64,
        device_requirement=(),
        tool_versions={},
        compile_s=0.1,
    )


def refusal(artifact: CompiledArtifact, request_: CompileRequest, spec: TargetSpec = SPEC) -> str:
    with pytest.raises(CompileError, match="target acme-npu: what it compiled for int8") as caught:
        check_compiled(artifact, request_, spec)
    assert "report it to Acme" in caught.value.hint
    return caught.value.why


def with_file(artifact: CompiledArtifact, **changes: object) -> CompiledArtifact:
    return replace(artifact, files=(replace(artifact.files[0], **changes), artifact.files[1]))


def test_what_is_as_it_says_passes(artifact, request_):
    check_compiled(artifact, request_, SPEC)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"path": "absent.onnx"}, "absent.onnx is not there"),
        ({"path": "../model.onnx"}, "../model.onnx lies outside of its folder"),
        ({"path": "weights"}, "weights is not there"),
        ({"size_bytes": 6}, "model.onnx has 5 bytes, not 6"),
        ({"sha256": "0" * 64}, "model.onnx does not hash to what it says"),
    ],
)
def test_a_file_that_is_not_as_it_says_is_named(artifact, request_, changes, said):
    assert said in refusal(with_file(artifact, **changes), request_)


def test_a_link_to_elsewhere_is_outside(artifact, request_):
    path = request_.output_dir / "model.onnx"
    outside = request_.output_dir.parent / "elsewhere.onnx"
    path.rename(outside)
    path.symlink_to(outside)
    assert "model.onnx lies outside" in refusal(artifact, request_)


def test_a_file_that_nobody_names_is_not_left_to_chance(artifact, request_):
    (request_.output_dir / "weights" / "1.bin").write_bytes(b"more")
    assert refusal(artifact, request_) == "weights/1.bin is there and not named"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": "openvino"}, "it calls itself 'openvino'"),
        ({"recipe": replace(RECIPE, name="other")}, "it names another recipe, other"),
        ({"built_from": "e" * 64}, "it was built from another graph"),
        ({"directory": Path("elsewhere")}, "its folder is not"),
        ({"files": ()}, "it names no file"),
    ],
)
def test_facts_that_are_not_the_request_s_are_named(artifact, request_, changes, said):
    assert said in refusal(replace(artifact, **changes), request_)


def test_a_precision_beyond_the_spec_is_named(artifact, request_):
    spec = replace(SPEC, precisions=("float32",))
    assert refusal(artifact, request_, spec) == "int8 is none of its precisions (float32)"


def test_every_fault_is_said_at_once(artifact, request_):
    wrong = replace(with_file(artifact, sha256="0" * 64), target="openvino", built_from="e" * 64)
    assert len(refusal(wrong, request_).split("; ")) == 3
