"""The ONNX graph of any recipe that TensorRT is given; its parser must find nothing to guess."""

from __future__ import annotations

from pathlib import Path

import onnx

from targets.contract import CompileRequest
from targets.errors import CompileError, StorageError
from targets.quantization.layers import EncoderLayers, read_layers
from targets.quantization.overrides import quantized_layers
from targets.quantization.plan import QdqPlan
from targets.quantization.plans_file import apply_copies, load_prepared
from targets.quantization.qdq import insert_qdq
from targets.quantization.validate import validate_qdq
from targets.tensorrt.half import to_half
from targets.tensorrt.recipes import check_recipe

_MAX_FILE_BYTES = 2**31 - 2**24
"""Protocol buffers end at 2 GiB; larger weights lie in `<file>_data` beside the graph."""


def build_graph(request: CompileRequest) -> tuple[onnx.ModelProto, EncoderLayers, int]:
    """Build the graph of one recipe: float16 first, then Q/DQ with float16 scales.

    Returns:
        The graph; its layers, by the names that the float graph has; how many of the linear
        layers are int8.

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
        return (to_half(model) if half else model), read_layers(model), 0
    if request.plans is None:
        raise CompileError(
            f"recipe {recipe.name!r} needs calibrated layers", hint="run `exporter export`"
        )
    prepared = load_prepared(request.plans)
    model, layers = apply_copies(request.graph.path, prepared)
    chosen = {layer.node: layer.path for layer in quantized_layers(recipe, layers)}
    plans = tuple(plan for plan in prepared.plans if plan.layer.node in chosen)
    # scales take the type of the tensor, so the graph is float16 before Q/DQ goes in
    quantized = insert_qdq(to_half(model) if half else model, QdqPlan(layers=plans))
    validate_qdq(quantized, layers, list(chosen.values()), symmetric=True)
    return quantized, layers, len(plans)


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
