"""Static int8 as the user wants it, and the recipes that are made of the layers' int8 forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from exporter.deliver.codec import load_json
from exporter.optimize.methods import ranges_of
from exporter.optimize.sensitivity import mixed_recipes, with_layer_precisions
from exporter.optimize.tables import TablePrecision
from exporter.steps.int8_forms import PLANS, SUMMARY, int8_forms
from exporter.steps.workspace import Workspace
from exporter.values import EncoderSpec, QuantizationSummary
from targets.contract import (
    Hardware,
    LayerOverride,
    OnnxArtifact,
    QdqScheme,
    Recipe,
    TokenSequences,
)
from targets.errors import CompileError, ConfigError
from targets.hardware.precisions import is_backed
from targets.quantization.layers import EncoderLayers, match, read_layers

_OF_PYTORCH = ("torchao_dynamic", "torchao_weight_only", "torch_dynamic", "bnb_int8", "bnb_nf4")
_TAKES_OVERRIDES = ("nncf_ptq", "ort_dynamic", "matmul_nbits", *_OF_PYTORCH)
"""Quantizers, besides our own, that can leave single layers in the recipe's float precision."""
_SPLITS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(_OF_PYTORCH, ("int8",)),
    "bnb_nf4": (),
}
"""Quantizer → what single layers can have besides the recipe's float precision."""
_TABLE_PRECISIONS: tuple[TablePrecision, ...] = ("float16", "int8")


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
    folder = int8_forms(work, spec, graph, tokens, base.scheme, hardware, tables)
    summary = load_json(QuantizationSummary, (folder / SUMMARY).read_bytes())
    mixed = mixed_recipes(base, summary.sensitivity)
    at = wanted.index(base) + 1
    everything = _overridden((*wanted[:at], *mixed, *wanted[at:]), asked, layers)
    choosing = precision == "auto" and bool(mixed)
    beside = {one.name for one in wanted if choosing and is_superseded(one)}
    return Quantization(
        recipes=tuple(one for one in everything if one.name not in beside),
        plans={base.scheme: folder / PLANS},
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
