"""Static int8 on the real encoder: the probe's numbers, layers' costs, and what must be caught."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from contract.tiny_plans import calibrated_table
from onnx import numpy_helper
from quantized_runs import Feeds, _session, cosines, run_openvino, run_ort

from exporter.judge import Policy, assess, judge_fidelity
from exporter.optimize import probe as probes
from exporter.optimize.probe import Probe, drift
from exporter.optimize.sensitivity import layers_to_keep, measure_sensitivity, mixed_recipes
from exporter.source.corpus import load_calibration
from exporter.source.encoder import load_encoder
from exporter.source.onnx_export import export_onnx
from exporter.source.resolve import resolve_encoder
from exporter.source.tokenizer import load_tokenizer
from exporter.values import EvaluationEmbeddings, EvaluationSet, LayerSensitivity
from targets.contract import CompileRequest, FloatArray, OnnxArtifact, Recipe, TokenSequences
from targets.errors import CalibrationError
from targets.hashing import sha256_file
from targets.openvino.recipes import recipes_for
from targets.openvino.target import OpenVinoTarget
from targets.quantization.layers import EncoderLayers, read_layers
from targets.quantization.plan import LayerPlan, QdqPlan
from targets.quantization.plans_file import Prepared, save_prepared
from targets.quantization.prepare import Method, Preparation
from targets.quantization.qdq import insert_qdq
from targets.quantization.table import CalibrationTable
from targets.registry import open_device

pytestmark = [pytest.mark.model, pytest.mark.openvino, pytest.mark.slow]
pytest.importorskip("openvino", reason="pip install 'embedding-exporter[openvino]'")

NUM_CALIBRATION, NUM_HELD_OUT = 60, 16
HELD_OUT_LENGTHS = (8, 40)
"""Tokens; neither labels of a word or two, nor pages that take long."""
PLANTED = "encoder.layer.3.output.dense"
HARDWARE = open_device("local").hardware()
# Beside bfloat16, nothing has to be kept in float32; beside float32, the marks are at stake.
WITHOUT_AMX = replace(HARDWARE, features=HARDWARE.features - {"amx_bf16", "amx_int8"})
_STATIC = next(one for one in recipes_for(WITHOUT_AMX) if one.name == "int8-static")
RECIPE = replace(_STATIC, float_precision="float32")
TAKES_BFLOAT16 = not HARDWARE.features.isdisjoint({"amx_bf16", "avx512_bf16"})


@dataclass(frozen=True, kw_only=True)
class Case:
    """A float graph, its table, the int8 forms of its layers, and its own embeddings."""

    graph: OnnxArtifact
    model: onnx.ModelProto
    layers: EncoderLayers
    table: CalibrationTable
    probe: Probe
    plans: tuple[LayerPlan, ...]
    held_out: TokenSequences
    reference: FloatArray

    def sensitivity(self) -> tuple[LayerSensitivity, ...]:
        return measure_sensitivity(self.probe, self.held_out, self.reference, self.plans)

    def quantized(self) -> onnx.ModelProto:
        return insert_qdq(self.model, QdqPlan(layers=self.plans))

    def plans_from(self, table: CalibrationTable) -> tuple[LayerPlan, ...]:
        return Preparation(self.model, self.layers, table).plans(Method(correct=False))


def make_case(graph: OnnxArtifact, calibration: TokenSequences, held_out: TokenSequences) -> Case:
    model = onnx.load(graph.path)
    layers = read_layers(model)
    table = calibrated_table(graph, calibration)
    table.require(graph_sha256=graph.sha256, corpus_sha256=calibration.sha256)
    probe = Probe(graph, model, layers, signed=False, num_threads=2)
    return Case(
        graph=graph,
        model=model,
        layers=layers,
        table=table,
        probe=probe,
        plans=Preparation(model, layers, table).plans(Method()),
        held_out=held_out,
        reference=probe.embed(held_out),
    )


@dataclass(frozen=True, kw_only=True)
class Tokens:
    calibration: TokenSequences
    held_out: TokenSequences


@pytest.fixture(scope="module")
def tokens(minilm_dir: Path) -> Tokens:
    texts = load_calibration(None, num_samples=4 * NUM_CALIBRATION, seed=0).texts
    found = load_tokenizer(resolve_encoder(str(minilm_dir))).encode(texts)
    order = np.random.default_rng(0).permutation(len(found))
    fewest, most = HELD_OUT_LENGTHS
    rest = [number for number in order[NUM_CALIBRATION:] if fewest <= found.lengths[number] <= most]
    return Tokens(
        calibration=found.select(order[:NUM_CALIBRATION]),
        held_out=found.select(rest[:NUM_HELD_OUT]),
    )


@pytest.fixture(scope="module")
def real(minilm_dir: Path, tokens: Tokens, tmp_path_factory: pytest.TempPathFactory) -> Case:
    encoder = load_encoder(resolve_encoder(str(minilm_dir)))
    graph = export_onnx(encoder, tmp_path_factory.mktemp("minilm"))
    return make_case(graph, tokens.calibration, tokens.held_out)


@pytest.fixture(scope="module")
def ranking(real: Case) -> tuple[LayerSensitivity, ...]:
    return real.sensitivity()


def feeds(graph: OnnxArtifact, tokens: TokenSequences) -> Feeds:
    """All texts in one padded batch, in their order."""
    width = int(tokens.lengths.max())
    ids = np.full((len(tokens), width), tokens.pad_token_id, np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(tokens):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {tensor.name: known[tensor.name] for tensor in graph.inputs}


def one_batch(tokens: TokenSequences) -> TokenSequences:
    """The shortest texts, by length: the probe runs them in one batch, too."""
    return tokens.select(np.argsort(tokens.lengths, kind="stable")[: len(tokens) // 2])


# ------------------------------------------------------------------------------ the probe


def test_with_all_layers_off_the_probe_is_the_float_graph(real: Case) -> None:
    texts = one_batch(real.held_out)
    exact = run_ort(real.model, feeds(real.graph, texts))
    np.testing.assert_allclose(real.probe.embed(texts), exact, rtol=0, atol=1e-6)
    assert real.probe.layers == real.layers.linears, "every layer has a switch"


def unoptimized(case: Case, monkeypatch: pytest.MonkeyPatch) -> Probe:
    """A probe whose operations ONNX Runtime neither fuses nor reorders."""
    monkeypatch.setattr(probes, "_open", lambda model, _: _session(model, optimized=False))
    return Probe(case.graph, case.model, case.layers, signed=False, num_threads=1)


def test_the_probe_s_numbers_are_those_of_the_quantized_graph(
    real: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, where the runtime changes neither of them and no value lies on a rounding edge.

    A float operation may end in another last digit where its input lies elsewhere in memory or its
    weight is stored instead of fed. On some processors that moves three texts in eight over an
    edge.
    """
    texts, inputs = one_batch(real.held_out), feeds(real.graph, one_batch(real.held_out))
    probe = unoptimized(real, monkeypatch)
    plain = run_ort(real.quantized(), inputs, optimized=False)
    tried = probe.embed(texts, real.plans)
    assert (tried == plain).all(axis=1).mean() >= 0.5
    assert cosines(tried, plain).min() > 0.999
    one = insert_qdq(real.model, QdqPlan(layers=(real.plans[7],)))
    alone = run_ort(one, inputs, optimized=False)
    tried = probe.embed(texts, [real.plans[7]])
    assert (np.abs(tried - alone).max(axis=1) < 2e-6).mean() >= 0.75
    assert cosines(tried, alone).min() > 0.9999
    other = probe.embed(texts, [real.plans[8]])
    assert np.abs(other - alone).max() > 1e-4, "the twin: another layer is another graph"


def test_the_optimized_probe_stays_as_close_as_rounding_lets_it(real: Case) -> None:
    """Most texts are equal to float32's rounding; one flip moves a text by a whole step.

    Fused operations differ in the last bit, and one bit decides which way a value rounds. Such a
    flip costs a text less than int8 costs at all.
    """
    texts = one_batch(real.held_out)
    tried = real.probe.embed(texts, real.plans)
    plain = run_ort(real.quantized(), feeds(real.graph, texts), optimized=False)
    equal = np.abs(tried - plain).max(axis=1) < 2e-6
    assert equal.mean() >= 0.5
    assert cosines(tried, plain)[equal].min() > 0.999999
    assert cosines(tried, plain).min() > 0.999
    assert cosines(tried, real.probe.embed(texts)).max() < 0.9999, "the twin: int8 shows"


def test_fused_integer_kernels_come_close_to_the_probe(real: Case) -> None:
    texts, model = one_batch(real.held_out), real.quantized()
    tried = real.probe.embed(texts, real.plans)
    fast = run_ort(model, feeds(real.graph, texts))
    openvino = run_openvino(model, feeds(real.graph, texts))
    assert (openvino.num_int8, openvino.num_float) == (36, 0)
    # without VNNI, sums of two products saturate in int16: what overflow.py predicts
    exact = open_device("local").hardware().features & {"avx512_vnni", "avx_vnni", "i8mm"}
    least = 0.999 if exact else 0.99
    assert cosines(tried, fast).min() > least
    assert cosines(tried, openvino.output).min() > least


def test_the_probe_forgets_what_it_tried(real: Case) -> None:
    before = real.probe.embed(real.held_out)
    real.probe.embed(real.held_out, real.plans)
    np.testing.assert_array_equal(real.probe.embed(real.held_out), before)
    np.testing.assert_array_equal(before, real.reference)


# ------------------------------------------------------------------------------ what it costs


def test_drifts_of_single_layers_add_up(real: Case, ranking) -> None:
    whole = drift(real.reference, real.probe.embed(real.held_out, real.plans))
    assert 5e-4 < whole < 5e-3
    assert sum(one.drift for one in ranking) == pytest.approx(whole, rel=0.3)
    assert [len(one.layers) for one in ranking] == [3, 1, 1, 1] * 6
    assert sum(one.work_share for one in ranking) == pytest.approx(1)


def test_layers_kept_in_float_take_their_drift_with_them(real: Case, ranking) -> None:
    kept = set(layers_to_keep(ranking, 0.5))
    rest = [plan for plan in real.plans if plan.layer.path not in kept]
    whole = drift(real.reference, real.probe.embed(real.held_out, real.plans))
    assert 0 < len(kept) < 20
    assert drift(real.reference, real.probe.embed(real.held_out, rest)) < 0.7 * whole


# ---------------------------------------------------------------------------- a bad layer


def with_planted_layer(case: Case, folder: Path) -> OnnxArtifact:
    """The same function in float, but a layer that no int8 can stand for.

    A unit in front of it is always 50 (through the bias), all its weights for that unit are 50
    as well, and its bias takes 2,500 off again. Moving the outlier between the activation and
    the weights does not help, since it is one on both sides.
    """
    layers = {layer.path: layer for layer in case.layers.linears}
    up, down = layers[PLANTED.replace("output", "intermediate")], layers[PLANTED]
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    values = {
        name: numpy_helper.to_array(stored[name]).copy()
        for name in (up.weight, up.bias, down.weight, down.bias)
    }
    unit, size = 7, np.float32(50)
    signs = np.where(np.arange(384) % 2, size, -size).astype(np.float32)
    (values[up.weight] if up.output_axis == 0 else values[up.weight].T)[unit] = 0
    values[up.bias].reshape(-1)[unit] = size
    (values[down.weight].T if down.output_axis == 0 else values[down.weight])[unit] = signs
    values[down.bias] -= (size * signs).reshape(values[down.bias].shape)
    for name, value in values.items():
        stored[name].CopyFrom(numpy_helper.from_array(value, name))
    path = folder / "model.onnx"
    onnx.save(model, path)
    return replace(case.graph, path=path, sha256=sha256_file(path))


def worst(sensitivity: Sequence[LayerSensitivity]) -> LayerSensitivity:
    return max(sensitivity, key=lambda one: one.drift)


def mixed(sensitivity: Sequence[LayerSensitivity]) -> list[set[str]]:
    return [
        {one.pattern for one in recipe.overrides} for recipe in mixed_recipes(RECIPE, sensitivity)
    ]


def test_a_bad_layer_comes_first_and_stays_in_float(
    real: Case, ranking, tokens: Tokens, tmp_path: Path
) -> None:
    graph = with_planted_layer(real, tmp_path)
    bad = make_case(graph, tokens.calibration, tokens.held_out)
    assert drift(real.reference, bad.reference) < 1e-3, "in float it is the same encoder"
    planted = bad.sensitivity()
    assert worst(planted).layers == (PLANTED,)
    assert worst(planted).drift > 100 * sorted(one.drift for one in planted)[-2]
    assert mixed(planted)
    assert all(PLANTED in kept for kept in mixed(planted))
    whole = drift(bad.reference, bad.probe.embed(bad.held_out, bad.plans))
    rest = [plan for plan in bad.plans if plan.layer.path != PLANTED]
    assert whole > 0.1
    assert drift(bad.reference, bad.probe.embed(bad.held_out, rest)) < 5e-3


def test_without_the_plant_that_layer_is_nothing_special(ranking) -> None:
    """The twin."""
    assert worst(ranking).layers != (PLANTED,)
    halves = mixed(ranking)
    assert halves
    assert PLANTED not in halves[0]


# ------------------------------------------------------------------------- swapped texts


def rare_texts(pad_token_id: int) -> TokenSequences:
    """Sixty times the same token id: no distribution of any language."""
    return TokenSequences.from_lists([[101, *[29999] * 20, 102]] * 60, pad_token_id)


def checks(reference: FloatArray, rows: FloatArray, num_tokens: np.ndarray) -> dict[str, str]:
    """The policy's verdicts on plain texts."""
    names = tuple(map(str, range(len(rows))))
    texts = EvaluationSet(
        name="held out",
        origin="built-in",
        split="all",
        query_ids=(),
        queries=(),
        document_ids=names,
        documents=names,
        sha256="0" * 64,
    )
    none = np.zeros((0, rows.shape[1]), np.float32)
    fidelity = assess(
        texts,
        EvaluationEmbeddings(queries=none, documents=reference),
        EvaluationEmbeddings(queries=none, documents=rows),
        lengths=(np.zeros(0, np.int64), num_tokens),
        k=5,
    )
    return {one.name: one.verdict for one in judge_fidelity(fidelity, Policy(k=5))}


def test_a_swapped_calibration_set_is_refused(real: Case, tokens: Tokens) -> None:
    swapped = rare_texts(tokens.calibration.pad_token_id)
    table = calibrated_table(real.graph, swapped)
    with pytest.raises(CalibrationError) as caught:
        table.require(graph_sha256=real.graph.sha256, corpus_sha256=tokens.calibration.sha256)
    assert caught.value.what == "the calibration table was made from another corpus"
    table.require(graph_sha256=real.graph.sha256, corpus_sha256=swapped.sha256)


def test_a_swapped_calibration_set_that_is_forced_fails_the_policy(
    real: Case, tokens: Tokens
) -> None:
    swapped = calibrated_table(real.graph, rare_texts(tokens.calibration.pad_token_id))
    wrong, right = (
        real.probe.embed(real.held_out, real.plans_from(table)) for table in (swapped, real.table)
    )
    assert drift(real.reference, wrong) > 20 * drift(real.reference, right)
    verdicts = checks(real.reference, wrong, real.held_out.lengths)
    assert verdicts["mean_cosine"] == "fail"
    twin = checks(real.reference, right, real.held_out.lengths)
    assert twin["mean_cosine"] != "fail", "sixteen texts fail nobody who is close"
    assert "fail" not in twin.values()


# ------------------------------------------------------------------------ kept in float32


@dataclass(frozen=True, kw_only=True)
class IrRun:
    """Embeddings, and the types of the operations that ran in some float."""

    rows: np.ndarray
    in_bfloat16: set[str]


def run_ir(path: Path, inputs: Feeds, **hints: str) -> IrRun:
    import openvino

    options = {"INFERENCE_NUM_THREADS": 2, **hints}
    compiled = openvino.Core().compile_model(path, "CPU", options)
    found = set()
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = {key: str(node.get_rt_info()[key].astype(str)) for key in _TOLD}
        if info["runtimePrecision"] == "bf16":
            found.add(info["layerType"])
    return IrRun(rows=compiled(inputs)["sentence_embedding"].copy(), in_bfloat16=found)


_TOLD = ("layerType", "runtimePrecision")


def without_marks(path: Path, folder: Path) -> Path:
    """A copy of an IR from which every mark is taken."""
    for file in (path, path.with_suffix(".bin")):
        shutil.copy(file, folder)
    tree = ElementTree.parse(folder / path.name)
    marks = 0
    for info in tree.iterfind("./layers/layer/rt_info"):
        for one in info.findall("attribute[@name='DisablePrecisionConversion']"):
            info.remove(one)
            marks += 1
    assert marks > 100
    tree.write(folder / path.name, encoding="utf-8", xml_declaration=True)
    return folder / path.name


def compiled_ir(real: Case, folder: Path, recipe: Recipe) -> Path:
    save_prepared(Prepared(plans=real.plans), folder / "plans.npz")
    (folder / "out").mkdir()
    request = CompileRequest(
        graph=real.graph,
        recipe=recipe,
        calibration=real.held_out,
        plans=folder / "plans.npz",
        hardware=WITHOUT_AMX,
        output_dir=folder / "out",
        num_threads=2,
        seed=0,
    )
    artifact = OpenVinoTarget().compile(request)
    return artifact.directory / artifact.files[0].path


@pytest.mark.skipif(not TAKES_BFLOAT16, reason="needs AVX512-BF16 or AMX: else nothing is taken")
def test_loaders_that_are_told_nothing_stay_in_float32(
    real: Case, tokens: Tokens, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """OpenVINO takes bfloat16 by itself; an IR cannot say how it wants to be run, but its marks.

    They keep attention, residuals and LayerNorm in float32. Values handed over to them by int8
    products are still rounded to bfloat16 on the way, and any last digit turns into whole steps in
    int8: embeddings by default differ from those under a hint by a part of what int8 costs.
    """
    marked = compiled_ir(real, tmp_path, RECIPE)
    plain = tmp_path / "plain"
    plain.mkdir()
    bare = without_marks(marked, plain)
    short = [n for n, length in enumerate(tokens.calibration.lengths) if length <= 60]
    inputs = feeds(real.graph, tokens.calibration.select(short[:30]))
    exact = run_ir(marked, inputs, INFERENCE_PRECISION_HINT="f32")
    told = run_ir(bare, inputs, INFERENCE_PRECISION_HINT="f32")
    np.testing.assert_array_equal(told.rows, exact.rows)
    assert exact.in_bfloat16 == told.in_bfloat16 == set()
    with_marks, without = run_ir(marked, inputs), run_ir(bare, inputs)
    assert with_marks.in_bfloat16 <= {"Reorder", "Reshape", "Convert", "Transpose"}, "nothing else"
    assert "Subgraph" in without.in_bfloat16, "the twin: without marks, attention is in bfloat16"
    kept, lost = (cosines(one.rows, exact.rows) for one in (with_marks, without))
    with capsys.disabled():
        print(f" lowest cosine by default: {kept.min():.6f}, bare {lost.min():.6f}", end="")
    assert kept.min() > 0.995
    # Flips are chance: on thirty texts, means of the two differ by some 1e-4 either way.
    assert kept.mean() >= lost.mean() - 2e-4
