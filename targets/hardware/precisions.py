"""Which instructions make a precision fast, as data; live flags decide.

float16 is missing on x86 although AVX512-FP16 exists: neither OpenVINO nor ONNX Runtime gains
from it on CPUs that have it; both run slower than in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from targets.contract import Hardware, Precision, Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Backing:
    """A CPU feature (the kernel's name) and the instruction it brings, in words."""

    feature: str
    instruction: str


BACKINGS: Mapping[Precision, tuple[Backing, ...]] = {
    "float32": (),
    "bfloat16": (
        Backing(feature="amx_bf16", instruction="AMX tile product TDPBF16PS"),
        Backing(feature="avx512_bf16", instruction="AVX512-BF16 dot product VDPBF16PS"),
        Backing(feature="bf16", instruction="ARM bfloat16 matrix product BFMMLA"),
    ),
    "float16": (
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
    "int4": (),
}
"""Precision → what backs it, the strongest first."""


def backing(hardware: Hardware, precision: Precision) -> Backing | None:
    """Return the strongest thing that backs a precision on this hardware, if there is any."""
    return next((one for one in BACKINGS[precision] if one.feature in hardware.features), None)


def accelerated(hardware: Hardware, precision: Precision) -> str | None:
    """Name the instruction that backs a precision on this hardware; None: nothing does.

    float32 is what every CPU computes in, so nothing in particular backs it: None.
    """
    found = backing(hardware, precision)
    return found.instruction if found else None


def backing_features(precision: Precision) -> tuple[str, ...]:
    """Return every feature that backs a precision, for `Recipe.requires`."""
    return tuple(one.feature for one in BACKINGS[precision])


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
