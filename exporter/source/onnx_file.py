"""The ONNX file: written with its metadata, read back as an `OnnxArtifact`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from exporter.source.model_files import hash_files
from exporter.values import EncoderSpec
from targets.contract import OnnxArtifact, TensorSpec
from targets.errors import ExportError, StorageError

if TYPE_CHECKING:
    import onnx
    import onnx_ir

GRAPH_FILE = "model.onnx"

# A protobuf message cannot exceed 2 GiB; 64 MiB are left for the graph itself.
MAX_INLINE_WEIGHTS_BYTES = (1 << 31) - (1 << 26)


def describe(model: onnx_ir.Model, spec: EncoderSpec) -> None:
    """Write into the model where it comes from; a local folder gives its name, not its path."""
    model.metadata_props.update(
        {
            "model_id": Path(spec.model_id).name if spec.source == "local" else spec.model_id,
            "revision": spec.revision or "",
            "pooling": spec.pooling,
            "normalized": str(spec.normalize).lower(),
            "max_seq_length": str(spec.max_seq_length),
            "embedding_dim": str(spec.embedding_dim),
            "weights_sha256": spec.weights_sha256,
            "tokenizer_sha256": spec.tokenizer_sha256,
            "exporter": _own_version(),
        }
    )


def _own_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"embedding-exporter {version('embedding-exporter')}"
    except PackageNotFoundError:
        return "embedding-exporter (not installed)"


def write_model(model: onnx_ir.Model, path: Path, max_inline_bytes: int) -> None:
    """Write the model; weights above `max_inline_bytes` go to one file `<path>_data` beside it.

    Raises:
        StorageError: if the files cannot be written.
        ExportError: if onnx's checker refuses the written file.
    """
    import onnx
    import onnx_ir

    external = f"{path.name}_data" if _weights_bytes(model) > max_inline_bytes else None
    try:
        onnx_ir.save(model, path, external_data=external)
    except OSError as error:
        raise StorageError(f"{path} cannot be written", why=str(error)) from error
    try:
        # By path, because a model above 2 GiB cannot be checked in memory.
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            "the exported graph is not valid ONNX", why=str(error).splitlines()[0]
        ) from error


def _weights_bytes(model: onnx_ir.Model) -> int:
    values = [value.const_value for value in model.graph.initializers.values()]
    return sum(value.nbytes for value in values if value is not None)


def read_onnx_artifact(path: Path) -> OnnxArtifact:
    """Rebuild the artifact's value from a file that `export_onnx` wrote.

    Raises:
        StorageError: if the file is missing, damaged, or was not written by `export_onnx`.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(str(path), load_external_data=False)
        files = graph_files(path, model)
        metadata = {prop.key: prop.value for prop in model.metadata_props}
        return OnnxArtifact(
            path=path,
            sha256=hash_files(files),
            opset=next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")),
            inputs=tuple(_tensor_spec(value) for value in model.graph.input),
            outputs=tuple(_tensor_spec(value) for value in model.graph.output),
            model_id=metadata["model_id"],
            revision=metadata["revision"] or None,
            embedding_dim=int(metadata["embedding_dim"]),
            pooling=metadata["pooling"],
            normalized=metadata["normalized"] == "true",
            max_seq_length=int(metadata["max_seq_length"]),
        )
    except (OSError, DecodeError, KeyError, ValueError, StopIteration) as error:
        raise StorageError(
            f"{path} is not a graph that this tool exported",
            why=str(error) or repr(error),
            hint="export the model again",
        ) from error


def graph_files(path: Path, model: onnx.ModelProto) -> tuple[Path, ...]:
    """Return the graph file and the files with its external weights."""
    names = {
        entry.value
        for tensor in model.graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return (path, *(path.parent / name for name in sorted(names)))


def _tensor_spec(value: onnx.ValueInfoProto) -> TensorSpec:
    import onnx

    tensor = value.type.tensor_type
    return TensorSpec(
        name=value.name,
        dtype=onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name,
        shape=tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim),
    )
