"""The real encoder for ARM: sizes, closeness to FP32, and what each file computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from contract.tiny_plans import calibrated_table
from ort_reading import feeds_of, run_as_arm

from exporter.source.corpus import load_calibration
from exporter.source.encoder import load_encoder
from exporter.source.onnx_export import export_onnx
from exporter.source.resolve import resolve_encoder
from exporter.source.tokenizer import load_tokenizer
from targets.contract import (
    CompiledArtifact,
    CompileRequest,
    FloatArray,
    OnnxArtifact,
    Recipe,
    TokenSequences,
)
from targets.onnxruntime.mobile import ONNX_MODEL, ORT_MODEL, MobileTarget
from targets.quantization.layers import read_layers
from targets.quantization.plans_file import Prepared, save_prepared
from targets.quantization.prepare import Method, Preparation
from targets.registry import open_device

pytestmark = [pytest.mark.model, pytest.mark.slow]

TARGET = MobileTarget()
HARDWARE = replace(
    open_device("local").hardware(),
    architecture="aarch64",
    features=frozenset({"asimd", "asimddp"}),
)
NUM_CALIBRATION, NUM_HELD_OUT = 40, 24
LONGEST = 48
"""Tokens of a held-out text; longer ones take long and show nothing more."""
NUM_LINEARS = 36
MAX_INT8_BYTES = 24_000_000


@dataclass(frozen=True, kw_only=True)
class Case:
    graph: OnnxArtifact
    held_out: TokenSequences
    compile: Callable[[str], CompiledArtifact]

    def embed(self, name: str) -> FloatArray:
        artifact = self.compile(name)
        plan = TARGET.run_plan(artifact, self.graph, self.held_out.pad_token_id, 2)
        with open_device("local").start(plan, 2) as runner:
            return runner.embed(self.held_out)


def write_plans(path: Path, graph: OnnxArtifact, texts: TokenSequences) -> Path:
    """Smooth and round all layers; compensating the rounding would take most of a minute."""
    model = onnx.load(graph.path)
    table = calibrated_table(graph, texts, gram=False)
    preparation = Preparation(model, read_layers(model), table)
    save_prepared(Prepared(plans=preparation.plans(Method(correct=False))), path)
    return path


@pytest.fixture(scope="module")
def case(minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("minilm-mobile")
    spec = resolve_encoder(str(minilm_dir))
    graph = export_onnx(load_encoder(spec), folder)
    texts = load_calibration(None, num_samples=2 * NUM_CALIBRATION, seed=0).texts
    found = load_tokenizer(spec).encode(texts)
    order = np.random.default_rng(0).permutation(len(found))
    rest = [one for one in order[NUM_CALIBRATION:] if found.lengths[one] <= LONGEST]
    calibration = found.select(order[:NUM_CALIBRATION])
    recipes = {recipe.name: recipe for recipe in TARGET.candidates(graph, HARDWARE)}
    built: dict[str, CompiledArtifact] = {}

    def request(recipe: Recipe) -> CompileRequest:
        output = folder / recipe.name
        output.mkdir()
        plans = None
        if recipe.scheme is not None:
            plans = write_plans(folder / "plans.npz", graph, calibration)
        return CompileRequest(
            graph=graph,
            recipe=recipe,
            calibration=calibration,
            plans=plans,
            hardware=HARDWARE,
            output_dir=output,
            num_threads=2,
            seed=0,
        )

    def compile_once(name: str) -> CompiledArtifact:
        if name not in built:
            built[name] = TARGET.compile(request(recipes[name]))
        return built[name]

    return Case(graph=graph, held_out=found.select(rest[:NUM_HELD_OUT]), compile=compile_once)


@pytest.fixture(scope="module")
def reference(case: Case) -> FloatArray:
    return case.embed("float32")


def size_of(artifact: CompiledArtifact, path: str) -> int:
    return next(file.size_bytes for file in artifact.files if file.path == path)


def cosines(one: FloatArray, other: FloatArray) -> FloatArray:
    return (one * other).sum(axis=1)


@pytest.mark.parametrize(
    ("name", "least_mean", "least", "most_bytes"),
    [
        ("int8-static", 0.99, 0.97, MAX_INT8_BYTES),
        ("int8-dynamic", 0.985, 0.95, MAX_INT8_BYTES),
        ("int8-weights", 0.995, 0.99, 24_500_000),
        ("int4-weights", 0.9, 0.8, 20_000_000),
    ],
)
def test_small_and_close_to_float32(case, reference, name, least_mean, least, most_bytes):
    artifact = case.compile(name)
    assert artifact.size_bytes == size_of(artifact, ORT_MODEL) <= most_bytes
    assert size_of(case.compile("float32"), ORT_MODEL) > 3 * MAX_INT8_BYTES, "nothing was saved"
    kept = cosines(case.embed(name), reference)
    assert kept.mean() >= least_mean
    assert kept.min() >= least
    assert kept.mean() < 0.99999, "nothing was quantized"


def test_texts_in_another_order_are_not_close(case, reference):
    rows = case.embed("int8-static")
    assert cosines(np.roll(rows, 1, axis=0), reference).mean() < 0.7


def test_the_onnx_file_beside_it_computes_the_same_bits(case):
    artifact = case.compile("int8-static")
    feeds = feeds_of(case.held_out, tuple(one.name for one in case.graph.inputs))
    ort_model, onnx_model = (artifact.directory / name for name in (ORT_MODEL, ONNX_MODEL))
    np.testing.assert_array_equal(run_as_arm(ort_model, feeds), run_as_arm(onnx_model, feeds))
    other = case.compile("int8-dynamic").directory / ORT_MODEL
    assert not np.array_equal(run_as_arm(ort_model, feeds), run_as_arm(other, feeds))


def test_every_linear_layer_really_runs_in_int8(case):
    plan = TARGET.run_plan(case.compile("int8-static"), case.graph, case.held_out.pad_token_id, 2)
    with open_device("local").start(plan, 2) as runner:
        executed = {(row.op_type, row.dtype): row.count for row in runner.inspect(case.held_out)}
        assert runner.info().peak_rss_bytes > size_of(case.compile("int8-static"), ORT_MODEL)
    assert executed["MatMulIntegerToFloat", "int8"] == NUM_LINEARS
