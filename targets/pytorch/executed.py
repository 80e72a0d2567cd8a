"""What one batch executed, as torch's profiler saw it: operators by type and precision.

Imports the standard library only: the session adapter loads this file by its path.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

Row = tuple[str, str, int, float | None]

_PRODUCTS = {
    "aten::addmm": "",
    "aten::mm": "",
    "aten::bmm": "",
    "aten::baddbmm": "",
    "aten::mkldnn_linear": "",
    "aten::_int_mm": "int8",
    "aten::_scaled_mm": "float8",
    "aten::_scaled_mm_v2": "float8",
    "aten::_weight_int4pack_mm": "int4",
    "aten::_weight_int8pack_mm": "int8",
    "mkldnn::_linear_pointwise": "",
    "mkl::_mkl_linear": "",
    "onednn::qlinear_pointwise": "int8",
    "quantized::linear_dynamic": "int8",
}
"""Operators that multiply matrices → what they compute in; "": in what they read."""
_PERHAPS = {
    "aten::linear": "",
    "aten::matmul": "",
    "bitsandbytes::int8_linear_matmul": "int8",
    "bitsandbytes::int8_linear_matmul.out": "int8",
    "bitsandbytes::gemm_4bit": "int4",
    "bitsandbytes::gemv_4bit": "int4",
}
"""Operators that multiply by themselves, or through others, which then count instead.

On a CPU without AVX-512 bitsandbytes 0.50 widens its integers and multiplies them by `aten::mm`.
"""
_FUSED = "triton_"
"""How kernels begin that torch.compile makes for a GPU."""
_NOT_A_PRODUCT = (("matmul", "mat-mul"), ("gemm", "ge-mm"), ("gemv", "ge-mv"))
"""How names are changed that would otherwise pass for products."""
_DTYPES = {
    "float": "float32",
    "double": "float64",
    "c10::BFloat16": "bfloat16",
    "c10::Half": "float16",
    "c10::Float8_e4m3fn": "float8",
    "signed char": "int8",
    "unsigned char": "uint8",
    "int": "int32",
    "long int": "int64",
    "long": "int64",
    "bool": "bool",
}
"""How the profiler names types."""


def rows_of(profile: Any) -> list[Row]:  # noqa: ANN401 - torch is untyped
    """Return operators, the precision they computed in, how many and their share of the time.

    Args:
        profile: of `torch.profiler`, its shapes recorded.
    """
    return _aggregate(profile.events(), _types_read(profile))


def _types_read(profile: Any) -> dict[int, list[str]]:  # noqa: ANN401 - torch is untyped
    """Return what each event read; the events of torch before 2.13 do not keep it themselves."""
    raw = profile.profiler.kineto_results.events()
    return {one.correlation_id(): types for one in raw if any(types := one.dtypes())}


def _aggregate(events: Any, types_read: Mapping[int, list[str]]) -> list[Row]:  # noqa: ANN401
    """Count operators and share out time by name and type, the longest first."""
    counts: defaultdict[tuple[str, str], int] = defaultdict(int)
    spent_us: defaultdict[tuple[str, str], float] = defaultdict(float)
    seen = [one for one in events if one.self_cpu_time_total > 0 and _is_operator(one.name)]
    on_gpu = any(one.self_device_time_total > 0 for one in seen)
    for event in seen:
        row = (_op_type(event), _executed_dtype(event, types_read.get(event.id, [])))
        counts[row] += 1
        spent_us[row] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    total_us = sum(spent_us.values())
    rows = sorted(counts, key=lambda row: (-spent_us[row], row))
    return [(*row, counts[row], spent_us[row] / total_us if total_us else None) for row in rows]


def _is_operator(name: str) -> bool:
    """Tell operators, and kernels that torch.compile made for a GPU, from other events."""
    return "::" in name or name.startswith(_FUSED)


def _op_type(event: Any) -> str:  # noqa: ANN401
    """Name an operator; what multiplies matrices is called MatMul, whoever it belongs to."""
    if event.name.startswith(_FUSED):
        return "Fused"
    name = str(event.name).partition("::")[2]
    if _multiplies(event):
        return f"MatMul ({name})"
    for product, other in _NOT_A_PRODUCT:
        name = name.replace(product, other)
    return name


def _multiplies(event: Any) -> bool:  # noqa: ANN401
    if event.name in _PRODUCTS:
        return True
    return event.name in _PERHAPS and not _has_product(event)


def _has_product(event: Any) -> bool:  # noqa: ANN401
    return any(
        one.name in _PRODUCTS or one.name in _PERHAPS or _has_product(one)
        for one in event.cpu_children
    )


def _executed_dtype(event: Any, types_read: list[str]) -> str:  # noqa: ANN401
    """Name the precision that an operator computes in: its first tensor's, unless it is known."""
    known = (_PRODUCTS | _PERHAPS).get(event.name, "") if _multiplies(event) else ""
    if known:
        return known
    names = [_DTYPES[name] for name in types_read if name in _DTYPES]
    return names[0] if names else "unknown"
