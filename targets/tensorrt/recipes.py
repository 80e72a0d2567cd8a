"""Which recipes TensorRT is given on which GPU, and why; figures are in `docs/tensorrt.md`."""

from __future__ import annotations

from targets.contract import Hardware, QdqScheme, Recipe
from targets.errors import CompileError
from targets.hardware.gpu_hardware import TENSOR_CORE

FLOAT32, FLOAT16, INT8 = "float32", "float16", "int8"
_STORED = ("float32", "float16")


def recipes_for(hardware: Hardware) -> tuple[Recipe, ...]:
    """Return the recipes for one GPU, the FP32 baseline first."""
    return (
        Recipe(
            name=FLOAT32,
            precision="float32",
            float_precision="float32",
            why="the reference that every other recipe is compared with, in float32 throughout",
        ),
        Recipe(
            name=FLOAT16,
            precision="float16",
            float_precision="float16",
            requires=(TENSOR_CORE.format("float16"),),
            why=f"half the weights and attention in one kernel: {_backing(hardware, 'float16')}; "
            "pooling and normalization stay in float32",
        ),
        Recipe(
            name=INT8,
            precision="int8",
            float_precision="float16",
            quantizer="qdq",
            requires=(TENSOR_CORE.format("int8"),),
            scheme=QdqScheme(integers="S8S8", symmetric=True),
            embeddings="float16",
            why="all linear layers in int8 by explicit Q/DQ, without zero points, the rest in "
            f"float16 so that attention stays in one kernel: {_backing(hardware, 'int8')}",
        ),
    )


def check_recipe(recipe: Recipe) -> None:
    """Refuse what cannot be built for TensorRT.

    Raises:
        CompileError: names the recipe and what is wrong with it.
    """
    if refused := _why_refused(recipe):
        raise CompileError(
            f"recipe {recipe.name!r} is none of TensorRT's",
            why=refused,
            hint="`exporter targets tensorrt` lists the recipes",
        )


def _why_refused(recipe: Recipe) -> str:
    if recipe.quantizer == "none":
        if recipe.precision not in (FLOAT32, FLOAT16):
            return f"{recipe.precision} is no precision that whole graphs are written in"
        return "a float recipe takes no overrides" if recipe.overrides else ""
    if recipe.quantizer != "qdq" or recipe.precision != INT8:
        return f"precision {recipe.precision} by quantizer {recipe.quantizer!r} cannot be built"
    if recipe.scheme is None or not recipe.scheme.symmetric or recipe.scheme.integers != "S8S8":
        return "TensorRT takes signed integers without zero points only (S8S8, symmetric)"
    if recipe.scheme.attention and recipe.float_precision != FLOAT16:
        return f"attention is fused in int8 beside float16 only, not {recipe.float_precision}"
    if recipe.float_precision not in _STORED:
        return f"layers that are not int8 run in float16 or float32, not {recipe.float_precision}"
    if recipe.embeddings not in _STORED:
        return f"embedding tables are stored in the graph's float type, not in {recipe.embeddings}"
    return ""


def _backing(hardware: Hardware, precision: str) -> str:
    if TENSOR_CORE.format(precision) in hardware.features:
        return f"the tensor cores of {hardware.microarchitecture} multiply it"
    return f"{hardware.microarchitecture} has no tensor cores for it"
