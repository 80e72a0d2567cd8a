"""The source model as one ONNX graph with pooling and normalization inside."""

from __future__ import annotations

from pathlib import Path

from exporter.source.encoder import LoadedEncoder
from exporter.source.onnx_file import (
    GRAPH_FILE,
    MAX_INLINE_WEIGHTS_BYTES,
    describe,
    read_onnx_artifact,
    write_model,
)
from exporter.source.onnx_names import name_by_module
from exporter.source.onnx_trace import BATCH_AXIS, SEQUENCE_AXIS, trace
from exporter.source.torch_module import INPUT_NAMES, OUTPUT_NAMES
from targets.contract import OnnxArtifact, Progress, no_progress
from targets.errors import ExportError

DEFAULT_OPSET = 20
"""The first with Gelu as one operator; TensorRT's float16 Q/DQ needs 19 or more."""

_STEPS = 3


def export_onnx(
    encoder: LoadedEncoder,
    directory: Path,
    *,
    opset: int = DEFAULT_OPSET,
    progress: Progress = no_progress,
    max_inline_bytes: int = MAX_INLINE_WEIGHTS_BYTES,
) -> OnnxArtifact:
    """Write `model.onnx` into `directory`; the same model gives the same bytes.

    Inputs are `input_ids`, `attention_mask` and, where the architecture takes it,
    `token_type_ids`, int64 [batch_size, sequence_length]; outputs `last_hidden_state` and
    `sentence_embedding`, float32.

    Args:
        encoder: the loaded model.
        directory: an existing folder.
        opset: version of ONNX's operators.
        progress: called after each of three steps: traced, written and checked, read back.
        max_inline_bytes: weights above this go to one file `model.onnx_data`.

    Raises:
        ExportError: if torch cannot export the model or the graph is not as promised.
        StorageError: if it cannot be written.
    """
    model = trace(encoder, opset)
    name_by_module(model)
    describe(model, encoder.spec)
    progress(1, _STEPS)
    path = directory / GRAPH_FILE
    write_model(model, path, max_inline_bytes)
    del model
    progress(2, _STEPS)
    artifact = read_onnx_artifact(path)
    _check_signature(artifact, encoder, opset)
    progress(3, _STEPS)
    return artifact


def _check_signature(artifact: OnnxArtifact, encoder: LoadedEncoder, opset: int) -> None:
    axes = (BATCH_AXIS, SEQUENCE_AXIS)
    inputs = INPUT_NAMES[: 3 if encoder.takes_token_type_ids else 2]
    found = [(tensor.name, tensor.dtype, tensor.shape[:2]) for tensor in artifact.inputs]
    expected = [(name, "int64", axes) for name in inputs]
    if found != expected:
        raise ExportError("the graph's inputs are not as promised", why=f"they are {found}")
    embedding = artifact.outputs[-1].shape
    names = tuple(tensor.name for tensor in artifact.outputs)
    if names != OUTPUT_NAMES or embedding != (BATCH_AXIS, encoder.spec.embedding_dim):
        raise ExportError(
            "the graph's outputs are not as promised", why=f"they are {names}, {embedding}"
        )
    if artifact.outputs[0].shape[:2] != axes:
        raise ExportError(
            "the graph is made for one shape only", why=f"{artifact.outputs[0].shape}"
        )
    if artifact.opset != opset:
        raise ExportError(
            f"the graph has opset {artifact.opset}, not {opset}",
            why="torch could not convert it",
            hint=f"ask for opset {artifact.opset}",
        )


__all__ = ["DEFAULT_OPSET", "export_onnx", "read_onnx_artifact"]
