"""The real encoder: every kind of recipe stays close to FP32 and runs in what it claims."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from exporter.source.corpus import load_calibration
from exporter.source.encoder import load_encoder
from exporter.source.onnx_export import export_onnx
from exporter.source.resolve import resolve_encoder
from exporter.source.tokenizer import load_tokenizer
from targets.contract import (
    CompileRequest,
    ExecutedPrecision,
    OnnxArtifact,
    Recipe,
    TokenSequences,
)
from targets.openvino.recipes import recipes_for
from targets.openvino.sdk import is_installed
from targets.openvino.target import OpenVinoTarget
from targets.registry import open_device

pytestmark = [pytest.mark.model, pytest.mark.openvino, pytest.mark.slow]
if not is_installed("openvino"):
    pytest.skip("pip install 'embedding-exporter[openvino]'", allow_module_level=True)

NUM_CALIBRATION, NUM_EVALUATION = 100, 50
DEVICE = open_device("local")
HARDWARE = DEVICE.hardware()
RECIPES = {recipe.name: recipe for recipe in recipes_for(HARDWARE)}
NUM_LINEARS, NUM_LAYERS = 36, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Real:
    """The exported encoder with tokens to calibrate and to judge with."""

    graph: OnnxArtifact
    calibration: TokenSequences
    evaluation: TokenSequences


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One recipe, compiled and run."""

    rows: np.ndarray
    executed: tuple[ExecutedPrecision, ...]
    size_mb: float

    def counts(self, op_type: str) -> Counter[str]:
        found: Counter[str] = Counter()
        for row in self.executed:
            if row.op_type == op_type:
                found[row.dtype] += row.count
        return found


@pytest.fixture(scope="module")
def real(minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Real:
    spec = resolve_encoder(str(minilm_dir))
    texts = load_calibration(None, num_samples=NUM_CALIBRATION + NUM_EVALUATION, seed=0).texts
    tokens = load_tokenizer(spec).encode(texts)
    order = np.random.default_rng(0).permutation(len(tokens))
    return Real(
        graph=export_onnx(load_encoder(spec), tmp_path_factory.mktemp("minilm")),
        calibration=tokens.select(order[:NUM_CALIBRATION]),
        evaluation=tokens.select(order[NUM_CALIBRATION:]),
    )


@pytest.fixture(scope="module")
def measure(real: Real, tmp_path_factory: pytest.TempPathFactory):
    known: dict[str, Measured] = {}

    def run(recipe: Recipe) -> Measured:
        target = OpenVinoTarget()
        request = CompileRequest(
            graph=real.graph,
            recipe=recipe,
            calibration=real.calibration,
            hardware=HARDWARE,
            output_dir=tmp_path_factory.mktemp(recipe.name),
            num_threads=2,
            seed=0,
        )
        artifact = target.compile(request)
        plan = target.run_plan(artifact, real.graph, real.evaluation.pad_token_id, 2)
        with DEVICE.start(plan, 2) as runner:
            rows = runner.embed(real.evaluation)
            executed = runner.inspect(real.evaluation.select(range(4)))
        return Measured(rows=rows, executed=tuple(executed), size_mb=artifact.size_bytes / 1e6)

    def measured(name: str) -> Measured:
        if name not in known:
            known[name] = run(RECIPES[name])
        return known[name]

    return measured


def cosines(measure, name: str) -> np.ndarray:
    return (measure(name).rows * measure("float32").rows).sum(axis=1)


# Mean cosine and worst text, well below what is measured: they catch a broken recipe, the
# policy's gates judge a poor one.
CLOSENESS = {
    "bfloat16": (0.9999, 0.9998),
    "float16": (0.9999, 0.9998),
    "int8-weights": (0.998, 0.995),
    "int8-dynamic": (0.998, 0.99),
    "int8-mixed": (0.995, 0.97),
}
MEASURED = [name for name in CLOSENESS if name in RECIPES]


@pytest.mark.parametrize("name", MEASURED)
def test_embeddings_stay_close(measure, name):
    mean, worst = CLOSENESS[name]
    found = cosines(measure, name)
    assert found.mean() >= mean
    assert found.min() >= worst
    assert found.mean() < 1 - 1e-7, "nothing was changed"


def test_rows_in_another_order_are_not_close(measure):
    """The twin: the same embeddings of other texts fail every bound."""
    swapped = (measure("float32").rows[::-1] * measure("float32").rows).sum(axis=1)
    assert swapped.mean() < min(mean for mean, _ in CLOSENESS.values())


def test_float32_runs_in_float32(measure):
    assert measure("float32").counts("FullyConnected") == {"float32": NUM_LINEARS}
    assert measure("float32").size_mb == pytest.approx(90.5, abs=1)


@pytest.mark.skipif("bfloat16" not in RECIPES, reason="needs AMX-BF16 or AVX512-BF16")
def test_bfloat16_runs_in_bfloat16_and_takes_half_the_space(measure):
    assert measure("bfloat16").counts("FullyConnected") == {"bfloat16": NUM_LINEARS}
    assert measure("bfloat16").size_mb == pytest.approx(45.4, abs=1)


def test_int8_runs_in_int8_and_attention_stays_fused_in_float(measure):
    """One linear layer in six, the end of each feed-forward block, is left in float."""
    result = measure("int8-mixed")
    rest = RECIPES["int8-mixed"].float_precision
    counts = {"int8": NUM_LINEARS - NUM_LAYERS, rest: NUM_LAYERS}
    assert result.counts("FullyConnected") == counts
    if HARDWARE.architecture == "x86_64" and "avx512f" in HARDWARE.features:
        assert result.counts("Subgraph") == {rest: NUM_LAYERS}, "attention is not fused"
        assert result.counts("Softmax") == {}


def test_weights_only_is_a_quarter_of_the_size(measure):
    assert measure("int8-weights").size_mb < 0.27 * measure("float32").size_mb
