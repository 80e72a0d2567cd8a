"""Which recipes PyTorch is given on which CPU or GPU, and why; figures are in `docs/torch.md`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from targets.contract import Hardware, Precision, Quantizer, Recipe
from targets.errors import CompileError
from targets.hardware.gpu_hardware import ARCHITECTURE
from targets.hardware.precisions import accelerated, adds_pairs_with_saturation
from targets.pytorch.gpu_recipes import OUTLIER_THRESHOLD, gpu_recipes_for
from targets.pytorch.sdk import BITSANDBYTES, TORCHAO

BFLOAT16_FEATURES = ("amx_bf16", "avx512_bf16", "bf16")
PRODUCT_FEATURES = ("amx_int8", "avx512_vnni", "avx_vnni")
"""What torch._int_mm multiplies with on a CPU, through oneDNN; elsewhere its loops are plain."""
PACKED_FEATURES = ("avx2", "asimd")
"""What FBGEMM (x86) and QNNPACK (ARM), behind torch's own dynamic quantization, are made for."""
GPU_FEATURES = ("cuda",)
"""What LLM.int8 multiplies with and torchao packs four bits for. No CPU is said to have it, so that
what requires it must be asked for."""

_STORED: tuple[Precision, ...] = ("float32", "float16", "bfloat16")
"""What embedding tables can be stored in; loaders widen them to the model's own precision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What a quantizer can build.

    Args:
        precisions: of the layers that it quantizes.
        splits: whether its layers may differ in width, by overrides.
        needs: distributions besides torch and Transformers.
    """

    precisions: tuple[Precision, ...]
    splits: bool = False
    needs: tuple[str, ...] = ()


KINDS: Mapping[Quantizer, Kind] = {
    "none": Kind(precisions=("float32", "bfloat16", "float16")),
    "torchao_dynamic": Kind(precisions=("int8", "float8"), needs=TORCHAO),
    "torchao_weight_only": Kind(precisions=("int8", "int4"), splits=True, needs=TORCHAO),
    "torch_dynamic": Kind(precisions=("int8",)),
    "bnb_int8": Kind(precisions=("int8",), needs=BITSANDBYTES),
    "bnb_nf4": Kind(precisions=("int4",), needs=BITSANDBYTES),
}
"""Quantizer → what it builds here; others are other targets'."""


def recipes_for(hardware: Hardware) -> tuple[Recipe, ...]:
    """Return the recipes for one device, the FP32 baseline first, the more promising before others.

    Recipes whose `requires` names nothing that the device has are listed too, so that they can be
    forced.
    """
    return gpu_recipes_for(hardware) if is_gpu(hardware) else _cpu_recipes_for(hardware)


def is_gpu(hardware: Hardware) -> bool:
    """Say whether artifacts for this hardware run on an NVIDIA GPU."""
    return hardware.architecture == ARCHITECTURE


def _cpu_recipes_for(hardware: Hardware) -> tuple[Recipe, ...]:
    return (
        _float("float32", (), "the reference that every other recipe is compared with"),
        *_bfloat16(hardware),
        _int8(
            "int8-dynamic",
            "torchao_dynamic",
            PRODUCT_FEATURES,
            "torchao: weights in int8 per channel, activations per token at run time, so that "
            "embeddings do not depend on batch mates",
        ),
        _int8("int8-packed-dynamic", "torch_dynamic", PACKED_FEATURES, _why_packed(hardware)),
        _int8(
            "int8-weights",
            "torchao_weight_only",
            (),
            "torchao: weights take a quarter of their size and are multiplied in float32",
        ),
        _int8(
            "int8-weights-half-tables",
            "torchao_weight_only",
            (),
            "int8-weights with embedding tables stored in float16: half of what they take, and "
            "the smallest that stays close",
            embeddings="float16",
        ),
        _int8(
            "int8-outliers",
            "bnb_int8",
            GPU_FEATURES,
            f"bitsandbytes' LLM.int8: activations above {OUTLIER_THRESHOLD:g} are multiplied in "
            "float16, everything else in int8; on a CPU without AVX-512 bitsandbytes "
            "widens both to float32",
            outlier_threshold=OUTLIER_THRESHOLD,
        ),
        _int4(
            "nf4-weights",
            "bnb_nf4",
            (),
            "bitsandbytes: weights on 16 levels that are normal quantiles, an eighth of their "
            "size, unpacked before the product",
        ),
        _int4(
            "int4-weights",
            "torchao_weight_only",
            GPU_FEATURES,
            "torchao: 32 weights share a scale; four bits lie in a byte each and are widened "
            "before the product, so that nothing is gained on int8-weights without a GPU",
        ),
    )


def check_recipe(recipe: Recipe) -> None:
    """Refuse what cannot be built for PyTorch.

    Raises:
        CompileError: names the recipe and what is wrong with it.
    """
    refused = _why_refused(recipe)
    if refused:
        raise CompileError(
            f"recipe {recipe.name!r} is none of PyTorch's",
            why=refused,
            hint="`exporter targets torch` lists the recipes of this device",
        )


def _why_refused(recipe: Recipe) -> str:
    kind = KINDS.get(recipe.quantizer)
    if kind is None or recipe.precision not in kind.precisions:
        return f"precision {recipe.precision} by quantizer {recipe.quantizer!r} cannot be built"
    if recipe.float_precision in ("float8", "int8", "int4"):
        return f"float_precision is {recipe.float_precision}"
    if recipe.quantizer == "none" and recipe.float_precision != recipe.precision:
        return f"a float recipe in {recipe.precision} leaves nothing for {recipe.float_precision}"
    if recipe.quantizer == "none" and recipe.overrides:
        return "a float recipe runs all layers in one precision and takes no overrides"
    if recipe.embeddings not in _STORED:
        return f"embedding tables in {recipe.embeddings} cannot be stored in a PyTorch model"
    if (recipe.outlier_threshold is not None) != (recipe.quantizer == "bnb_int8"):
        return "an outlier threshold belongs to quantizer 'bnb_int8', and to no other"
    if recipe.outlier_threshold is not None and recipe.outlier_threshold < 0:
        return f"the outlier threshold {recipe.outlier_threshold:g} is negative"
    possible = {recipe.precision, recipe.float_precision, *(kind.precisions if kind.splits else ())}
    strange = [one for one in recipe.overrides if one.precision not in possible]
    if strange:
        has = " or ".join(sorted(possible))
        return f"{strange[0].pattern!r} asks for {strange[0].precision}; layers can be {has}"
    return ""


def _float(precision: Precision, requires: tuple[str, ...], why: str) -> Recipe:
    return Recipe(
        name=precision,
        precision=precision,
        float_precision=precision,
        requires=requires,
        embeddings=precision,
        why=why,
    )


def _bfloat16(hardware: Hardware) -> tuple[Recipe, ...]:
    """Elsewhere bfloat16 is widened value by value, five times slower than float32 on AVX2."""
    instruction = accelerated(hardware, "bfloat16")
    if instruction is None:
        return ()
    why = f"this CPU has the {instruction}, and embeddings hardly move"
    return (_float("bfloat16", BFLOAT16_FEATURES, why),)


def _why_packed(hardware: Hardware) -> str:
    halved = ", activations keep seven bits" if adds_pairs_with_saturation(hardware) else ""
    return (
        f"torch's own dynamic quantization: weights in int8 per layer{halved}, activations by the "
        "extremes of their batch, on which embeddings then depend; stored in float32 and quantized "
        "when it is loaded"
    )


def _int8(
    name: str,
    quantizer: Quantizer,
    requires: tuple[str, ...],
    why: str,
    *,
    outlier_threshold: float | None = None,
    embeddings: Precision = "float32",
) -> Recipe:
    return Recipe(
        name=name,
        precision="int8",
        float_precision="float32",
        quantizer=quantizer,
        requires=requires,
        outlier_threshold=outlier_threshold,
        embeddings=embeddings,
        why=why,
    )


def _int4(name: str, quantizer: Quantizer, requires: tuple[str, ...], why: str) -> Recipe:
    return Recipe(
        name=name,
        precision="int4",
        float_precision="float32",
        quantizer=quantizer,
        requires=requires,
        why=why,
    )
