"""The real encoder: how close each recipe stays to FP32, and what its layers really run in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from contract.tiny_plans import calibrated_table

from exporter.judge.precision import judge_precision
from exporter.source.corpus import load_calibration
from exporter.source.encoder import load_encoder
from exporter.source.onnx_export import export_onnx
from exporter.source.resolve import resolve_encoder
from exporter.source.tokenizer import load_tokenizer
from targets.contract import (
    ALONE,
    CompileRequest,
    ExecutedPrecision,
    LayerOverride,
    OnnxArtifact,
    Recipe,
    RunPlan,
    TokenSequences,
)
from targets.onnxruntime.recipes import recipes_for
from targets.onnxruntime.target import ADAPTER, OnnxRuntimeTarget
from targets.quantization.layers import read_layers
from targets.quantization.plans_file import Prepared, save_prepared
from targets.quantization.prepare import Method, Preparation
from targets.registry import open_device

pytestmark = [pytest.mark.model, pytest.mark.slow]

TARGET, DEVICE = OnnxRuntimeTarget(), open_device("local")
RECIPES = {one.name: one for one in recipes_for(DEVICE.hardware())}
NUM_CALIBRATION, NUM_HELD_OUT, LONGEST, NUM_THREADS = 40, 24, 48, 2
NUM_LINEARS, NUM_ATTENTION = 36, 12
BATCH = 8


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One recipe's embeddings and what ran."""

    together: np.ndarray
    alone: np.ndarray
    executed: tuple[ExecutedPrecision, ...]
    size_bytes: int

    @property
    def counts(self) -> Counter[tuple[str, str]]:
        return Counter({(row.op_type, row.dtype): row.count for row in self.executed})


@dataclass(frozen=True, kw_only=True)
class Case:
    graph: OnnxArtifact
    held_out: TokenSequences
    measure: Callable[[str], Measured]

    def run(self, plan: RunPlan, size_bytes: int = 0) -> Measured:
        with DEVICE.start(plan, NUM_THREADS) as runner:
            return Measured(
                together=runner.embed(self.held_out),
                alone=runner.embed(self.held_out, ALONE),
                executed=runner.inspect(self.held_out.select(range(BATCH))),
                size_bytes=size_bytes,
            )


def write_plans(path: Path, graph: OnnxArtifact, texts: TokenSequences) -> Path:
    """Smooth and round all layers; compensating the rounding would take most of a minute."""
    model = onnx.load(graph.path)
    table = calibrated_table(graph, texts, gram=False)
    preparation = Preparation(model, read_layers(model), table)
    save_prepared(Prepared(plans=preparation.plans(Method(correct=False))), path)
    return path


@pytest.fixture(scope="module")
def case(minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("minilm-onnxruntime")
    spec = resolve_encoder(str(minilm_dir))
    graph = export_onnx(load_encoder(spec), folder)
    texts = load_calibration(None, num_samples=2 * NUM_CALIBRATION, seed=0).texts
    found = load_tokenizer(spec).encode(texts)
    order = np.random.default_rng(0).permutation(len(found))
    rest = [one for one in order[NUM_CALIBRATION:] if found.lengths[one] <= LONGEST]
    calibration = found.select(order[:NUM_CALIBRATION])
    done: dict[str, Measured] = {}

    def request(recipe: Recipe) -> CompileRequest:
        output = folder / recipe.name
        output.mkdir()
        static = recipe.scheme is not None
        return CompileRequest(
            graph=graph,
            recipe=recipe,
            calibration=calibration,
            plans=write_plans(folder / "plans.npz", graph, calibration) if static else None,
            hardware=DEVICE.hardware(),
            output_dir=output,
            num_threads=NUM_THREADS,
            seed=0,
        )

    def measure(name: str) -> Measured:
        if name not in done:
            artifact = TARGET.compile(request(RECIPES[name]))
            plan = TARGET.run_plan(artifact, graph, found.pad_token_id, NUM_THREADS)
            done[name] = made.run(plan, artifact.size_bytes)
        return done[name]

    made = Case(graph=graph, held_out=found.select(rest[:NUM_HELD_OUT]), measure=measure)
    return made


@pytest.fixture(scope="module")
def exported(case: Case) -> Measured:
    """The FP32 graph as it was exported, run as it is."""
    plan = RunPlan(
        adapter=ADAPTER,
        model=case.graph.path,
        inputs=tuple(one.name for one in case.graph.inputs),
        output="sentence_embedding",
        pad_token_id=case.held_out.pad_token_id,
        embedding_dim=case.graph.embedding_dim,
        max_seq_length=case.graph.max_seq_length,
    )
    return case.run(plan)


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray((one * other).sum(axis=1))


def test_float32_is_the_exported_graph_without_the_slow_fusion(case, exported):
    ours = case.measure("float32")
    np.testing.assert_allclose(ours.together, exported.together, atol=2e-6)
    fused = ("SkipLayerNormalization", "float32")
    assert (exported.counts[fused], ours.counts[fused]) == (12, 0)
    assert ours.counts["LayerNormalization", "float32"] == 13


@pytest.mark.parametrize(
    ("name", "least_mean", "least", "most_bytes"),
    [
        ("int8-static", 0.99, 0.97, 24_000_000),
        ("int8-dynamic", 0.985, 0.95, 24_000_000),
        ("int8-weights", 0.998, 0.993, 24_500_000),
        ("int4-weights", 0.9, 0.8, 20_000_000),
    ],
)
def test_small_and_close_to_float32(case, exported, name, least_mean, least, most_bytes):
    found = case.measure(name)
    assert found.size_bytes <= most_bytes
    kept = cosines(found.alone, exported.alone)
    assert kept.mean() >= least_mean
    assert kept.min() >= least
    assert kept.mean() < 0.99999, "nothing was quantized"


def test_texts_in_another_order_are_not_close(case, exported):
    rows = case.measure("int8-static").alone
    assert cosines(np.roll(rows, 1, axis=0), exported.alone).mean() < 0.7


@pytest.mark.parametrize(
    ("name", "dtype", "kernels"),
    [
        ("float32", "float32", ("MatMul",)),
        ("int8-static", "int8", ("MatMulIntegerToFloat",)),
        ("int8-dynamic", "int8", ("MatMulIntegerToFloat", "DynamicQuantizeMatMul")),
        ("int8-weights", "int8", ("MatMulNBits",)),
        ("int4-weights", "int4", ("MatMulNBits",)),
    ],
)
def test_every_linear_layer_runs_in_what_its_recipe_claims(case, name, dtype, kernels):
    found = case.measure(name)
    check = judge_precision(RECIPES[name], found.executed)
    assert check.verdict == "pass", check.reason
    inside = {"float32": str(NUM_LINEARS + NUM_ATTENTION)}
    if dtype != "float32":
        inside = {dtype: str(NUM_LINEARS), "float32": str(NUM_ATTENTION)}
        assert sum(found.counts[kernel, dtype] for kernel in kernels) == NUM_LINEARS
    assert dict(check.details) == inside


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "float32"])
def test_a_recipe_that_ran_in_float_after_all_is_found_out(case, exported, name):
    check = judge_precision(RECIPES[name], exported.executed)
    assert check.verdict == "fail"
    assert "fell back to float" in check.reason


@pytest.mark.parametrize("name", ["float32", "int8-static", "int8-weights", "int4-weights"])
def test_a_text_does_not_depend_on_its_batch_mates(case, name):
    found = case.measure(name)
    assert cosines(found.alone, found.together).min() > 0.99999


def test_dynamic_int8_does_depend_on_them(case):
    found = case.measure("int8-dynamic")
    assert cosines(found.alone, found.together).min() < 0.999


def test_four_bits_cost_what_no_gate_would_pass(case, exported):
    four, eight = (case.measure(f"int{bits}-weights") for bits in (4, 8))
    assert four.size_bytes < 0.85 * eight.size_bytes
    assert cosines(four.alone, exported.alone).mean() < 0.99
    assert cosines(eight.alone, exported.alone).mean() > 0.998


def test_a_mixed_recipe_keeps_what_it_names_in_float(case, tmp_path):
    plans = case.graph.path.parent / "plans.npz"
    kept = (LayerOverride(pattern="ffn.down", precision="float32"),)
    recipe = replace(RECIPES["int8-static"], name="int8-static-half", overrides=kept)
    case.measure("int8-static")  # writes the plans
    request = CompileRequest(
        graph=case.graph,
        recipe=recipe,
        calibration=case.held_out,
        plans=plans,
        hardware=DEVICE.hardware(),
        output_dir=tmp_path,
        num_threads=NUM_THREADS,
        seed=0,
    )
    artifact = TARGET.compile(request)
    plan = TARGET.run_plan(artifact, case.graph, case.held_out.pad_token_id, NUM_THREADS)
    found = case.run(plan)
    assert found.counts["MatMulIntegerToFloat", "int8"] == NUM_LINEARS - 6
    reference = case.measure("float32").alone
    whole = cosines(case.measure("int8-static").alone, reference).mean()
    assert cosines(found.alone, reference).mean() > whole
