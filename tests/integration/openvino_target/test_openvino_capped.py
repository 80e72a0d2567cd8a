"""OpenVINO on a machine that is held to an older instruction set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from contract.tiny_graph import PAD_ID, TinyGraph, make_tokens

from targets.contract import CompiledArtifact, CompileRequest, Device
from targets.openvino.recipes import recipes_for
from targets.openvino.sdk import is_installed
from targets.openvino.target import OpenVinoTarget
from targets.registry import open_device

pytestmark = pytest.mark.openvino
if not is_installed("openvino"):
    pytest.skip("pip install 'embedding-exporter[openvino]'", allow_module_level=True)
if "avx512_vnni" not in open_device("local").hardware().features:
    pytest.skip("needs AVX512-VNNI to take away", allow_module_level=True)

AVX2, LOCAL = open_device("local:avx2"), open_device("local")


@pytest.fixture
def compile_for(tiny: TinyGraph, tmp_path: Path):
    def run(device: Device, name: str) -> CompiledArtifact:
        hardware = device.hardware()
        recipe = next(one for one in recipes_for(LOCAL.hardware()) if one.name == name)
        folder = tmp_path / f"{device.name.replace(':', '-')}-{name}"
        folder.mkdir()
        request = CompileRequest(
            graph=tiny.artifact,
            recipe=recipe,
            calibration=make_tokens(20),
            hardware=hardware,
            output_dir=folder,
            num_threads=1,
            seed=0,
        )
        return OpenVinoTarget().compile(request)

    return run


@pytest.mark.parametrize("name", ["float32", "int8-mixed"])
def test_what_is_compiled_does_not_depend_on_the_cap(compile_for, name):
    capped, plain = compile_for(AVX2, name), compile_for(LOCAL, name)
    assert [file.sha256 for file in capped.files] == [file.sha256 for file in plain.files]


def test_kernels_are_those_of_the_older_cpu_and_the_run_says_so(compile_for, tiny):
    artifact = compile_for(LOCAL, "float32")
    tokens = make_tokens(8)
    plan = OpenVinoTarget().run_plan(artifact, tiny.artifact, PAD_ID, 1)
    with AVX2.start(plan, 1) as runner:
        info, rows = runner.info(), runner.embed(tokens)
    assert info.options["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert info.options["INFERENCE_PRECISION_HINT"] == "f32"
    assert any("latency is relative only" in warning for warning in info.warnings)
    np.testing.assert_allclose(rows, tiny.embed(tokens), atol=1e-5)


def test_the_probe_shows_the_older_cpu():
    found = OpenVinoTarget().probe(AVX2)
    assert found.ok
    assert found.device_name.endswith("capped to AVX2")
    assert found.features == ()
    assert "avx512_vnni" in OpenVinoTarget().probe(LOCAL).features
    assert found.fingerprint != OpenVinoTarget().probe(LOCAL).fingerprint


def test_candidates_are_those_of_the_older_cpu():
    names = [recipe.name for recipe in OpenVinoTarget().candidates(None, AVX2.hardware())]
    assert "bfloat16" not in names
    assert "int8-dynamic" not in names
    assert names[0] == "float32"
