"""The int8 form of every layer: calibrated once, the method chosen, layers weighed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from exporter.deliver.codec import dump_json
from exporter.optimize.activation_sample import ActivationSample
from exporter.optimize.attention import AttentionTrial
from exporter.optimize.methods import choose_method
from exporter.optimize.probe import Probe, drift
from exporter.optimize.sensitivity import measure_sensitivity
from exporter.optimize.tables import TablePrecision, measure_tables
from exporter.steps.calibration import calibration_table
from exporter.steps.changed_graph import changed_graph
from exporter.steps.workspace import Workspace, tool_versions
from exporter.values import EncoderSpec, MethodScore, QuantizationSummary, TableSensitivity
from targets.contract import (
    Hardware,
    IntArray,
    OnnxArtifact,
    Progress,
    QdqScheme,
    TokenSequences,
)
from targets.hardware.detect import usable_cores
from targets.hardware.precisions import adds_pairs_with_saturation
from targets.hashing import sha256_file
from targets.lengths import spread_by_length
from targets.quantization.attention import AttentionPlan
from targets.quantization.correction import rounding_corrected
from targets.quantization.layers import read_layers
from targets.quantization.overflow import layers_at_risk, predict_plan
from targets.quantization.plan import LayerPlan
from targets.quantization.plans_file import Prepared, save_prepared
from targets.quantization.prepare import Method, Preparation
from targets.quantization.table import CalibrationTable

HELD_OUT_EVERY = 10
"""Every tenth calibration text is kept out of the statistics, to compare methods and layers on."""
_FEWEST_HELD_OUT = 5
_WEIGHED_TEXTS = 20
"""Held-out texts that every layer is tried on by itself, of all lengths: dozens of passes."""
_SATURATION_MARGIN = 0.9
"""How far into 16 bits a pair of products may come: texts go beyond what calibration saw."""
_TOOLS = ("onnx", "onnxruntime", "numpy")
PLANS, SUMMARY = "plans.npz", "summary.json"
"""Files in the folder that `int8_forms` returns."""


def int8_forms(
    work: Workspace,
    spec: EncoderSpec,
    graph: OnnxArtifact,
    tokens: TokenSequences,
    scheme: QdqScheme,
    hardware: Hardware,
    tables: tuple[TablePrecision, ...],
) -> Path:
    """Return the cache's folder with the plans of a scheme and how they were found.

    Args:
        work: the run's surroundings.
        spec: the source model.
        graph: its FP32 graph.
        tokens: calibration texts.
        scheme: of the integers.
        hardware: of the device.
        tables: what embedding tables are stored in, to be measured.

    Raises:
        CalibrationError: the texts do not carry statistics.
    """
    seen, held_out = hold_out(tokens)
    table = calibration_table(work, spec, graph, seen, gram=True, attention=scheme.attention)
    saturates = adds_pairs_with_saturation(hardware) and scheme.integers == "U8S8"

    def build(folder: Path, progress: Progress) -> None:
        model = onnx.load(graph.path)
        layers = read_layers(model)
        stored = CalibrationTable.load(table)
        stored.require(graph_sha256=graph.sha256, corpus_sha256=seen.sha256)
        num_threads = work.settings.threads or usable_cores()
        sample = ActivationSample(graph, seen, num_threads)
        changed = changed_graph(model, layers, stored, scheme, sample)
        model = changed.model
        search = _Search(
            trial=partial(
                AttentionTrial,
                graph=graph,
                model=model,
                layers=layers,
                table=stored,
                held_out=held_out,
                num_threads=num_threads,
            ),
            preparation=Preparation(model, layers, changed.table, changed.divisors),
            rounding_errors=partial(sample.rounding_errors, changes=changed.changes(layers)),
            probe=Probe(
                graph,
                model,
                layers,
                signed=scheme.integers.startswith("S"),
                num_threads=num_threads,
            ),
            table=changed.table,
            table_sha256=stored.sha256,
            held_out=held_out,
            tables=partial(
                measure_tables,
                graph,
                model,
                layers,
                precisions=tables,
                num_threads=num_threads,
            ),
        )
        found, summary = search.run(scheme, reduce_range=saturates, progress=progress)
        save_prepared(replace(found, copies=changed.copies, shifts=changed.shifts), folder / PLANS)
        (folder / SUMMARY).write_bytes(dump_json(summary))

    parts = (
        graph.sha256,
        sha256_file(table),
        held_out.sha256,
        dump_json(scheme).decode(),
        saturates,
        tables,
        tool_versions(_TOOLS),
    )
    title = "find the int8 form of every layer, weigh the layers"
    return work.cached("quantization", title, parts, build)


def hold_out(tokens: TokenSequences) -> tuple[TokenSequences, TokenSequences]:
    """Divide calibration texts into those for statistics and those for comparing.

    Too few texts serve as both.
    """
    seen, held_out = held_out_indices(len(tokens))
    if seen is held_out:
        return tokens, tokens
    return tokens.select(seen), tokens.select(held_out)


def held_out_indices(num_texts: int) -> tuple[IntArray, IntArray]:
    """Return which texts `hold_out` takes for statistics, and which for comparing."""
    everyone = np.arange(num_texts)
    apart = everyone % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    if apart.sum() < _FEWEST_HELD_OUT:
        return everyone, everyone
    return everyone[~apart], everyone[apart]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """Tries methods, layers and attention on held-out texts."""

    preparation: Preparation
    rounding_errors: Callable[[Sequence[LayerPlan]], Mapping[str, NDArray[np.float64]]]
    probe: Probe
    trial: Callable[..., AttentionTrial]
    table: CalibrationTable
    table_sha256: str
    held_out: TokenSequences
    tables: Callable[..., tuple[TableSensitivity, ...]]

    def run(
        self, scheme: QdqScheme, *, reduce_range: bool, progress: Progress
    ) -> tuple[Prepared, QuantizationSummary]:
        """Return the plans of the method that keeps most, and all that was found."""
        reference = self.probe.embed(self.held_out)
        tried: dict[Method, tuple[LayerPlan, ...]] = {}

        def score(method: Method) -> float:
            tried[method] = self._plans(method)
            return drift(reference, self.probe.embed(self.held_out, tried[method]))

        method, scores = choose_method(scheme, score)
        plans = self._within_range(method, tried[method], scheme, reduce_range)
        few = spread_by_length(self.held_out, _WEIGHED_TEXTS)
        of_few = self.probe.embed(few)
        sensitivity = measure_sensitivity(self.probe, few, of_few, plans, progress=progress)
        attention: tuple[AttentionPlan, ...] = ()
        ranges: tuple[MethodScore, ...] = ()
        if scheme.attention:
            attention, ranges = self.trial(reference=reference).choose(plans, scheme.calibrator)
        summary = QuantizationSummary(
            method=method.words,
            scores=scores,
            num_texts=self.table.num_texts,
            num_tokens=self.table.num_tokens,
            num_held_out=len(self.held_out),
            table_sha256=self.table_sha256,
            drift=drift(reference, self.probe.embed(self.held_out, plans)),
            reduced=tuple(plan.layer.path for plan in plans if plan.reduce_range),
            sensitivity=sensitivity,
            tables=self.tables(tokens=few, reference=of_few),
            attention=ranges,
        )
        return Prepared(plans=plans, attention=attention), summary

    def _within_range(
        self,
        method: Method,
        plans: tuple[LayerPlan, ...],
        scheme: QdqScheme,
        reduce_range: bool,
    ) -> tuple[LayerPlan, ...]:
        """Give weights seven bits where pairs of products may saturate."""
        reduced = set(self._at_risk(plans)) if reduce_range else set()
        reduced |= {
            plan.layer.path
            for plan in plans
            for pattern in scheme.reduce_range
            if fnmatchcase(plan.layer.path, pattern)
        }
        if not reduced:
            return plans
        return self._plans(method, reduced)

    def _plans(self, method: Method, reduced: Collection[str] = ()) -> tuple[LayerPlan, ...]:
        """Return the int8 forms by a method, corrected by what rounding does to the inputs."""
        plans = self.preparation.plans(method, reduce_range=lambda layer: layer.path in reduced)
        if not method.correct:
            return plans
        errors = self.rounding_errors(plans)
        return tuple(rounding_corrected(one, errors[one.layer.activation]) for one in plans)

    def _at_risk(self, plans: Sequence[LayerPlan]) -> tuple[str, ...]:
        found = [
            predict_plan(
                plan,
                self.preparation.weight(plan.layer),
                self.table.tensors[plan.layer.activation],
            )
            for plan in plans
        ]
        return layers_at_risk(found, limit=_SATURATION_MARGIN)
