"""What TensorRT's engine inspector says of an engine: how many layers of which kind and type.

Imports the standard library only: the session adapter loads this file by its path. Field names are
those of the inspector's JSON in NVIDIA's developer guide ("Engine Inspector"); an engine built
without `ProfilingVerbosity.DETAILED` gives bare names, and no row.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

Row = tuple[str, str, int, float | None]
GEMM, FUSED, REFORMAT = "gemm", "fused attention", "reformat"
_TYPES = (
    (re.compile(r"int8", re.I), "int8"),
    (re.compile(r"fp8", re.I), "float8"),
    (re.compile(r"bf16|bfloat16", re.I), "bfloat16"),
    (re.compile(r"fp16|half|float16", re.I), "float16"),
    (re.compile(r"int64", re.I), "int64"),
    (re.compile(r"int32", re.I), "int32"),
    (re.compile(r"bool", re.I), "bool"),
    (re.compile(r"fp32|float", re.I), "float32"),
)
"""In this order: "bfloat16" holds "float16", and that holds "float"."""
_GEMM = re.compile(r"gemm|matrix_?multiply|matmul", re.I)
_ATTENTION = re.compile(r"_mha|\bmha\b", re.I)
"""Myelin's name for a whole attention in one kernel; "attention" alone is in every node's path."""


def rows_of(text: str) -> list[Row]:
    """Count an engine's layers.

    Args:
        text: from `EngineInspector.get_engine_information`, format JSON.

    Returns:
        Kind, type, count and None (no time was taken), the most frequent first.

    Raises:
        ValueError: it is no such JSON, or names layers without saying what they are.
    """
    layers = json.loads(text)["Layers"] if text.strip() else []
    bare = [layer for layer in layers if not isinstance(layer, dict)]
    if bare or not layers:
        raise ValueError(
            "the engine does not describe its layers: build it with detailed verbosity"
        )
    counted = Counter((_kind(layer), _type(layer)) for layer in layers)
    rows = sorted(counted.items(), key=lambda row: (-row[1], row[0]))
    return [(kind, dtype, count, None) for (kind, dtype), count in rows]


def _kind(layer: Mapping[str, Any]) -> str:
    kind = str(layer.get("LayerType", "unknown"))
    name = str(layer.get("Name", ""))
    if kind.lower() == REFORMAT:
        return REFORMAT
    if _ATTENTION.search(kind) or _ATTENTION.search(name):
        return FUSED
    if _GEMM.search(kind) or _GEMM.search(str(layer.get("TacticName", ""))):
        return GEMM
    return kind


def _type(layer: Mapping[str, Any]) -> str:
    """Return what a layer computes in: the type of its first input."""
    ends = layer.get("Inputs") or layer.get("Outputs") or [{}]
    told = str(ends[0].get("Format/Datatype", ends[0].get("Datatype", "")))
    return next((name for pattern, name in _TYPES if pattern.search(told)), "unknown")
