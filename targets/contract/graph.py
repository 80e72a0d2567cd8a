"""The FP32 graph that every target starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """A graph input or output; a dimension is a size or a symbolic name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxArtifact:
    """The FP32 graph: pooling and normalization inside, dynamic batch and sequence.

    `path` is the `.onnx` file; weights over 2 GB lie beside it in `<file>.onnx_data`.
    `sha256` covers the graph file and its external data.
    """

    path: Path
    sha256: str
    opset: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    model_id: str
    revision: str | None
    embedding_dim: int
    pooling: str
    normalized: bool
    max_seq_length: int
