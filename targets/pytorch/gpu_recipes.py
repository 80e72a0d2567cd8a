"""Which recipes PyTorch is given on which NVIDIA GPU, and why; figures are in `docs/torch.md`."""

from __future__ import annotations

from targets.contract import Hardware, Precision, Quantizer, Recipe
from targets.hardware.gpu_hardware import TENSOR_CORE
from targets.hardware.gpus import TensorFormat

OUTLIER_THRESHOLD = 6.0
"""Magnitude of outliers in LLM.int8 (arXiv:2208.07339, section 3.2) and in bitsandbytes."""


def gpu_recipes_for(hardware: Hardware) -> tuple[Recipe, ...]:
    """Return the recipes for one GPU, the FP32 baseline first, the more promising before others.

    torchao's need bfloat16 beside their integers, so that Turing is left without them.
    """
    return (
        _float("float32", (), "the reference that every other recipe is compared with, TF32 off"),
        _float(
            "float16",
            _tensor("float16"),
            f"{_multiplies(hardware, 'float16')}; finer than bfloat16, within a smaller range",
        ),
        *(_with_bfloat16(hardware) if _has(hardware, "bfloat16") else ()),
        _recipe(
            "int8-outliers",
            "int8",
            "float16",
            "bnb_int8",
            _tensor("int8"),
            f"bitsandbytes' LLM.int8: activations above {OUTLIER_THRESHOLD:g} are multiplied in "
            "float16, everything else in int8",
        ),
        _recipe(
            "nf4-weights",
            "int4",
            "float16",
            "bnb_nf4",
            (),
            "bitsandbytes: weights on 16 levels that are normal quantiles, unpacked before the "
            "product",
        ),
    )


def _with_bfloat16(hardware: Hardware) -> tuple[Recipe, ...]:
    return (
        _float("bfloat16", _tensor("bfloat16"), "the range of float32 with eight bits of mantissa"),
        _recipe(
            "float8-dynamic",
            "float8",
            "bfloat16",
            "torchao_dynamic",
            _tensor("fp8"),
            "torchao: weights in float8 (E4M3) per channel, activations per token at run time: "
            f"{_multiplies(hardware, 'fp8')}",
        ),
        _recipe(
            "int8-dynamic",
            "int8",
            "bfloat16",
            "torchao_dynamic",
            _tensor("int8"),
            "torchao: weights in int8 per channel, activations per token at run time: "
            f"{_multiplies(hardware, 'int8')}",
        ),
        _recipe(
            "int8-weights",
            "int8",
            "bfloat16",
            "torchao_weight_only",
            (),
            "torchao: weights take half of bfloat16's and are widened before the product",
        ),
        _recipe(
            "int4-weights",
            "int4",
            "bfloat16",
            "torchao_weight_only",
            _tensor("bfloat16"),
            "torchao: 32 weights share a scale and lie packed for the kernel that unpacks them "
            "inside the product",
        ),
    )


def _tensor(tensor_format: TensorFormat) -> tuple[str, ...]:
    return (TENSOR_CORE.format(tensor_format),)


def _has(hardware: Hardware, tensor_format: TensorFormat) -> bool:
    return TENSOR_CORE.format(tensor_format) in hardware.features


def _multiplies(hardware: Hardware, tensor_format: TensorFormat) -> str:
    if _has(hardware, tensor_format):
        return f"the tensor cores of {hardware.microarchitecture} multiply it"
    return f"{hardware.microarchitecture} has no tensor cores for it"


def _float(precision: Precision, requires: tuple[str, ...], why: str) -> Recipe:
    return _recipe(precision, precision, precision, "none", requires, why)


def _recipe(
    name: str,
    precision: Precision,
    float_precision: Precision,
    quantizer: Quantizer,
    requires: tuple[str, ...],
    why: str,
) -> Recipe:
    """Return a recipe whose tables are stored in its float precision: nothing widens them here."""
    return Recipe(
        name=name,
        precision=precision,
        float_precision=float_precision,
        quantizer=quantizer,
        requires=requires,
        embeddings=float_precision,
        outlier_threshold=OUTLIER_THRESHOLD if quantizer == "bnb_int8" else None,
        why=why,
    )
