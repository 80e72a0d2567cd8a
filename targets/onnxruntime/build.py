"""The ONNX file of any recipe that ONNX Runtime is given, for servers and for mobile alike.

Every quantized layer is written as the kernel that ONNX Runtime runs (`products`); embedding
tables are looked up in int8 and made float behind the lookup; additions in front of LayerNorm are
kept from a slow fusion. Files hold plain ONNX and `com.microsoft` operators, which every build of
ONNX Runtime has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, cast

import onnx

from targets.contract import CompileRequest, OnnxArtifact, Quantizer, Recipe
from targets.errors import CompileError, StorageError
from targets.hardware.precisions import adds_pairs_with_saturation
from targets.onnxruntime.additions import forget_shapes, keep_additions
from targets.onnxruntime.blocks import quantize_blocks
from targets.onnxruntime.dynamic import quantize_dynamically
from targets.onnxruntime.lowering import lower_qdq
from targets.onnxruntime.recipes import check_recipe
from targets.quantization.editing import GraphEditor
from targets.quantization.embeddings_qdq import store_embeddings
from targets.quantization.layers import read_layers
from targets.quantization.overrides import quantized_layers
from targets.quantization.plan import QdqPlan
from targets.quantization.plans_file import load_changed, load_prepared
from targets.quantization.qdq import insert_qdq
from targets.quantization.validate import validate_qdq

MAX_FILE_BYTES = 2**31 - 2**24
"""Protocol buffers end at 2 GiB; larger weights lie in `<file>.onnx_data` beside the graph."""

Stored = Literal["float16", "int8"]


def build_onnx(request: CompileRequest, path: Path) -> None:
    """Write the ONNX file of one recipe; the same request gives the same bytes.

    Args:
        request: `output_dir` is not looked at.
        path: the new file; its folder exists.

    Raises:
        CompileError: the recipe cannot be built, one of its overrides matches no layer, its
            plans are missing or do not fit, or the result is not the same interface.
        CalibrationError: the plans' file is damaged.
        StorageError: the file cannot be written.
    """
    check_recipe(request.recipe)
    model = _BUILDERS[request.recipe.quantizer](request)
    keep_additions(model)
    forget_shapes(model)
    _require_interface(model, request.graph)
    _save(model, path)


def _float(request: CompileRequest) -> onnx.ModelProto:
    return _load(request.graph.path)


def _static(request: CompileRequest) -> onnx.ModelProto:
    """Insert Q/DQ as planned, prove it, and write the kernels that it stands for."""
    recipe = request.recipe
    if request.plans is None:
        raise CompileError(
            f"recipe {recipe.name!r} needs calibrated layers", hint="run `exporter export`"
        )
    prepared = load_prepared(request.plans)
    model, layers = load_changed(request.graph.path, prepared)
    chosen = quantized_layers(recipe, layers)
    paths = {layer.node: layer.path for layer in chosen}
    plans = tuple(plan for plan in prepared.plans if plan.layer.node in paths)
    embeddings = cast(Literal["float32", "float16", "int8"], recipe.embeddings)
    quantized = insert_qdq(model, QdqPlan(layers=plans, embeddings=embeddings))
    symmetric = recipe.scheme is not None and recipe.scheme.symmetric
    validate_qdq(quantized, layers, list(paths.values()), symmetric=symmetric)
    return lower_qdq(quantized, model, chosen)


def _dynamic(request: CompileRequest) -> onnx.ModelProto:
    model = _load(request.graph.path)
    layers = quantized_layers(request.recipe, read_layers(model))
    reduced = adds_pairs_with_saturation(request.hardware)
    quantized = quantize_dynamically(model, layers, reduce_range=reduced)
    return _with_tables(quantized, model, request.recipe)


def _blocks(request: CompileRequest) -> onnx.ModelProto:
    model = _load(request.graph.path)
    layers = quantized_layers(request.recipe, read_layers(model))
    quantized = quantize_blocks(model, layers, 4 if request.recipe.precision == "int4" else 8)
    return _with_tables(quantized, model, request.recipe)


_BUILDERS: Mapping[Quantizer, Callable[[CompileRequest], onnx.ModelProto]] = {
    "none": _float,
    "qdq": _static,
    "ort_dynamic": _dynamic,
    "matmul_nbits": _blocks,
}


def _with_tables(
    quantized: onnx.ModelProto, floating: onnx.ModelProto, recipe: Recipe
) -> onnx.ModelProto:
    """Store large embedding tables as the recipe says."""
    if recipe.embeddings == "float32":
        return quantized
    editor = GraphEditor(quantized)
    tables = read_layers(floating).embeddings
    store_embeddings(editor, tables, cast(Stored, recipe.embeddings))
    return editor.finish()


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be read", why=str(error)) from error


def _require_interface(model: onnx.ModelProto, graph: OnnxArtifact) -> None:
    """Refuse a result whose inputs and outputs are not those of the graph, in their order."""
    found = [value.name for value in (*model.graph.input, *model.graph.output)]
    wanted = [tensor.name for tensor in (*graph.inputs, *graph.outputs)]
    if found != wanted:
        raise CompileError(
            f"the graph's inputs and outputs are {found}",
            why=f"it was described as {wanted}",
            hint="export the encoder again",
        )


def _save(model: onnx.ModelProto, path: Path) -> None:
    large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > MAX_FILE_BYTES
    location = f"{path.name}_data"
    try:
        onnx.save(model, path, save_as_external_data=large, location=location)
    except OSError as error:
        raise StorageError(
            f"{path} cannot be written", why=str(error), hint="free space, or choose another folder"
        ) from error
