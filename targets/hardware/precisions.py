"""Which instructions make a precision fast, as data; live flags decide.

What a CPU has is one thing, what a runtime multiplies with is another: `UNUSED` names the
instructions that a runtime leaves alone, each with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from targets.contract import PRECISIONS, Hardware, Precision, Recipe
from targets.hardware.gpu_hardware import TENSOR_CORE
from targets.hardware.gpus import TensorFormat

OPENVINO = "OpenVINO"
ONNX_RUNTIME = "ONNX Runtime"
"""How the contract's `TargetSpec.runtime` begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backing:
    """A CPU feature (the kernel's name) and the instruction it brings, in words."""

    feature: str
    instruction: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unused:
    """Features that a runtime does not multiply with in a precision.

    Args:
        runtime: how the runtime's name begins; "" for every runtime.
        why: the reason, a sentence without a full stop.
    """

    runtime: str
    precision: Precision
    features: frozenset[str]
    why: str


BACKINGS: Mapping[Precision, tuple[Backing, ...]] = {
    "float32": (),
    "bfloat16": (
        Backing(feature="amx_bf16", instruction="AMX tile product TDPBF16PS"),
        Backing(feature="avx512_bf16", instruction="AVX512-BF16 dot product VDPBF16PS"),
        Backing(feature="bf16", instruction="ARM bfloat16 matrix product BFMMLA"),
    ),
    "float16": (
        Backing(feature="avx512_fp16", instruction="AVX512-FP16 VFMADDPH"),
        Backing(feature="asimdhp", instruction="ARM half-precision vector FMLA"),
        Backing(feature="fphp", instruction="ARM half-precision scalar FMADD"),
    ),
    "int8": (
        Backing(feature="amx_int8", instruction="AMX tile product TDPBUSD"),
        Backing(feature="avx512_vnni", instruction="AVX512-VNNI dot product VPDPBUSD"),
        Backing(feature="avx_vnni", instruction="AVX-VNNI dot product VPDPBUSD"),
        Backing(feature="i8mm", instruction="ARM int8 matrix product SMMLA"),
        Backing(feature="asimddp", instruction="ARM dot product SDOT"),
    ),
    "float8": (),
    "int4": (),
}
"""Precision → what makes it faster than float32 on a CPU, the strongest first."""


def _tensor_core(tensor_format: TensorFormat) -> Backing:
    return Backing(
        feature=TENSOR_CORE.format(tensor_format),
        instruction=f"tensor core product {tensor_format}",
    )


TENSOR_CORES: Mapping[Precision, Backing] = {
    "bfloat16": _tensor_core("bfloat16"),
    "float16": _tensor_core("float16"),
    "float8": _tensor_core("fp8"),
    "int8": _tensor_core("int8"),
}
"""The same of NVIDIA GPUs. int4 is not among them: no runtime here multiplies two of them."""

PLAIN: Mapping[Precision, tuple[Backing, ...]] = {
    "float32": (
        Backing(feature="avx512f", instruction="AVX-512 VFMADD, 16 values at once"),
        Backing(feature="fma", instruction="FMA3 VFMADD, 8 values at once"),
        Backing(feature="avx", instruction="AVX VMULPS and VADDPS, 8 values at once"),
        Backing(feature="asimd", instruction="NEON FMLA, 4 values at once"),
    ),
    "int8": (
        Backing(feature="avx512bw", instruction="AVX-512 VPMADDUBSW and VPMADDWD"),
        Backing(feature="avx2", instruction="AVX2 VPMADDUBSW and VPMADDWD"),
        Backing(feature="asimd", instruction="NEON widening SMULL, SMLAL and SADALP"),
    ),
}
"""Precision → what a CPU without any of `BACKINGS` multiplies with, the strongest first."""

UNUSED: tuple[Unused, ...] = (
    Unused(
        runtime="",
        precision="float16",
        features=frozenset({"avx512_fp16"}),
        why="OpenVINO and ONNX Runtime both ran slower in float16 than in float32 on such a CPU",
    ),
    Unused(
        runtime=OPENVINO,
        precision="bfloat16",
        features=frozenset({"bf16"}),
        why="OpenVINO computes in float16 on ARM",
    ),
    Unused(
        runtime=ONNX_RUNTIME,
        precision="bfloat16",
        features=frozenset({"amx_bf16", "avx512_bf16"}),
        why="ONNX Runtime's CPU provider has no bfloat16 MatMul (kernel list of 1.32)",
    ),
)
"""What is there and not used. float16 in ONNX Runtime: its aarch64 build has MatMul and Gemm."""


def backings(precision: Precision) -> tuple[Backing, ...]:
    """Return what makes a precision faster than float32, on CPUs and on GPUs."""
    on_gpus = TENSOR_CORES.get(precision)
    return BACKINGS[precision] if on_gpus is None else (*BACKINGS[precision], on_gpus)


def backing(hardware: Hardware, precision: Precision, runtime: str = "") -> Backing | None:
    """Return the strongest thing that backs a precision on this hardware, if there is any.

    Args:
        hardware: live features, or those of a profile.
        precision: what is asked about.
        runtime: `TargetSpec.runtime`; what that runtime does not use does not count. "": only
            what no runtime uses is left out.
    """
    return next(
        (
            one
            for one in backings(precision)
            if one.feature in hardware.features and unused(one.feature, precision, runtime) is None
        ),
        None,
    )


def unused(feature: str, precision: Precision, runtime: str = "") -> Unused | None:
    """Return why a runtime does not use a feature for a precision; None: it does."""
    return next(
        (
            one
            for one in UNUSED
            if one.precision == precision
            and feature in one.features
            and (not one.runtime or (runtime and runtime.startswith(one.runtime)))
        ),
        None,
    )


def accelerated(hardware: Hardware, precision: Precision, runtime: str = "") -> str | None:
    """Name the instruction that backs a precision on this hardware; None: nothing does.

    float32 is what every CPU computes in, so nothing in particular backs it: None.
    """
    found = backing(hardware, precision, runtime)
    return found.instruction if found else None


def accelerated_precisions(hardware: Hardware, runtime: str = "") -> tuple[Precision, ...]:
    """Return the precisions that an instruction of this hardware backs, besides float32."""
    return tuple(one for one in PRECISIONS if backing(hardware, one, runtime))


def backing_features(precision: Precision, runtime: str = "") -> tuple[str, ...]:
    """Return every feature of CPUs that backs a precision, for `Recipe.requires`."""
    return tuple(
        one.feature
        for one in BACKINGS[precision]
        if unused(one.feature, precision, runtime) is None
    )


def is_backed(recipe: Recipe, hardware: Hardware) -> bool:
    """Say whether this hardware has any one of the features that a recipe requires.

    A recipe that requires nothing is always backed. One that is not backed may still be
    forced; trying it unasked would only cost time.
    """
    return not recipe.requires or not hardware.features.isdisjoint(recipe.requires)


def adds_pairs_with_saturation(hardware: Hardware) -> bool:
    """Say whether int8 products of this CPU pass through 16 bits (x86 without VNNI and AMX)."""
    safe = ("avx512_vnni", "avx_vnni", "amx_int8")
    return hardware.architecture == "x86_64" and hardware.features.isdisjoint(safe)
