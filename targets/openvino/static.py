"""int8 by our own Q/DQ graph: layers' int8 forms placed, read by OpenVINO, kept as they are.

OpenVINO fuses what it is given here (2026.4, seen in the runtime model): the product with
1 / divisor and the rounding become one kernel behind the layer in front, products run as int8
FullyConnected, attention stays one fused float kernel.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast
from xml.etree import ElementTree

import onnx

from targets.contract import LayerOverride, Recipe
from targets.errors import CompileError
from targets.openvino.ir import read_graph
from targets.quantization.layers import EncoderLayers, match
from targets.quantization.plan import LayerPlan, QdqPlan
from targets.quantization.plans_file import load_changed, load_prepared
from targets.quantization.qdq import insert_qdq
from targets.quantization.validate import validate_qdq

_EXTERNAL_DATA_BYTES = 2**30
"""Graphs this large are handed over with their weights in a file of their own."""


@contextmanager
def static_graph(graph: Path, plans: Path | None, recipe: Recipe) -> Iterator[Any]:
    """Yield OpenVINO's reading of the Q/DQ graph that a recipe asks for.

    Args:
        graph: the float ONNX graph.
        plans: file with the int8 forms of its linear layers.
        recipe: says which layers stay in float.

    Raises:
        CompileError: there are no plans, a pattern matches nothing, the result breaks a rule,
            or OpenVINO cannot read it.
        CalibrationError: the plans' file is damaged.
    """
    if plans is None:
        raise CompileError(
            f"recipe {recipe.name!r} needs calibrated layers", hint="run `exporter export`"
        )
    prepared = load_prepared(plans)
    model, layers = load_changed(graph, prepared)
    chosen = _chosen(prepared.plans, layers, recipe)
    embeddings = cast(Literal["float32", "float16", "int8"], recipe.embeddings)
    quantized = insert_qdq(model, QdqPlan(layers=chosen, embeddings=embeddings))
    symmetric = recipe.scheme is not None and recipe.scheme.symmetric
    validate_qdq(quantized, layers, [one.layer.path for one in chosen], symmetric=symmetric)
    with tempfile.TemporaryDirectory(prefix="qdq-") as folder:
        path = Path(folder) / "model.onnx"
        large = quantized.ByteSize() > _EXTERNAL_DATA_BYTES
        onnx.save(quantized, path, save_as_external_data=large, location=f"{path.name}_data")
        yield read_graph(path)


def _chosen(
    plans: Iterable[LayerPlan], layers: EncoderLayers, recipe: Recipe
) -> tuple[LayerPlan, ...]:
    kept = kept_in_float(recipe.overrides, layers, recipe.name)
    chosen = tuple(plan for plan in plans if plan.layer.path not in kept)
    if not chosen:
        raise CompileError(
            f"recipe {recipe.name!r} leaves no layer in int8",
            hint="take a float recipe, or fewer layer precisions",
        )
    return chosen


def kept_in_float(
    overrides: Sequence[LayerOverride], layers: EncoderLayers, recipe: str
) -> frozenset[str]:
    """Return the paths of the linear layers that overrides leave in float; later ones win.

    Raises:
        CompileError: a pattern matches no linear layer; names the nearest.
    """
    kept: set[str] = set()
    for override in overrides:
        try:
            paths = {layer.path for layer in match(override.pattern, layers)}
        except CompileError as error:
            raise CompileError(
                f"recipe {recipe!r}: {error.what}", why=error.why, hint=error.hint
            ) from error
        kept = kept - paths if override.precision == "int8" else kept | paths
    return frozenset(kept)


def keep_float32(path: Path) -> None:
    """Mark every operation of an IR to be left in float32 by loaders that are told nothing.

    OpenVINO takes bfloat16 by itself where the CPU has it. An IR cannot carry the precision
    hint, but its operations can carry this mark (`transformations/rt_info/
    disable_precision_conversion.hpp`), which the CPU plug-in obeys everywhere but in float
    matrix products.

    Args:
        path: the `.xml`; it is changed in place.
    """
    tree = ElementTree.parse(path)  # noqa: S314 - written by OpenVINO a moment ago
    for layer in tree.iterfind("./layers/layer"):
        if layer.get("type") in ("Const", "Parameter", "Result"):
            continue
        marks = layer.find("rt_info")
        if marks is None:
            marks = ElementTree.Element("rt_info")
            data = layer.find("data")
            layer.insert(0 if data is None else list(layer).index(data) + 1, marks)
        mark = {"name": "DisablePrecisionConversion", "version": "0", "value": "dynamic:f16"}
        ElementTree.SubElement(marks, "attribute", mark)
    tree.write(path, encoding="utf-8", xml_declaration=True)
