"""What the server target says without building anything: plans, variants, places, probes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from targets.contract import ArtifactFile, CompiledArtifact, OnnxArtifact, Recipe, TensorSpec
from targets.hardware.profiles import cpu_profile
from targets.onnxruntime.recipes import recipes_for
from targets.onnxruntime.target import OnnxRuntimeTarget, file_stem

TARGET = OnnxRuntimeTarget()
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


def hardware(name: str):
    return cpu_profile(name).hardware(num_cores=2, memory_bytes=1 << 30)


ZEN4 = hardware("zen4")
RECIPES = {one.name: one for one in recipes_for(ZEN4)}


def artifact(recipe: Recipe, *names: str) -> CompiledArtifact:
    return CompiledArtifact(
        directory=Path("built"),
        files=tuple(ArtifactFile(path=name, sha256="0", size_bytes=1) for name in names),
        target=TARGET.spec.name,
        recipe=recipe,
        built_from="0",
        device_requirement=(),
        tool_versions={},
        compile_s=1.0,
    )


@pytest.mark.parametrize(
    ("cpu", "stem"),
    [
        ("haswell", "model_quint8_avx2"),
        ("alderlake", "model_quint8_avx2"),
        ("zen3", "model_quint8_avx2"),
        ("skylake_avx512", "model_qint8_avx512"),
        ("icelake", "model_qint8_avx512_vnni"),
        ("sapphirerapids", "model_qint8_avx512_vnni"),
        ("zen4", "model_qint8_avx512_vnni"),
    ],
)
def test_int8_is_named_as_the_export_helpers_name_it(cpu, stem):
    for name in ("int8-static", "int8-dynamic"):
        assert file_stem(RECIPES[name], hardware(cpu)) == stem
    mixed = replace(RECIPES["int8-static"], name="int8-static-half")
    assert file_stem(mixed, hardware(cpu)) == stem


def test_other_recipes_are_named_for_what_they_are():
    old = replace(ZEN4, features=frozenset())
    assert file_stem(RECIPES["int8-static"], old) == "model_quantized"
    assert file_stem(RECIPES["float32"], ZEN4) == "model_optimized"
    assert file_stem(RECIPES["int8-weights"], ZEN4) == "model_q8"
    assert file_stem(RECIPES["int4-weights"], ZEN4) == "model_q4"


def test_a_quantized_file_is_also_the_general_one():
    name = "model_qint8_avx512_vnni.onnx"
    assert TARGET.ship(artifact(RECIPES["int8-static"], name)) == (
        (name, f"onnx/{name}"),
        (name, "onnx/model_quantized.onnx"),
    )
    general = "model_quantized.onnx"
    assert TARGET.ship(artifact(RECIPES["int8-static"], general)) == ((general, f"onnx/{general}"),)


def test_external_data_keeps_the_name_that_the_graph_holds():
    names = ("model_q4.onnx", "model_q4.onnx_data")
    assert TARGET.ship(artifact(RECIPES["int4-weights"], *names)) == (
        ("model_q4.onnx", "onnx/model_q4.onnx"),
        ("model_q4.onnx_data", "onnx/model_q4.onnx_data"),
        ("model_q4.onnx", "onnx/model_quantized.onnx"),
    )


def test_no_recipe_ever_takes_the_place_of_the_fp32_graph():
    for recipe in RECIPES.values():
        for cpu in ("haswell", "zen4"):
            built = artifact(recipe, f"{file_stem(recipe, hardware(cpu))}.onnx")
            assert "onnx/model.onnx" not in [place for _, place in TARGET.ship(built)]


def test_a_plan_leaves_nothing_open():
    plan = TARGET.run_plan(artifact(RECIPES["float32"], "a.onnx"), GRAPH, 0, 2)
    assert plan.options == {
        "graph_optimization_level": "all",
        "intra_op_spinning": "1",
        "execution_mode": "sequential",
        "concurrent_runs": "1",
    }
    assert (plan.length_multiple, plan.max_batch_tokens) == (1, 512)


def test_variants_turn_one_knob_each():
    plan = TARGET.run_plan(artifact(RECIPES["float32"], "a.onnx"), GRAPH, 0, 2)
    found = {one.name: one for one in TARGET.variants(plan, 4)}
    assert list(found) == [
        "concurrent-4",
        "spinning-off",
        "batch-tokens-1024",
        "batch-tokens-4096",
        "buckets-8",
        "level-basic",
    ]
    changed = {
        name: {
            field
            for field in ("options", "length_multiple", "max_batch_tokens")
            if getattr(one.plan, field) != getattr(plan, field)
        }
        for name, one in found.items()
    }
    assert all(len(fields) == 1 for fields in changed.values())
    assert [name for name, one in found.items() if one.batched_only] == ["concurrent-4"]
    alone = {one.name for one in TARGET.variants(plan, 1)}
    assert alone == {name for name in found if name not in ("concurrent-4", "spinning-off")}


class StandInDevice:
    """A device that answers what it is told to."""

    measures_latency = True

    def __init__(self, name: str, versions: dict[str, str]) -> None:
        self.name = name
        self._versions = versions

    def hardware(self):
        return ZEN4

    def distributions(self, names):
        return {name: v for name, v in self._versions.items() if name in names}


def test_a_device_with_the_runtime_is_ready():
    pytest.importorskip("onnxruntime")
    found = TARGET.probe(StandInDevice("local", {"onnxruntime": "1.99"}))
    assert found.ok and not found.missing
    assert found.tool_versions["onnxruntime there"] == "1.99"
    assert "avx512_vnni" in found.features and "sse4_2" not in found.features


@pytest.mark.parametrize(
    ("name", "versions", "said"),
    [
        ("a-board", {}, "a-board lacks onnxruntime: pip install onnxruntime"),
        ("local:avx2", {"onnxruntime": "1.99"}, "emulated:haswell"),
    ],
)
def test_a_device_that_will_not_do_says_why(name, versions, said):
    pytest.importorskip("onnxruntime")
    found = TARGET.probe(StandInDevice(name, versions))
    assert not found.ok
    assert said in found.missing[0]
