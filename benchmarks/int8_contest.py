"""Static int8 of several makes on one collection: closeness to FP32, and time in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from exporter.judge import assess, summarize
from exporter.optimize.rounds import FULL, time_interleaved
from exporter.optimize.workloads import MIX_BATCHED, MIX_SINGLE, shape_workloads
from exporter.steps.contest import mixes_of
from exporter.steps.quantization import Quantization, quantize_layers
from exporter.steps.texts import Texts
from exporter.steps.workspace import Workspace
from exporter.values import EncoderSpec, EvaluationEmbeddings, Fidelity
from targets.contract import (
    Batching,
    CompiledArtifact,
    CompileRequest,
    FloatArray,
    OnnxArtifact,
    Recipe,
    Runner,
    TokenSequences,
)
from targets.openvino.ir import read_graph, write_ir
from targets.openvino.quantize import calibration_batches
from targets.openvino.sdk import import_nncf, quiet
from targets.openvino.static import kept_in_float
from targets.openvino.target import OpenVinoTarget
from targets.quantization.plan import QdqPlan
from targets.quantization.plans_file import load_changed, load_prepared
from targets.quantization.qdq import insert_qdq
from targets.registry import open_device

CAP = "local:avx512_core_vnni"
_BATCH_TOKENS = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """What all makes are made from and judged on."""

    work: Workspace
    spec: EncoderSpec
    graph: OnnxArtifact
    texts: Texts
    reference: EvaluationEmbeddings


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated:
    """One make's figures.

    Args:
        name: who made it, and how.
        layers_in_float: linear layers that are not int8.
        size_bytes: of the file.
        time_ratio: its time over that of the first contestant with a time, by workload.
    """

    name: str
    layers_in_float: int
    size_bytes: int
    mean_cosine: float
    p1_cosine: float
    min_cosine: float
    overlap: float
    time_ratio: Mapping[str, float]


def _quantization(given: Contestant, hardware_of: str = "local") -> Quantization:
    hardware = open_device(hardware_of).hardware()
    recipes = OpenVinoTarget().candidates(given.graph, hardware)
    return quantize_layers(
        given.work, given.spec, given.graph, given.texts.calibration, recipes, hardware
    )


# ---------------------------------------------------------------------------------- ONNX


def rate_onnx(given: Contestant) -> tuple[Rated, ...]:
    """Rate Q/DQ graphs in ONNX Runtime: ours, and its own static quantization."""
    quantization = _quantization(given)
    rated = []
    with tempfile.TemporaryDirectory() as folder:
        for recipe in quantization.recipes:
            plans = quantization.plans_of(recipe)
            if plans is None:
                continue
            prepared = load_prepared(plans)
            model, layers = load_changed(given.graph.path, prepared)
            kept = kept_in_float(recipe.overrides, layers, recipe.name)
            chosen = tuple(p for p in prepared.plans if p.layer.path not in kept)
            path = Path(folder) / f"{recipe.name}.onnx"
            onnx.save(insert_qdq(model, QdqPlan(layers=chosen)), path)
            rated.append(_rate_file(given, path, f"ours, {recipe.name}", len(kept)))
        path = Path(folder) / "ort.onnx"
        _ort_static(given, path)
        rated.append(_rate_file(given, path, "ONNX Runtime quantize_static, MinMax U8S8", 0))
    return tuple(rated)


class _Reader:
    """Texts one by one, as ONNX Runtime's `CalibrationDataReader` gives them."""

    def __init__(self, given: Contestant) -> None:
        names = [tensor.name for tensor in given.graph.inputs]
        tokens = given.texts.calibration
        self._feeds = (_feed(tokens, [index], names) for index in range(len(tokens)))

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def _ort_static(given: Contestant, path: Path) -> None:
    """Let ONNX Runtime quantize the same MatMuls with its own calibration on the same texts."""
    from onnxruntime.quantization import QuantType, quantize_static

    quantize_static(
        given.graph.path,
        path,
        _Reader(given),
        op_types_to_quantize=["MatMul"],
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        extra_options={"MatMulConstBOnly": True},
    )


def _rate_file(given: Contestant, path: Path, name: str, kept: int) -> Rated:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in given.graph.inputs]

    def embed(tokens: TokenSequences) -> FloatArray:
        order = np.argsort(tokens.lengths, kind="stable")
        rows: dict[int, Any] = {}
        start = 0
        while start < len(order):
            stop = start + 1
            while (
                stop < len(order)
                and int(tokens.lengths[order[stop]]) * (stop + 1 - start) <= _BATCH_TOKENS
            ):
                stop += 1
            batch = [int(index) for index in order[start:stop]]
            found = session.run(["sentence_embedding"], _feed(tokens, batch, names))[0]
            rows.update(zip(batch, found, strict=True))
            start = stop
        return np.stack([rows[index] for index in range(len(tokens))])

    return _rated(given, embed, name, kept, path.stat().st_size, {})


def _feed(tokens: TokenSequences, batch: Sequence[int], names: Sequence[str]) -> dict[str, Any]:
    rows = [tokens[index] for index in batch]
    ids = np.full((len(rows), max(map(len, rows))), tokens.pad_token_id, np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    return {name: values[name] for name in names}


# ------------------------------------------------------------------------------ OpenVINO


def rate_openvino(given: Contestant) -> tuple[Rated, ...]:
    """Rate OpenVINO artifacts on a CPU held to VNNI; times are over NNCF's default."""
    device = open_device(CAP)
    target, hardware = OpenVinoTarget(), device.hardware()
    quantization = _quantization(given, CAP)
    wanted = [r for r in quantization.recipes if r.precision == "int8"]
    with tempfile.TemporaryDirectory() as folder:
        runners: dict[str, Runner] = {}
        about: dict[str, tuple[int, int]] = {}
        for recipe in [_nncf_default(wanted), *wanted]:
            into = Path(folder) / recipe.name
            into.mkdir()
            request = CompileRequest(
                graph=given.graph,
                recipe=recipe,
                calibration=given.texts.calibration,
                plans=quantization.plans_of(recipe),
                hardware=hardware,
                output_dir=into,
                num_threads=hardware.num_cores,
                seed=0,
            )
            if recipe.name == NNCF_DEFAULT:
                artifact = _compile_default(target, request)
            else:
                artifact = target.compile(request)
            padding = given.texts.calibration.pad_token_id
            plan = target.run_plan(artifact, given.graph, padding, hardware.num_cores)
            runners[recipe.name] = device.start(plan, hardware.num_cores)
            about[recipe.name] = (len(recipe.overrides), artifact.size_bytes)
        try:
            ratios = _ratios(given, runners)
            return tuple(
                _rated(
                    given,
                    lambda tokens, one=runner: one.embed(tokens, Batching()),
                    name,
                    *about[name],
                    ratios[name],
                )
                for name, runner in runners.items()
            )
        finally:
            for runner in runners.values():
                runner.close()


NNCF_DEFAULT = "nncf-default"


def _nncf_default(recipes: Sequence[Recipe]) -> Recipe:
    return replace(next(r for r in recipes if r.name == "int8"), name=NNCF_DEFAULT)


def _compile_default(target: OpenVinoTarget, request: CompileRequest) -> CompiledArtifact:
    """Put what `nncf.quantize(model_type=TRANSFORMER)` makes by itself in the place of ours."""
    artifact = target.compile(request)
    nncf = import_nncf()
    names = [tensor.name for tensor in request.graph.inputs]
    batches = calibration_batches(request.calibration, names)
    with quiet():
        quantized = nncf.quantize(
            read_graph(request.graph.path),
            nncf.Dataset(batches),
            subset_size=len(batches),
            model_type=nncf.ModelType.TRANSFORMER,
        )
    write_ir(quantized, request.output_dir, half_weights=False)
    return artifact


def _ratios(given: Contestant, runners: Mapping[str, Runner]) -> dict[str, dict[str, float]]:
    """Return each one's time over NNCF's default, by workload, from interleaved rounds."""
    workloads = (*shape_workloads(given.graph.max_seq_length), *mixes_of(given.texts.test))
    found: dict[str, dict[str, float]] = {name: {} for name in runners}
    for series in time_interleaved(runners, workloads, FULL):
        for name in runners:
            speedup = summarize(series, name, NNCF_DEFAULT).speedup
            if speedup is not None:
                found[name][series.workload] = 1.0 / speedup.value
    for name, ratios in found.items():
        ratios["mixes"] = float(np.sqrt(ratios[MIX_SINGLE] * ratios[MIX_BATCHED]))
        print(name, {key: round(value, 3) for key, value in ratios.items()}, flush=True)
    return found


def _rated(
    given: Contestant,
    embed: Any,  # noqa: ANN401 - tokens to rows
    name: str,
    kept: int,
    size_bytes: int,
    time_ratio: Mapping[str, float],
) -> Rated:
    test = given.texts.test
    fidelity: Fidelity = assess(
        test.texts,
        given.reference,
        EvaluationEmbeddings(queries=embed(test.queries), documents=embed(test.documents)),
        lengths=(test.queries.lengths, test.documents.lengths),
        k=10,
        stability=None,
        seed=0,
    )
    overlap = fidelity.overlap_at_k
    rated = Rated(
        name=name,
        layers_in_float=kept,
        size_bytes=size_bytes,
        mean_cosine=fidelity.mean_cosine.value,
        p1_cosine=fidelity.p1_cosine.value,
        min_cosine=fidelity.min_cosine,
        overlap=overlap.value if overlap else float("nan"),
        time_ratio=time_ratio,
    )
    print(
        f"{name}: {rated.mean_cosine:.5f} / {rated.p1_cosine:.4f} / {rated.min_cosine:.4f}, "
        f"overlap {rated.overlap:.3f}, {size_bytes / 1e6:.1f} MB",
        flush=True,
    )
    return rated
