"""The ONNX graph of any recipe that TensorRT is given; its parser must find nothing to guess."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from targets.contract import CompileRequest, Recipe
from targets.errors import CompileError, StorageError
from targets.quantization.attention import AttentionPlan
from targets.quantization.layers import EncoderLayers, read_layers
from targets.quantization.overrides import quantized_layers
from targets.quantization.plan import QdqPlan
from targets.quantization.plans_file import Prepared, load_changed, load_prepared
from targets.quantization.qdq import insert_qdq
from targets.quantization.validate import validate_qdq
from targets.tensorrt.half import to_half
from targets.tensorrt.recipes import check_recipe

_MAX_FILE_BYTES = 2**31 - 2**24
"""Protocol buffers end at 2 GiB; larger weights lie in `<file>_data` beside the graph."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltGraph:
    """A graph as TensorRT is given it.

    Args:
        model: the graph.
        layers: by the names that the float graph has.
        num_int8: how many of the linear layers are int8.
        num_int8_attentions: how many of the attentions are.
    """

    model: onnx.ModelProto
    layers: EncoderLayers
    num_int8: int = 0
    num_int8_attentions: int = 0


def build_graph(request: CompileRequest) -> BuiltGraph:
    """Build the graph of one recipe: float16 first, then Q/DQ with float16 scales.

    Raises:
        CompileError: the recipe cannot be built, its plans are missing or do not fit.
        CalibrationError: the plans' file is damaged.
        StorageError: the float graph cannot be read.
    """
    recipe = request.recipe
    check_recipe(recipe)
    half = recipe.float_precision == "float16"
    if recipe.quantizer == "none":
        model = _load(request.graph.path)
        return BuiltGraph(model=to_half(model) if half else model, layers=read_layers(model))
    if request.plans is None:
        raise CompileError(
            f"recipe {recipe.name!r} needs calibrated layers", hint="run `exporter export`"
        )
    prepared = load_prepared(request.plans)
    model, layers = load_changed(request.graph.path, prepared)
    chosen = {layer.node: layer.path for layer in quantized_layers(recipe, layers)}
    plans = tuple(plan for plan in prepared.plans if plan.layer.node in chosen)
    attention = _attention_of(recipe, prepared)
    plan = QdqPlan(layers=plans, attention=attention)
    # scales take the type of the tensor, so the graph is float16 before Q/DQ goes in
    quantized = insert_qdq(to_half(model) if half else model, plan)
    paths, blocks = list(chosen.values()), [one.block for one in attention]
    validate_qdq(quantized, layers, paths, symmetric=True, attention=blocks)
    return BuiltGraph(
        model=quantized, layers=layers, num_int8=len(plans), num_int8_attentions=len(attention)
    )


def _attention_of(recipe: Recipe, prepared: Prepared) -> tuple[AttentionPlan, ...]:
    if recipe.scheme is None or not recipe.scheme.attention:
        return ()
    if not prepared.attention:
        raise CompileError(
            f"recipe {recipe.name!r} needs calibrated attention",
            why="the plans hold linear layers only",
            hint="run `exporter export --attention-int8`",
        )
    return prepared.attention


def save_graph(model: onnx.ModelProto, path: Path) -> tuple[Path, ...]:
    """Write a graph, weights over 2 GB beside it; return the files.

    Raises:
        StorageError: it cannot be written.
    """
    large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _MAX_FILE_BYTES
    location = f"{path.name}_data"
    try:
        onnx.save(model, path, save_as_external_data=large, location=location)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written", why=str(error), hint="free space, or choose another folder"
        ) from error
    return (path, path.with_name(location)) if large else (path,)


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be read", why=str(error)) from error
