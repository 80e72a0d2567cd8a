"""Which recipes OpenVINO is given on which CPU, and why; figures are in `docs/openvino.md`.

The rest of an int8 recipe (LayerNorm, softmax, residuals) runs in the best float of the CPU.
That is bfloat16 only with AMX: with AVX512-BF16 alone the whole model ran 1.3 to 1.8 times slower
than in float32, because residuals stay in float32 and every layer converts back and forth.
"""

from __future__ import annotations

from collections.abc import Mapping

from targets.contract import Hardware, LayerOverride, Precision, QdqScheme, Recipe
from targets.errors import CompileError
from targets.hardware.precisions import (
    accelerated,
    adds_pairs_with_saturation,
    backing_features,
)

FLOAT32 = "float32"
ATTENTION_PRODUCTS = "attention.matmul"
"""Pattern of the two products inside each attention."""
FFN_DOWN = "ffn.down"
"""Pattern of the linear layer that ends each feed-forward block."""

BFLOAT16_FEATURES = ("amx_bf16", "avx512_bf16")
FLOAT16_FEATURES = ("asimdhp", "fphp")
DYNAMIC_FEATURES = ("avx512_vnni", "avx_vnni")
"""What OpenVINO quantizes activations at run time with (x86 only)."""

ACTIVATION_GROUPS: Mapping[str, int] = {"int8-dynamic": 32, "int8-dynamic-128": 128}
"""Recipe name → how many neighbouring activations of a token share a scale at run time.

Recipes that are not named here quantize no activations at run time.
"""

_LAYOUTS: tuple[tuple[str, Precision], ...] = (
    ("none", "float32"),
    ("none", "bfloat16"),
    ("none", "float16"),
    ("nncf_ptq", "int8"),
    ("nncf_weight_only", "int8"),
    ("qdq", "int8"),
)
"""(quantizer, precision) that can be compiled."""

_STORED: tuple[Precision, ...] = ("float32", "float16", "int8")
"""What embedding tables can be stored in."""


def best_float(hardware: Hardware) -> Precision:
    """Return the float precision that this CPU is fastest in."""
    if "amx_bf16" in hardware.features:
        return "bfloat16"
    if not hardware.features.isdisjoint(FLOAT16_FEATURES):
        return "float16"
    return "float32"


def loaders_float(hardware: Hardware) -> Precision:
    """Return the float precision that OpenVINO takes on this CPU when nobody tells it.

    Static int8 keeps the rest in that, so that a loader without options computes what was
    measured; beside int8 products it was as fast and as close as float32 on AVX512-BF16 without
    AMX, where a model without int8 layers is not.
    """
    if _has(hardware, BFLOAT16_FEATURES):
        return "bfloat16"
    return "float16" if _has(hardware, FLOAT16_FEATURES) else "float32"


def recipes_for(hardware: Hardware) -> tuple[Recipe, ...]:
    """Return the recipes for one CPU, the FP32 baseline first.

    A recipe whose `requires` names features is worth trying where any one of them is there
    (`targets.hardware.precisions.is_backed`); int8 recipes are listed without them too, so
    that they can be forced.
    """
    rest = best_float(hardware)
    return (
        _baseline(),
        _static(hardware, loaders_float(hardware)),
        *_floats(hardware),
        *(_dynamic() if rest == "float32" and _has(hardware, DYNAMIC_FEATURES) else ()),
        *_calibrated(hardware, rest),
        _weights_only(hardware, rest),
    )


def check_recipe(recipe: Recipe) -> None:
    """Refuse what OpenVINO cannot be given.

    Raises:
        CompileError: names the recipe and what is wrong with it.
    """
    refused = _why_refused(recipe)
    if refused:
        raise CompileError(
            f"recipe {recipe.name!r} is none of OpenVINO's",
            why=refused,
            hint="`exporter targets openvino` lists the recipes of this device",
        )


def _why_refused(recipe: Recipe) -> str:
    if (recipe.quantizer, recipe.precision) not in _LAYOUTS:
        return f"precision {recipe.precision} by quantizer {recipe.quantizer!r} cannot be built"
    if recipe.float_precision == "int8":
        return "float_precision is int8"
    if recipe.quantizer == "none" and recipe.float_precision != recipe.precision:
        return f"a float recipe in {recipe.precision} leaves nothing for {recipe.float_precision}"
    if recipe.quantizer == "none" and recipe.overrides:
        return "a float recipe runs all layers in one precision and takes no overrides"
    if recipe.quantizer == "qdq" and recipe.scheme is None:
        return "it does not say how integers stand for floats"
    if recipe.quantizer == "qdq" and recipe.embeddings not in _STORED:
        return f"embedding tables in {recipe.embeddings} cannot be stored"
    # Only our own graph can take back into int8 what an earlier override left in float.
    possible = {recipe.float_precision, *(["int8"] if recipe.quantizer == "qdq" else [])}
    strange = [o for o in recipe.overrides if o.precision not in possible]
    if strange:
        kept = recipe.float_precision
        return f"{strange[0].pattern!r} asks for {strange[0].precision}; layers stay in {kept}"
    return ""


def _has(hardware: Hardware, features: tuple[str, ...]) -> bool:
    return not hardware.features.isdisjoint(features)


def _baseline() -> Recipe:
    why = "the reference that every other recipe is compared with, in float32 throughout"
    return Recipe(name=FLOAT32, precision="float32", float_precision="float32", why=why)


def _floats(hardware: Hardware) -> tuple[Recipe, ...]:
    found: list[Recipe] = []
    if _has(hardware, BFLOAT16_FEATURES):
        found.append(_float("bfloat16", BFLOAT16_FEATURES, _why_bfloat16(hardware)))
    if _has(hardware, FLOAT16_FEATURES):
        why = f"this CPU has the {accelerated(hardware, 'float16')}, twice as wide as float32's"
        found.append(_float("float16", FLOAT16_FEATURES, why))
    return tuple(found)


def _float(precision: Precision, requires: tuple[str, ...], why: str) -> Recipe:
    return Recipe(
        name=precision, precision=precision, float_precision=precision, requires=requires, why=why
    )


def _why_bfloat16(hardware: Hardware) -> str:
    if "amx_bf16" in hardware.features:
        return f"this CPU has the {accelerated(hardware, 'bfloat16')}, and embeddings hardly move"
    instruction = accelerated(hardware, "bfloat16")
    return f"this CPU has the {instruction} but no AMX, so it may well lose to float32"


def _static(hardware: Hardware, rest: Precision) -> Recipe:
    """int8 by our own Q/DQ graph; `exporter.optimize.sensitivity` makes mixed ones of it."""
    return Recipe(
        name="int8-static",
        precision="int8",
        float_precision=rest,
        quantizer="qdq",
        requires=backing_features("int8"),
        scheme=QdqScheme(integers="U8S8"),
        embeddings="int8",
        why=f"all linear layers in int8 with outliers moved into compensated weights, attention "
        f"and the rest in {rest}: {_int8_backing(hardware)}",
    )


def _dynamic() -> tuple[Recipe, ...]:
    """int8 without calibration: weights ahead of time, activations per token at run time."""
    return tuple(
        Recipe(
            name=name,
            precision="int8",
            float_precision="float32",
            quantizer="nncf_weight_only",
            requires=DYNAMIC_FEATURES,
            why=f"VPDPBUSD (VNNI) multiplies int8 weights with activations that are quantized "
            f"per token in groups of {group}, so outliers stay local and no calibration is needed",
        )
        for name, group in ACTIVATION_GROUPS.items()
    )


def _calibrated(hardware: Hardware, rest: Precision) -> tuple[Recipe, ...]:
    """int8 with scales from calibration, leaving more and more layers in float."""
    backed = _int8_backing(hardware)
    attention = LayerOverride(pattern=ATTENTION_PRODUCTS, precision=rest)
    ffn_down = LayerOverride(pattern=FFN_DOWN, precision=rest)
    # Beside float32, attention fuses with or without int8 products: as fast and no closer.
    fused = _attention_float(rest, attention, backed) if rest != "float32" else ()
    return (
        _ptq(
            "int8",
            rest,
            (),
            f"NNCF's own choice for transformers, linear layers and query-key products in int8, "
            f"the rest in {rest}: {backed}",
        ),
        *fused,
        _ptq(
            "int8-mixed",
            rest,
            (attention, ffn_down),
            f"the layers that end feed-forward blocks lose most in int8 and stay in {rest} with "
            f"attention, the other linear layers are int8: {backed}",
        ),
    )


def _attention_float(rest: Precision, attention: LayerOverride, backed: str) -> tuple[Recipe, ...]:
    why = (
        f"the products inside attention stay in OpenVINO's fused {rest} kernel, the linear "
        f"layers are int8: {backed}"
    )
    return (_ptq("int8-attention-float", rest, (attention,), why),)


def _ptq(name: str, rest: Precision, overrides: tuple[LayerOverride, ...], why: str) -> Recipe:
    return Recipe(
        name=name,
        precision="int8",
        float_precision=rest,
        quantizer="nncf_ptq",
        overrides=overrides,
        requires=backing_features("int8"),
        why=why,
    )


def _int8_backing(hardware: Hardware) -> str:
    instruction = accelerated(hardware, "int8")
    if instruction:
        return f"this CPU has the {instruction}"
    saturates = " and saturates at 16 bits" if adds_pairs_with_saturation(hardware) else ""
    return f"this CPU has no int8 dot product, so it likely loses to float{saturates}"


def _weights_only(hardware: Hardware, rest: Precision) -> Recipe:
    instruction = accelerated(hardware, rest) or "float32 kernels"
    return Recipe(
        name="int8-weights",
        precision="int8",
        float_precision=rest,
        quantizer="nncf_weight_only",
        why=f"a quarter of the size: weights are stored in int8 and multiplied in {rest} by "
        f"{instruction}",
    )
