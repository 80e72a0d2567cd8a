"""What the mobile target says without building anything: recipes, plans, places, probes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from targets.contract import (
    ArtifactFile,
    CompiledArtifact,
    CompileRequest,
    Hardware,
    OnnxArtifact,
    Recipe,
    TensorSpec,
    TokenSequences,
)
from targets.errors import CompileError
from targets.onnxruntime.mobile import ONNX_MODEL, ORT_MODEL, MobileTarget
from targets.onnxruntime.variants import DEFAULTS

TARGET = MobileTarget()


def hardware(architecture: str, *features: str) -> Hardware:
    return Hardware(
        architecture=architecture,
        vendor="",
        model_name="a board",
        microarchitecture="",
        features=frozenset(features),
        num_cores=4,
        memory_bytes=1,
    )


A72 = hardware("aarch64", "asimd")
N1 = hardware("aarch64", "asimd", "asimdhp", "asimddp")
V1 = hardware("aarch64", "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve")
XEON = hardware("x86_64", "avx2", "avx512_vnni", "amx_int8")

GRAPH = OnnxArtifact(
    path=Path("model.onnx"),
    sha256="0" * 64,
    opset=20,
    inputs=(TensorSpec(name="input_ids", dtype="int64", shape=("b", "s")),),
    outputs=(),
    model_id="m",
    revision=None,
    embedding_dim=384,
    pooling="mean",
    normalized=True,
    max_seq_length=256,
)


class Board:
    """A device that says what it is told to."""

    name = "board"
    measures_latency = True

    def __init__(self, there: Mapping[str, str], found: Hardware | Exception = N1) -> None:
        self._there, self._found = there, found

    def hardware(self) -> Hardware:
        if isinstance(self._found, Exception):
            raise self._found
        return self._found

    def distributions(self, names: Sequence[str]) -> dict[str, str]:
        return {name: self._there[name] for name in names if name in self._there}


def artifact_of(recipe: Recipe, folder: Path = Path("built")) -> CompiledArtifact:
    names = [ORT_MODEL, "minimal-build/required_operators_and_types.config"]
    names += ["minimal-build/usability.txt"]
    names += [] if recipe.quantizer == "none" else [ONNX_MODEL]
    return CompiledArtifact(
        directory=folder,
        files=tuple(ArtifactFile(path=name, sha256="", size_bytes=1) for name in names),
        target="onnxruntime-mobile",
        recipe=recipe,
        built_from="",
        device_requirement=(),
        tool_versions={},
        compile_s=1.0,
    )


def recipe_of(precision: str, found: Hardware = N1) -> Recipe:
    return next(one for one in TARGET.candidates(None, found) if one.precision == precision)


# ---------------------------------------------------------------------------- recipes


@pytest.mark.parametrize("found", [A72, N1, V1, XEON], ids=["A72", "N1", "V1", "x86"])
def test_every_cpu_gets_float_static_dynamic_and_weights(found):
    names = [recipe.name for recipe in TARGET.candidates(None, found)]
    assert names[0] == "float32"
    assert set(names) >= {"int8-static", "int8-dynamic", "int8-weights", "int4-weights"}


def test_embedding_tables_are_small_where_weights_are():
    for recipe in TARGET.candidates(None, N1):
        expected = "float32" if recipe.quantizer == "none" else "int8"
        assert recipe.embeddings == expected, recipe.name


def test_another_architecture_gets_the_recipes_of_a_plain_arm_cpu():
    assert TARGET.candidates(None, XEON) == TARGET.candidates(None, A72)


def test_no_recipe_speaks_of_x86():
    for recipe in TARGET.candidates(None, XEON):
        assert not re.search("avx|amx|vnni", recipe.why, re.IGNORECASE), recipe.name


def test_a_recipe_of_another_target_is_refused_before_anything_is_written(tmp_path):
    strange = Recipe(
        name="int8-nncf", precision="int8", float_precision="float32", quantizer="nncf_ptq", why="-"
    )
    request = CompileRequest(
        graph=GRAPH,
        recipe=strange,
        calibration=TokenSequences.from_lists([[1]], 0),
        hardware=N1,
        output_dir=tmp_path,
        num_threads=1,
        seed=0,
    )
    with pytest.raises(CompileError, match="int8-nncf"):
        TARGET.compile(request)
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------- run plans


def test_the_runner_loads_the_ort_format_and_nothing_travels_with_it():
    plan = TARGET.run_plan(artifact_of(recipe_of("int8")), GRAPH, 0, 4)
    assert plan.model == Path("built") / ORT_MODEL
    assert plan.model.parent != (Path("built") / ONNX_MODEL).parent
    assert plan.inputs == ("input_ids",)
    assert plan.options["graph_optimization_level"] == "disabled"
    assert set(plan.options) == set(DEFAULTS)


def test_fewer_threads_are_tried_where_there_are_several():
    plan = TARGET.run_plan(artifact_of(recipe_of("int8")), GRAPH, 0, 4)
    half = next(one for one in TARGET.variants(plan, 4) if one.num_threads < 4)
    assert (half.num_threads, half.plan) == (2, plan)
    assert all(one.num_threads == 1 for one in TARGET.variants(plan, 1))


def test_no_variant_optimizes_what_is_optimized_already():
    plan = TARGET.run_plan(artifact_of(recipe_of("int8")), GRAPH, 0, 4)
    names = [one.name for one in TARGET.variants(plan, 4)]
    levels = {one.plan.options["graph_optimization_level"] for one in TARGET.variants(plan, 4)}
    assert levels == {"disabled"}
    assert "spinning-off" in names


# --------------------------------------------------------------------------- shipping


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("int8", ("onnx/model_qint8_arm64.ort", "onnx/model_qint8_arm64.onnx")),
        ("int4", ("onnx/model_qint4_arm64.ort", "onnx/model_qint4_arm64.onnx")),
    ],
)
def test_models_go_under_the_names_that_loaders_know(precision, expected):
    places = dict(TARGET.ship(artifact_of(recipe_of(precision))))
    assert (places[ORT_MODEL], places[ONNX_MODEL]) == expected
    assert "onnxruntime-mobile/required_operators_and_types.config" in places.values()
    assert "onnxruntime-mobile/usability.txt" in places.values()


def test_float32_never_takes_the_place_of_the_bundle_s_own_graph():
    places = [place for _, place in TARGET.ship(artifact_of(recipe_of("float32")))]
    assert places[0] == "onnx/model.ort"
    assert "onnx/model.onnx" not in places


# ----------------------------------------------------------------------------- probes


def test_a_device_with_the_runtime_is_ready():
    found = TARGET.probe(Board({"onnxruntime": "1.30.0"}))
    assert found.ok
    assert found.device_name == "a board"
    assert found.fingerprint == N1.fingerprint
    assert "1.30.0" in found.tool_versions.values()
    assert set(found.features) == {"asimd", "asimddp"}


def test_a_device_without_the_runtime_says_how_to_mend_it():
    found = TARGET.probe(Board({"numpy": "2.0"}))
    assert not found.ok
    assert found.missing == ("board lacks onnxruntime: pip install onnxruntime",)


def test_a_device_that_cannot_be_asked_is_not_ok():
    found = TARGET.probe(Board({}, OSError("no route")))
    assert not found.ok
    assert "no route" in found.missing[0]


def test_what_the_target_is_costs_no_import_of_a_runtime():
    program = (
        "import sys, json; from targets.onnxruntime.mobile import MobileTarget; MobileTarget();"
        "print(json.dumps(sorted({'onnx', 'onnxruntime', 'torch', 'flatbuffers'}"
        " & set(sys.modules))))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(answer.stdout) == []
