"""Which recipes ONNX Runtime is given on which CPU, and why; figures are in `docs/onnxruntime.md`.

Weights are signed and activations unsigned everywhere (U8S8): MLAS has kernels for them on every
instruction set, and VNNI, AMX and ARM add the products in 32 bits. x86 without VNNI adds pairs in
16 bits; there, layers that may saturate keep seven bits in their weights (static int8: those that
`targets.quantization.overflow` names; dynamic int8: all). U8U8 would be exact with eight bits, but
its kernel widens both sides first and multiplies half as many at once.
"""

from __future__ import annotations

from targets.contract import Hardware, Precision, QdqScheme, Quantizer, Recipe
from targets.errors import CompileError
from targets.hardware.precisions import (
    ONNX_RUNTIME,
    PLAIN,
    accelerated,
    adds_pairs_with_saturation,
    backing_features,
)

STATIC, DYNAMIC = "int8-static", "int8-dynamic"
WEIGHTS, NARROW_WEIGHTS = "int8-weights", "int4-weights"

INT8_FEATURES = (
    *backing_features("int8", ONNX_RUNTIME),
    *(one.feature for one in PLAIN["int8"]),
)
"""What MLAS multiplies eight-bit integers with; any one of them makes int8 worth a try."""
BLOCK_FEATURES = ("avx512_vnni", "avx_vnni", "avx512bw", "avx2", "i8mm", "asimddp")
"""What MLAS multiplies blocks of weights with in integers; else they are expanded to float32."""

_LAYOUTS: tuple[tuple[Quantizer, Precision], ...] = (
    ("none", "float32"),
    ("qdq", "int8"),
    ("ort_dynamic", "int8"),
    ("matmul_nbits", "int8"),
    ("matmul_nbits", "int4"),
)
"""(quantizer, precision) that can be compiled."""
_STORED: tuple[Precision, ...] = ("float32", "float16", "int8")
"""What embedding tables can be stored in."""


def recipes_for(hardware: Hardware) -> tuple[Recipe, ...]:
    """Return the recipes for one CPU, x86 or ARM, the FP32 baseline first.

    Recipes whose `requires` names nothing that the CPU has are listed too, so that they can be
    forced.
    """
    return (_float32(), _static(hardware), _dynamic(hardware), *_weights(hardware))


def check_recipe(recipe: Recipe) -> None:
    """Refuse what cannot be built for ONNX Runtime.

    Raises:
        CompileError: names the recipe and what is wrong with it.
    """
    refused = _why_refused(recipe)
    if refused:
        raise CompileError(
            f"recipe {recipe.name!r} is none of ONNX Runtime's",
            why=refused,
            hint="`exporter targets onnxruntime` lists the recipes of this device",
        )


def _why_refused(recipe: Recipe) -> str:
    if (recipe.quantizer, recipe.precision) not in _LAYOUTS:
        return f"precision {recipe.precision} by quantizer {recipe.quantizer!r} cannot be built"
    if recipe.float_precision != "float32":
        return f"layers that are not quantized run in float32, not in {recipe.float_precision}"
    if recipe.quantizer == "none":
        return _why_no_baseline(recipe)
    if recipe.quantizer == "qdq" and recipe.scheme is None:
        return "it does not say how integers stand for floats"
    if recipe.embeddings not in _STORED:
        return f"embedding tables in {recipe.embeddings} cannot be stored"
    possible = (recipe.precision, recipe.float_precision)
    strange = [one for one in recipe.overrides if one.precision not in possible]
    if strange:
        return f"{strange[0].pattern!r} asks for {strange[0].precision}; layers stay in float32"
    return ""


def _why_no_baseline(recipe: Recipe) -> str:
    if recipe.overrides:
        return "a float recipe runs all layers in one precision and takes no overrides"
    if recipe.embeddings != "float32":
        return f"a float recipe keeps embedding tables in float32, not in {recipe.embeddings}"
    return ""


def _float32() -> Recipe:
    return Recipe(
        name="float32",
        precision="float32",
        float_precision="float32",
        why="the reference that every other recipe is compared with, in float32 throughout, "
        "rid of a slow fusion",
    )


def _static(hardware: Hardware) -> Recipe:
    """int8 from calibration; `exporter.optimize.sensitivity` makes mixed ones of it."""
    reduced = (
        "; layers that may saturate keep seven bits in their weights"
        if adds_pairs_with_saturation(hardware)
        else ""
    )
    return _int8(
        STATIC,
        "qdq",
        why=f"all linear layers in int8 with outliers moved into compensated weights, as close "
        f"alone as in any batch: {_int8_backing(hardware)}{reduced}",
        scheme=QdqScheme(integers="U8S8"),
    )


def _dynamic(hardware: Hardware) -> Recipe:
    reduced = ", seven bits of it" if adds_pairs_with_saturation(hardware) else ""
    return _int8(
        DYNAMIC,
        "ort_dynamic",
        why=f"no calibration: weights in int8 per channel{reduced}, activations by the extremes "
        f"of their batch, on which embeddings then depend: {_int8_backing(hardware)}",
    )


def _int8(name: str, quantizer: Quantizer, *, why: str, scheme: QdqScheme | None = None) -> Recipe:
    return Recipe(
        name=name,
        precision="int8",
        float_precision="float32",
        quantizer=quantizer,
        requires=INT8_FEATURES,
        scheme=scheme,
        embeddings="int8",
        why=why,
    )


def _weights(hardware: Hardware) -> tuple[Recipe, ...]:
    """Block weights of eight and of four bits."""
    backed = _block_backing(hardware)
    described: tuple[tuple[str, Precision, str], ...] = (
        (WEIGHTS, "int8", "a quarter of the size and the closest to float32: 64 weights share"),
        (NARROW_WEIGHTS, "int4", "the smallest, and far from float32: 32 weights share"),
    )
    return tuple(
        Recipe(
            name=name,
            precision=precision,
            float_precision="float32",
            quantizer="matmul_nbits",
            requires=BLOCK_FEATURES,
            embeddings="int8",
            why=f"{what} a scale, activations are rounded row by row: {backed}",
        )
        for name, precision, what in described
    )


def _int8_backing(hardware: Hardware) -> str:
    instruction = accelerated(hardware, "int8", ONNX_RUNTIME)
    if instruction:
        return f"this CPU has the {instruction}"
    plain = next((one for one in PLAIN["int8"] if one.feature in hardware.features), None)
    if plain:
        return f"this CPU has no int8 dot product but {plain.instruction}"
    return "this CPU has no int8 instruction, so it likely loses to float32"


def _block_backing(hardware: Hardware) -> str:
    if hardware.features.isdisjoint(BLOCK_FEATURES):
        return "this CPU has no kernel for them, so they are expanded at every call and lose"
    return f"{_int8_backing(hardware)}, in kernels that gain little over float32's"
