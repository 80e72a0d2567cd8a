"""Static int8: calibrated once, the method chosen, layers weighed, recipes made of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from exporter.deliver.codec import dump_json, load_json
from exporter.optimize.attention import AttentionTrial
from exporter.optimize.methods import choose_method, ranges_of
from exporter.optimize.probe import Probe, drift
from exporter.optimize.sensitivity import (
    measure_sensitivity,
    mixed_recipes,
    with_layer_precisions,
)
from exporter.optimize.tables import TablePrecision, measure_tables
from exporter.steps.calibration import calibration_table
from exporter.steps.workspace import Workspace, tool_versions
from exporter.values import EncoderSpec, MethodScore, QuantizationSummary, TableSensitivity
from targets.contract import (
    Hardware,
    IntArray,
    LayerOverride,
    OnnxArtifact,
    Progress,
    QdqScheme,
    Recipe,
    TokenSequences,
)
from targets.errors import CompileError, ConfigError
from targets.hardware.detect import usable_cores
from targets.hardware.precisions import adds_pairs_with_saturation, is_backed
from targets.hashing import sha256_file
from targets.lengths import spread_by_length
from targets.quantization.attention import AttentionPlan
from targets.quantization.layers import EncoderLayers, match, read_layers
from targets.quantization.overflow import layers_at_risk, predict_plan
from targets.quantization.plan import LayerPlan
from targets.quantization.plans_file import Prepared, save_prepared
from targets.quantization.prepare import Method, Preparation
from targets.quantization.splitting import choose_copies, split_channels, split_table
from targets.quantization.table import CalibrationTable

HELD_OUT_EVERY = 10
"""Every tenth calibration text is kept out of the statistics, to compare methods and layers on."""
_FEWEST_HELD_OUT = 5
_WEIGHED_TEXTS = 20
"""Held-out texts that every layer is tried on by itself, of all lengths: dozens of passes."""
_SATURATION_MARGIN = 0.9
"""How far into 16 bits a pair of products may come: texts go beyond what calibration saw."""
_TOOLS = ("onnx", "onnxruntime", "numpy")
_OF_PYTORCH = ("torchao_dynamic", "torchao_weight_only", "torch_dynamic", "bnb_int8", "bnb_nf4")
_TAKES_OVERRIDES = ("nncf_ptq", "ort_dynamic", "matmul_nbits", *_OF_PYTORCH)
"""Quantizers, besides our own, that can leave single layers in the recipe's float precision."""
_SPLITS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_OF_PYTORCH, ("int8",)),
    "bnb_nf4": (),
}
"""Quantizer → what single layers can have besides the recipe's float precision."""
_TABLE_PRECISIONS: tuple[TablePrecision, ...] = ("float16", "int8")
_PLANS, _SUMMARY = "plans.npz", "summary.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantization:
    """What static int8 recipes are made from.

    Args:
        recipes: all of the target's, the static ones as the user wants them, with mixed ones.
        plans: scheme → file with the int8 forms of all linear layers.
        summary: how they were found, for the report; None where no recipe needs them.
        superseded: recipes that are worth building only where these fail.
    """

    recipes: tuple[Recipe, ...]
    plans: Mapping[QdqScheme, Path]
    summary: QuantizationSummary | None = None
    superseded: tuple[Recipe, ...] = ()

    def with_superseded(self) -> Quantization:
        """Return all recipes as ones that are worth building."""
        return replace(self, recipes=(*self.recipes, *self.superseded), superseded=())

    def plans_of(self, recipe: Recipe) -> Path | None:
        """Return the file that a recipe is compiled from, if it is made of plans."""
        return self.plans[recipe.scheme] if recipe.quantizer == "qdq" and recipe.scheme else None


def is_superseded(recipe: Recipe) -> bool:
    """Say whether the static recipes do the same work as fast, and lose less (docs/openvino.md).

    NNCF's forms. Those that keep layers in float keep some that are not the ones that cost most.
    The one that keeps none has the products inside attention in int8 besides, which gains where
    the other way is float32, not where it is half precision in fused kernels. Each takes as long to
    build as all that is calibrated here, so they come in only where no static recipe keeps its
    promises.
    """
    keeps_float = any(one.precision != "int8" for one in recipe.overrides)
    return recipe.quantizer == "nncf_ptq" and (keeps_float or recipe.float_precision != "float32")


def quantize_layers(
    work: Workspace,
    spec: EncoderSpec,
    graph: OnnxArtifact,
    tokens: TokenSequences,
    recipes: Sequence[Recipe],
    hardware: Hardware,
    *,
    only_backed: bool = False,
) -> Quantization:
    """Find the int8 form of every layer, and the recipes that are worth a try.

    Args:
        work: the run's surroundings.
        spec: the source model.
        graph: its FP32 graph.
        tokens: calibration texts.
        recipes: the target's candidates.
        hardware: of the device.
        only_backed: what nothing there accelerates will not be built (`auto` in a tournament), so
            that its form need not be found.

    Raises:
        CalibrationError: the texts do not carry statistics.
        ConfigError: a layer pattern matches nothing, or the device lacks what it asks for.
    """
    asked = tuple(
        LayerOverride(pattern=pattern, precision=precision)
        for pattern, precision in work.settings.layer_precision
    )
    layers = _layers_of(graph, asked, recipes)
    wanted = tuple(_as_asked(work, recipe) for recipe in recipes)
    base = next((one for one in wanted if one.quantizer == "qdq"), None)
    precision = work.settings.precision
    if base is None or base.scheme is None or not precision.startswith(("auto", base.name)):
        return Quantization(recipes=_overridden(wanted, asked, layers), plans={})
    if only_backed and precision == "auto" and not is_backed(base, hardware):
        return Quantization(recipes=_overridden(wanted, asked, layers), plans={})
    ranges_of(base.scheme)  # refuses what does not go together before an hour of calibration
    tables = _table_precisions(wanted)
    folder = _quantized(work, spec, graph, tokens, base.scheme, hardware, tables)
    summary = load_json(QuantizationSummary, (folder / _SUMMARY).read_bytes())
    mixed = mixed_recipes(base, summary.sensitivity)
    at = wanted.index(base) + 1
    everything = _overridden((*wanted[:at], *mixed, *wanted[at:]), asked, layers)
    choosing = precision == "auto" and bool(mixed)
    beside = {one.name for one in wanted if choosing and is_superseded(one)}
    return Quantization(
        recipes=tuple(one for one in everything if one.name not in beside),
        plans={base.scheme: folder / _PLANS},
        summary=summary,
        superseded=tuple(one for one in everything if one.name in beside),
    )


# ------------------------------------------------------------------------- what was asked


def _as_asked(work: Workspace, recipe: Recipe) -> Recipe:
    """Put the user's wishes into a recipe: calibrator, smoothing, embeddings, threshold."""
    settings = work.settings
    if recipe.quantizer in _OF_PYTORCH:
        recipe = replace(recipe, embeddings=settings.embeddings or recipe.embeddings)
    if recipe.outlier_threshold is not None and settings.outlier_threshold is not None:
        recipe = replace(recipe, outlier_threshold=settings.outlier_threshold)
    if recipe.quantizer != "qdq" or recipe.scheme is None:
        return recipe
    scheme = replace(
        recipe.scheme,
        calibrator=(
            recipe.scheme.calibrator if settings.calibrator == "auto" else settings.calibrator
        ),
        smoothing=recipe.scheme.smoothing if settings.smoothing == "auto" else settings.smoothing,
    )
    return replace(recipe, scheme=scheme, embeddings=settings.embeddings or recipe.embeddings)


def _table_precisions(recipes: Sequence[Recipe]) -> tuple[TablePrecision, ...]:
    """Return what static recipes store embedding tables in besides float32."""
    found = {one.embeddings for one in recipes if one.quantizer == "qdq"}
    return tuple(one for one in _TABLE_PRECISIONS if one in found)


def _layers_of(
    graph: OnnxArtifact, asked: Sequence[LayerOverride], recipes: Sequence[Recipe]
) -> EncoderLayers | None:
    """Read the layers if the user named any; refuse what matches nothing or cannot run."""
    if not asked:
        return None
    layers = read_layers(onnx.load(graph.path, load_external_data=False))
    floats = sorted(
        {"float32", *(one.float_precision for one in recipes if one.precision == "int8")}
    )
    wanted = {one.precision for one in asked} - {"int8"}
    if len(wanted) > 1:
        raise ConfigError(
            f"--layer-precision asks for {' and '.join(sorted(wanted))}",
            why="the layers of one artifact that are not int8 all run in one precision",
            hint="take one of them for all patterns",
        )
    for one in asked:
        flag = f"--layer-precision {one.pattern}={one.precision}"
        try:
            match(one.pattern, layers)
        except CompileError as error:
            raise ConfigError(f"{flag}: {error.what}", why=error.why, hint=error.hint) from error
        if one.precision != "int8" and one.precision not in floats:
            has = ", ".join(["int8", *floats])
            raise ConfigError(
                f"{flag}: this device has no {one.precision} beside int8",
                why=f"layers of int8 recipes run in: {has}",
                hint="take one of those",
            )
    return layers


def _overridden(
    recipes: Sequence[Recipe], asked: Sequence[LayerOverride], layers: EncoderLayers | None
) -> tuple[Recipe, ...]:
    """Put the user's layer precisions into all int8 recipes that can keep them."""
    if not asked or layers is None:
        return tuple(recipes)

    def fits(recipe: Recipe) -> bool:
        possible = {recipe.float_precision, *_SPLITS.get(recipe.quantizer, ())}
        return all(one.precision in possible for one in asked)

    kept = []
    for recipe in recipes:
        if recipe.quantizer == "qdq":
            kept.append(with_layer_precisions(_in_float(recipe, asked), asked, layers.linears))
        elif recipe.quantizer in _TAKES_OVERRIDES and fits(recipe):
            kept.append(replace(recipe, overrides=(*recipe.overrides, *asked)))
        elif recipe.quantizer == "none":
            kept.append(recipe)
    return tuple(kept)


def _in_float(recipe: Recipe, asked: Sequence[LayerOverride]) -> Recipe:
    """Run everything that is not int8 in the float precision that the user asked for."""
    floats = [one.precision for one in asked if one.precision != "int8"]
    if not floats or floats[0] == recipe.float_precision:
        return recipe
    own = tuple(
        one if one.precision == "int8" else replace(one, precision=floats[0])
        for one in recipe.overrides
    )
    return replace(recipe, float_precision=floats[0], overrides=own)


# ----------------------------------------------------------------------------- the work


def _quantized(
    work: Workspace,
    spec: EncoderSpec,
    graph: OnnxArtifact,
    tokens: TokenSequences,
    scheme: QdqScheme,
    hardware: Hardware,
    tables: tuple[TablePrecision, ...],
) -> Path:
    """Return the cache's folder with the plans of a scheme and how they were found."""
    seen, held_out = hold_out(tokens)
    table = calibration_table(work, spec, graph, seen, gram=True, attention=scheme.attention)
    saturates = adds_pairs_with_saturation(hardware) and scheme.integers == "U8S8"

    def build(folder: Path, progress: Progress) -> None:
        model = onnx.load(graph.path)
        layers = read_layers(model)
        stored = CalibrationTable.load(table)
        stored.require(graph_sha256=graph.sha256, corpus_sha256=seen.sha256)
        copies: dict[str, NDArray[np.int64]] = {}
        if scheme.smoothing != "off" and scheme.calibrator in ("auto", "minmax"):
            copies = choose_copies(model, layers, stored, symmetric=scheme.symmetric)
        model = split_channels(model, layers, copies)
        num_threads = work.settings.threads or usable_cores()
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
            preparation=Preparation(model, layers, split_table(stored, layers, copies)),
            probe=Probe(
                graph,
                model,
                layers,
                signed=scheme.integers.startswith("S"),
                num_threads=num_threads,
            ),
            table=split_table(stored, layers, copies),
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
        save_prepared(replace(found, copies=copies), folder / _PLANS)
        (folder / _SUMMARY).write_bytes(dump_json(summary))

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
            tried[method] = self.preparation.plans(method)
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
        return self.preparation.plans(method, reduce_range=lambda layer: layer.path in reduced)

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
