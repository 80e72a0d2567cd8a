"""Which pairs of eight-bit types a CPU multiplies without loss, and where they overflow.

VPMADDUBSW, the int8 product of x86 before VNNI, multiplies unsigned by signed bytes and adds
neighbours in 16 bits with saturation: 2 × 255 × 127 is twice what fits. Weights of seven bits fit,
and so do widened products. ARM's dot products add in 32 bits; before them, ONNX Runtime adds two
signed products in 16 bits, where 2 × −128 × −128 is one more than fits.

Seen with MatMulInteger of ONNX Runtime 1.32 on QEMU: on Haswell it differs from exact integers for
U8S8 only, and not when weights keep seven bits; on Cortex-A53 and A72 for S8S8 only, and not when
weights stay in −127..127; on Cortex-A76, Neoverse N1 and N2 never.
"""

from __future__ import annotations

from dataclasses import dataclass

from targets.contract import Hardware, IntegerScheme
from targets.hardware.precisions import ONNX_RUNTIME, OPENVINO, adds_pairs_with_saturation


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemeSafety:
    """What becomes of products of two eight-bit types.

    Args:
        integers: types of activations and weights.
        exact: no sum can saturate, whatever the values.
        note: why, and what to do where it is not exact.
    """

    integers: IntegerScheme
    exact: bool
    note: str


def int8_schemes(hardware: Hardware, runtime: str = "") -> tuple[SchemeSafety, ...]:
    """Return what a runtime's int8 schemes do on this hardware, the fastest first."""
    if hardware.architecture != "x86_64":
        schemes = _by_dot_product() if _has_dot_product(hardware) else _by_widening()
    elif adds_pairs_with_saturation(hardware):
        schemes = _through_16_bits(runtime)
    else:
        schemes = _by_vnni(runtime)
    if runtime.startswith(OPENVINO):
        # OpenVINO multiplies signed weights only.
        return tuple(one for one in schemes if one.integers != "U8U8")
    return schemes


def safe_int8_schemes(hardware: Hardware, runtime: str = "") -> tuple[IntegerScheme, ...]:
    """Return the schemes that cannot saturate on this hardware, the fastest first."""
    return tuple(one.integers for one in int8_schemes(hardware, runtime) if one.exact)


def _has_dot_product(hardware: Hardware) -> bool:
    return not hardware.features.isdisjoint(("asimddp", "i8mm"))


def _by_dot_product() -> tuple[SchemeSafety, ...]:
    note = "products are added in 32 bits"
    return (
        SchemeSafety(integers="S8S8", exact=True, note=note),
        SchemeSafety(integers="U8S8", exact=True, note=note),
        SchemeSafety(integers="U8U8", exact=True, note=note),
    )


def _by_widening() -> tuple[SchemeSafety, ...]:
    note = "each product of 16 bits is added in 32 bits"
    signed = "SMLAL adds two products in 16 bits: exact only with weights in -127..127"
    return (
        SchemeSafety(integers="S8S8", exact=False, note=signed),
        SchemeSafety(integers="U8S8", exact=True, note=note),
        SchemeSafety(integers="U8U8", exact=True, note=note),
    )


def _by_vnni(runtime: str) -> tuple[SchemeSafety, ...]:
    slow = (
        "no kernel of its own in ONNX Runtime on x86, slower than float32"
        if runtime.startswith(ONNX_RUNTIME)
        else "signed products by AMX (TDPBSSD), without it turned into U8S8 by an offset"
    )
    return (
        SchemeSafety(integers="U8S8", exact=True, note="VPDPBUSD adds products in 32 bits"),
        SchemeSafety(integers="U8U8", exact=True, note="widened to 16 bits before the product"),
        SchemeSafety(integers="S8S8", exact=True, note=slow),
    )


def _through_16_bits(runtime: str) -> tuple[SchemeSafety, ...]:
    """Order by speed too: VPMADDUBSW takes twice as many values as widened products.

    oneDNN, which OpenVINO multiplies with, turns S8S8 into U8S8.
    """
    widened = runtime.startswith(ONNX_RUNTIME)
    return (
        SchemeSafety(
            integers="U8S8",
            exact=False,
            note="VPMADDUBSW adds pairs in 16 bits and saturates: exact only with seven-bit "
            "weights (reduce_range)",
        ),
        SchemeSafety(integers="U8U8", exact=True, note="widened to 16 bits before the product"),
        SchemeSafety(
            integers="S8S8",
            exact=widened,
            note="widened to 16 bits by a generic kernel, slower than float32"
            if widened
            else "turned into U8S8 by an offset, and saturates like it",
        ),
    )
