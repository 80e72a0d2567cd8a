"""The real encoder in int8 on CPUs without VNNI: what saturates is what was predicted.

Products of bytes are compared bit for bit with the simulation; whole models natively, where VNNI
adds in 32 bits, and with the runner held to AVX512_CORE and to AVX2. Held to AVX512_CORE, all that
is not int8 computes the same bits as natively. Held to AVX2 it does not: the last bits of float
operations differ, and now and then one of them rounds an activation to the next integer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from exporter.source.corpus import load_calibration
from exporter.source.encoder import load_encoder
from exporter.source.onnx_export import export_onnx
from exporter.source.resolve import resolve_encoder
from exporter.source.tokenizer import load_tokenizer
from targets.contract import OnnxArtifact, RunPlan, TokenSequences
from targets.hardware.caps import CAPS
from targets.openvino.ir import read_graph, write_ir
from targets.openvino.sdk import is_installed
from targets.openvino.target import ADAPTER, EMBEDDING
from targets.quantization.calibrators import choose_range
from targets.quantization.graph import GraphIndex, to_array
from targets.quantization.integers import activation_parameters
from targets.quantization.layers import EncoderLayers, read_layers
from targets.quantization.overflow import (
    Saturation,
    count_saturated,
    layers_at_risk,
    predict_plan,
    simulate_pairs,
    unsigned_codes,
)
from targets.quantization.plan import LayerPlan, QdqPlan, rounded_weight
from targets.quantization.qdq import insert_qdq
from targets.quantization.statistics import StreamingStatistics, TensorStatistics
from targets.registry import open_device

pytestmark = [pytest.mark.model, pytest.mark.openvino, pytest.mark.slow]
if not is_installed("openvino"):
    pytest.skip("pip install 'embedding-exporter[openvino]'", allow_module_level=True)
if "avx512_vnni" not in open_device("local").hardware().features:
    pytest.skip("needs AVX512-VNNI to compare with", allow_module_level=True)

NUM_CALIBRATION, NUM_EVALUATION = 100, 40
NUM_LINEARS = 36
KERNEL_ROWS = 64
PRODUCTS = Path(__file__).with_name("int8_products.py")
WITHOUT_VNNI = ["avx2", "avx512_core"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Real:
    """The exported encoder, what its linear layers read, and the plan of all of them in int8."""

    graph: OnnxArtifact
    model: onnx.ModelProto
    layers: EncoderLayers
    rows: dict[str, np.ndarray]
    statistics: dict[str, TensorStatistics]
    evaluation: TokenSequences

    def plan(self, path: str, *, reduce_range: bool = False) -> LayerPlan:
        layer = next(one for one in self.layers.linears if one.path == path)
        return LayerPlan(
            layer=layer,
            activation=choose_range(self.statistics[layer.activation], "minmax", symmetric=False),
            integers="U8S8",
            symmetric=False,
            reduce_range=reduce_range,
        )

    def stored(self, path: str) -> np.ndarray:
        return to_array(GraphIndex(self.model.graph).tensors[self.plan(path).layer.weight])

    def predict(self, path: str, *, reduce_range: bool = False) -> Saturation:
        plan = self.plan(path, reduce_range=reduce_range)
        return predict_plan(plan, self.stored(path), self.statistics[plan.layer.activation])

    def integers(self, path: str) -> tuple[np.ndarray, np.ndarray]:
        """All calibration rows as bytes, and the integer weight as [out, channels]."""
        plan = self.plan(path)
        parameters = activation_parameters(
            plan.activation, "U8S8", symmetric=False, dtype=np.dtype(np.float32)
        )
        weights, _ = rounded_weight(plan, self.stored(path))
        weights = weights if plan.layer.output_axis == 0 else weights.T
        return unsigned_codes(self.rows[plan.layer.activation], parameters), weights


def read_activations(
    model: onnx.ModelProto, names: Collection[str], tokens: TokenSequences
) -> dict[str, np.ndarray]:
    """Run a graph in ONNX Runtime and return some of its tensors, [tokens, channels] each."""
    import onnxruntime

    open_graph = onnx.ModelProto()
    open_graph.CopyFrom(model)
    open_graph.graph.output.extend(onnx.helper.make_empty_tensor_value_info(one) for one in names)
    session = onnxruntime.InferenceSession(open_graph.SerializeToString())
    rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for ids in tokens:
        feed = {one.name: np.zeros((1, len(ids)), np.int64) for one in session.get_inputs()}
        feed["input_ids"] += ids
        feed["attention_mask"] += 1
        for name, found in zip(names, session.run(list(names), feed), strict=True):
            rows[name].append(found.reshape(len(ids), -1))
    return {name: np.concatenate(found) for name, found in rows.items()}


def summarize(rows: np.ndarray) -> TensorStatistics:
    streaming = StreamingStatistics(rows.shape[1])
    streaming.add(rows)
    return streaming.freeze()


@pytest.fixture(scope="module")
def real(minilm_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Real:
    spec = resolve_encoder(str(minilm_dir))
    texts = load_calibration(None, num_samples=NUM_CALIBRATION + NUM_EVALUATION, seed=0).texts
    tokens = load_tokenizer(spec).encode(texts)
    order = np.random.default_rng(0).permutation(len(tokens))
    graph = export_onnx(load_encoder(spec), tmp_path_factory.mktemp("minilm"))
    model = onnx.load(graph.path)
    layers = read_layers(model)
    assert len(layers.linears) == NUM_LINEARS
    names = list(dict.fromkeys(layer.activation for layer in layers.linears))
    rows = read_activations(model, names, tokens.select(order[:NUM_CALIBRATION]))
    return Real(
        graph=graph,
        model=model,
        layers=layers,
        rows=rows,
        statistics={name: summarize(one) for name, one in rows.items()},
        evaluation=tokens.select(order[NUM_CALIBRATION:]),
    )


@pytest.fixture(scope="module")
def paths(real: Real) -> tuple[str, ...]:
    return tuple(layer.path for layer in real.layers.linears)


@pytest.fixture(scope="module")
def risky(real: Real, paths: tuple[str, ...]) -> tuple[str, ...]:
    return layers_at_risk(real.predict(path) for path in paths)


# --------------------------------------------------------------------------- prediction


def test_the_prediction_tells_layers_apart(risky, paths):
    assert NUM_LINEARS // 2 < len(risky) < NUM_LINEARS - NUM_LINEARS // 6
    assert set(risky) < set(paths)


def test_layers_that_are_not_named_never_saturate(real, risky, paths):
    for path in set(paths) - set(risky):
        assert count_saturated(*real.integers(path)) == 0, path


def test_no_layer_is_named_that_is_certainly_safe(real, risky):
    """Bytes within the extremes of every channel saturate it; for most, a real text does."""
    saturated = 0
    for path in risky:
        activations, weights = real.integers(path)
        positive = weights > 0
        lowest, highest = activations.min(axis=0), activations.max(axis=0)
        corners = np.concatenate(
            [np.where(positive, highest, lowest), np.where(positive, lowest, highest)]
        )
        assert count_saturated(corners, weights) > 0, path
        saturated += count_saturated(activations, weights) > 0
    assert saturated > 0.7 * len(risky)


def test_seven_bits_leave_no_layer_at_risk(real, risky):
    assert layers_at_risk(real.predict(path, reduce_range=True) for path in risky) == ()


# ------------------------------------------------------------------------------ kernels


@pytest.fixture(scope="module")
def products(real: Real, paths: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory):
    """Return a function that lets OpenVINO multiply every layer's bytes under a cap."""
    folder = tmp_path_factory.mktemp("products")
    arrays = {}
    for path in paths:
        activations, weights = real.integers(path)
        arrays[f"activations.{path}"] = loudest(activations, weights)
        arrays[f"weights.{path}"] = np.ascontiguousarray(weights)
    np.savez(folder / "in.npz", **arrays)

    def multiply(isa: str | None) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        result = folder / f"{isa}.npz"
        command = [sys.executable, str(PRODUCTS), str(folder / "in.npz"), str(result)]
        environment = os.environ | ({"ONEDNN_MAX_CPU_ISA": isa} if isa else {})
        subprocess.run(command, env=environment, check=True, timeout=300)
        with np.load(result, allow_pickle=False) as found:
            return {
                path: (found[path], arrays[f"activations.{path}"], arrays[f"weights.{path}"])
                for path in paths
            }

    return multiply


def loudest(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The real rows with most saturated pairs, which are few among thousands."""
    counts = simulate_pairs(activations, weights) != exact(activations, weights)
    return activations[np.argsort(-counts.sum(axis=1), kind="stable")[:KERNEL_ROWS]]


def exact(activations: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (activations.astype(np.float64) @ weights.astype(np.float64).T).astype(np.int32)


@pytest.mark.parametrize("cap", WITHOUT_VNNI)
def test_openvinos_products_are_the_simulated_ones_bit_for_bit(cap, products, risky):
    differing = set()
    for path, (found, activations, weights) in products(CAPS[cap].isa).items():
        simulated = simulate_pairs(activations, weights)
        np.testing.assert_array_equal(found, simulated.astype(np.float32), err_msg=path)
        if (simulated != exact(activations, weights)).any():
            differing.add(path)
    assert differing <= set(risky)
    assert len(differing) > 0.7 * len(risky)


def test_vnni_multiplies_exactly(products):
    for path, (found, activations, weights) in products(None).items():
        expected = exact(activations, weights).astype(np.float32)
        np.testing.assert_array_equal(found, expected, err_msg=path)


# -------------------------------------------------------------------------------- models


@pytest.fixture(scope="module")
def embed(real: Real, risky, paths, tmp_path_factory: pytest.TempPathFactory):
    """Return a function from (artifact, cap or "") to embeddings; everything is built once."""
    safe = tuple(path for path in paths if path not in risky)
    artifacts: dict[str, tuple[Iterable[str], Collection[str], Callable]] = {
        "all": (paths, (), lambda model: model),
        "safe only": (safe, (), lambda model: model),
        "risky only": (risky, (), lambda model: model),
        "risky reduced": (paths, risky, lambda model: model),
        "safe reduced": (paths, safe, lambda model: model),
        "risky reduced, nudged": (paths, risky, nudge),
    }
    files: dict[str, Path] = {}
    rows: dict[tuple[str, str], np.ndarray] = {}

    def build(name: str) -> Path:
        chosen, reduced, change = artifacts[name]
        plans = tuple(real.plan(path, reduce_range=path in reduced) for path in chosen)
        folder = tmp_path_factory.mktemp("artifact")
        quantized = insert_qdq(change(real.model), QdqPlan(layers=plans))
        onnx.save(quantized, folder / "model.onnx")
        return write_ir(read_graph(folder / "model.onnx"), folder, half_weights=False)[0]

    def run(name: str, cap: str = "") -> np.ndarray:
        if name not in files:
            files[name] = build(name)
        if (name, cap) not in rows:
            device = open_device(f"local:{cap}" if cap else "local")
            with device.start(run_plan(real, files[name]), 2) as runner:
                rows[name, cap] = runner.embed(real.evaluation)
        return rows[name, cap]

    return run


def nudge(model: onnx.ModelProto) -> onnx.ModelProto:
    """Move the word embeddings by at most the last bit of a float32."""
    nudged = onnx.ModelProto()
    nudged.CopyFrom(model)
    table = next(one for one in nudged.graph.initializer if "word_embeddings" in one.name)
    values = onnx.numpy_helper.to_array(table)
    steps = np.random.default_rng(0).integers(-1, 2, values.shape) * 2.0**-23
    nudged_values = (values * (1 + steps)).astype(np.float32)
    table.CopyFrom(onnx.numpy_helper.from_array(nudged_values, table.name))
    return nudged


def run_plan(real: Real, model: Path) -> RunPlan:
    return RunPlan(
        adapter=ADAPTER,
        model=model,
        inputs=tuple(tensor.name for tensor in real.graph.inputs),
        output=EMBEDDING,
        pad_token_id=real.evaluation.pad_token_id,
        embedding_dim=real.graph.embedding_dim,
        max_seq_length=real.graph.max_seq_length,
        options={"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"},
    )


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one.astype(np.float64) * other).sum(axis=1)


@pytest.mark.parametrize("cap", WITHOUT_VNNI)
def test_unreduced_int8_drifts_without_vnni(cap, embed):
    found = cosines(embed("all", cap), embed("all"))
    assert found.mean() < 0.995
    assert found.min() < 0.97


@pytest.mark.parametrize("cap", WITHOUT_VNNI)
def test_the_drift_comes_from_the_layers_at_risk(cap, embed):
    at_risk = 1 - cosines(embed("risky only", cap), embed("risky only")).mean()
    others = 1 - cosines(embed("safe only", cap), embed("safe only")).mean()
    assert at_risk > 0.003
    assert others < 1e-4


def test_without_saturation_avx512_computes_the_same_bits(embed):
    for name in ("safe only", "risky reduced"):
        np.testing.assert_array_equal(embed(name, "avx512_core"), embed(name), err_msg=name)


def test_vnni_alone_is_enough(embed):
    np.testing.assert_array_equal(embed("all", "avx512_core_vnni"), embed("all"))


@pytest.mark.parametrize("cap", WITHOUT_VNNI)
def test_reducing_the_wrong_layers_mends_nothing(cap, embed):
    """The twin: seven bits where nothing saturates."""
    assert cosines(embed("safe reduced", cap), embed("safe reduced")).mean() < 0.995


def test_reducing_the_layers_at_risk_leaves_avx2_nothing_but_rounding(embed):
    """What is left is of the size that the last bit of the embeddings makes on one CPU."""
    before = 1 - cosines(embed("all", "avx2"), embed("all")).mean()
    after = 1 - cosines(embed("risky reduced", "avx2"), embed("risky reduced")).mean()
    nudged = 1 - cosines(embed("risky reduced, nudged"), embed("risky reduced")).mean()
    assert after < 0.001 < 10 * after < before
    assert after < 10 * nudged
