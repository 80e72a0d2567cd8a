"""The ONNX file: reproducible, complete, and refused where it is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from exported_model import Exported
from tiny_models import HIDDEN, MAX_LENGTH

from exporter.source.encoder import LoadedEncoder
from exporter.source.onnx_export import export_onnx, read_onnx_artifact
from exporter.source.onnx_file import MAX_INLINE_WEIGHTS_BYTES, write_model
from exporter.source.parity import LEAST_COSINE, check_parity
from exporter.source.torch_module import build_module
from targets.contract import OnnxArtifact
from targets.errors import ExportError, NonFiniteError, ParityError, StorageError
from targets.hashing import sha256_file


def test_same_model_same_bytes_in_silence(
    bert: Exported, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    steps: list[tuple[int, int | None]] = []
    again = export_onnx(
        bert.encoder, tmp_path, progress=lambda n, total=None: steps.append((n, total))
    )
    assert again.sha256 == bert.artifact.sha256
    assert steps == [(1, 3), (2, 3), (3, 3)]
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_same_bytes_from_another_process(bert: Exported, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from exporter.source.encoder import load_encoder\n"
        "from exporter.source.onnx_export import export_onnx\n"
        "from exporter.source.resolve import resolve_encoder\n"
        "encoder = load_encoder(resolve_encoder(sys.argv[1]))\n"
        "print(export_onnx(encoder, Path(sys.argv[2])).sha256)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(bert.folder), str(tmp_path)],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [bert.artifact.sha256]
    assert done.stderr == ""


def test_nothing_of_this_machine_is_in_the_file(bert: Exported) -> None:
    data = bert.artifact.path.read_bytes()
    for trace in (b"site-packages", str(bert.folder.parent).encode(), b'File "', b"stack_trace"):
        assert trace not in data


def test_metadata(bert: Exported) -> None:
    model = onnx.load(str(bert.artifact.path))
    metadata = {prop.key: prop.value for prop in model.metadata_props}
    spec = bert.encoder.spec
    assert metadata.pop("exporter").startswith("embedding-exporter")
    assert metadata == {
        "model_id": "model",
        "revision": "",
        "pooling": "mean",
        "normalized": "true",
        "max_seq_length": str(MAX_LENGTH),
        "embedding_dim": str(HIDDEN),
        "weights_sha256": spec.weights_sha256,
        "tokenizer_sha256": spec.tokenizer_sha256,
    }
    assert model.opset_import[0].version == 20


def test_module_paths_stay_in_the_nodes_metadata(bert: Exported) -> None:
    graph = onnx.load(str(bert.artifact.path)).graph
    node = next(n for n in graph.node if n.name == "encoder.layer.0.attention.self.query/MatMul")
    metadata = {prop.key: prop.value for prop in node.metadata_props}
    assert set(metadata) == {"pkg.torch.onnx.name_scopes", "pkg.torch.onnx.class_hierarchy"}
    assert node.input[1] == "encoder.layer.0.attention.self.query.weight_transposed"


def test_weights_are_constants_without_nodes_in_between(bert: Exported) -> None:
    graph = onnx.load(str(bert.artifact.path)).graph
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) > 1}
    readers = {node.op_type for node in graph.node for name in node.input if name in weights}
    assert readers <= {"MatMul", "Gather", "Slice"}


def test_attention_masks_broadcast(bert: Exported) -> None:
    operations = {node.op_type for node in onnx.load(str(bert.artifact.path)).graph.node}
    assert not operations & {"GatherND", "Range", "IsNaN"}


def test_another_opset(bert: Exported, tmp_path: Path) -> None:
    artifact = export_onnx(bert.encoder, tmp_path, opset=18)
    assert artifact.opset == 18
    assert check_parity(bert.encoder, artifact, bert.tokens).min_cosine >= LEAST_COSINE


# ------------------------------------------------------------------------- external data


def test_large_weights_go_beside_the_graph(bert: Exported, tmp_path: Path) -> None:
    artifact = export_onnx(bert.encoder, tmp_path, max_inline_bytes=1000)
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.onnx_data"}
    assert artifact.sha256 not in (bert.artifact.sha256, sha256_file(artifact.path))
    assert check_parity(bert.encoder, artifact, bert.tokens).min_cosine >= LEAST_COSINE
    data = bytearray((tmp_path / "model.onnx_data").read_bytes())
    data[0] ^= 1
    (tmp_path / "model.onnx_data").write_bytes(data)
    assert read_onnx_artifact(artifact.path).sha256 != artifact.sha256


# -------------------------------------------------------------------------- reading back


def test_artifact_reads_back(bert: Exported) -> None:
    assert read_onnx_artifact(bert.artifact.path) == bert.artifact
    assert bert.artifact.sha256 == sha256_file(bert.artifact.path)


def test_truncated_graph_is_refused(bert: Exported, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(bert.artifact.path.read_bytes()[:-100])
    with pytest.raises(StorageError, match="not a graph that this tool exported"):
        read_onnx_artifact(path)


def test_foreign_graph_is_refused(bert: Exported, tmp_path: Path) -> None:
    model = onnx.load(str(bert.artifact.path))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "model.onnx"))
    with pytest.raises(StorageError, match="not a graph that this tool exported"):
        read_onnx_artifact(tmp_path / "model.onnx")


def test_missing_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        read_onnx_artifact(tmp_path / "model.onnx")


def test_unwritable_folder(bert: Exported, tmp_path: Path) -> None:
    import onnx_ir

    model = onnx_ir.load(bert.artifact.path)
    with pytest.raises(StorageError, match="cannot be written"):
        write_model(model, tmp_path / "missing" / "model.onnx", MAX_INLINE_WEIGHTS_BYTES)


def test_invalid_graph_is_refused(bert: Exported, tmp_path: Path) -> None:
    import onnx_ir

    model = onnx_ir.load(bert.artifact.path)
    next(node for node in model.graph if node.op_type == "Softmax").op_type = "Softmaxx"
    with pytest.raises(ExportError, match="not valid ONNX"):
        write_model(model, tmp_path / "model.onnx", MAX_INLINE_WEIGHTS_BYTES)


# ------------------------------------------------------------------------------ parity


def _changed(
    bert: Exported, folder: Path, name: str, change: Callable[[np.ndarray], None]
) -> OnnxArtifact:
    """Write the graph with one weight changed."""
    model = onnx.load(str(bert.artifact.path))
    tensor = next(t for t in model.graph.initializer if t.name == name)
    values = onnx.numpy_helper.to_array(tensor).copy()
    change(values)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, str(folder / "model.onnx"))
    return replace(bert.artifact, path=folder / "model.onnx")


def _with_pooling(bert: Exported, mode: str) -> LoadedEncoder:
    """The same weights, pooled otherwise."""
    from sentence_transformers.sentence_transformer.modules import Pooling

    modules = list(bert.encoder.module.chain)
    modules[1] = Pooling(HIDDEN, mode)
    return replace(bert.encoder, module=build_module(modules, HIDDEN))


def test_wrong_pooling_fails_by_name(bert: Exported) -> None:
    with pytest.raises(ParityError, match="disagree") as caught:
        check_parity(_with_pooling(bert, "cls"), bert.artifact, bert.tokens)
    assert "worst at shape" in caught.value.why
    assert "token ids" in caught.value.why


def test_one_damaged_weight_fails(bert: Exported, tmp_path: Path) -> None:
    def scramble(values: np.ndarray) -> None:
        values[:] = values[::-1].copy()

    name = "encoder.layer.1.output.dense.weight_transposed"
    with pytest.raises(ParityError):
        check_parity(bert.encoder, _changed(bert, tmp_path, name, scramble), bert.tokens)


def test_non_finite_graph_fails(bert: Exported, tmp_path: Path) -> None:
    def poison(values: np.ndarray) -> None:
        values[0, 0] = np.nan

    name = "encoder.layer.1.output.dense.weight_transposed"
    with pytest.raises(NonFiniteError, match="NaN or infinity at shape"):
        check_parity(bert.encoder, _changed(bert, tmp_path, name, poison), bert.tokens)


def test_parity_needs_a_text(bert: Exported) -> None:
    with pytest.raises(ExportError, match="no text"):
        check_parity(bert.encoder, bert.artifact, bert.tokens.select([]))


def test_unloadable_graph_fails(bert: Exported, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not onnx")
    artifact = replace(bert.artifact, path=tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="cannot load"):
        check_parity(bert.encoder, artifact, bert.tokens)


def test_model_that_torch_cannot_export(bert: Exported, tmp_path: Path) -> None:
    import torch

    class Branching(torch.nn.Module):
        def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            states = features["input_ids"].unsqueeze(-1).float()
            if states.sum() > 0:  # depends on the data
                states = -states
            return {"token_embeddings": states, "sentence_embedding": states.sum(1)}

    broken = replace(bert.encoder, module=build_module([Branching()], HIDDEN))
    with pytest.raises(ExportError, match="cannot be exported to ONNX") as caught:
        export_onnx(broken, tmp_path)
    assert caught.value.why
    assert list(tmp_path.iterdir()) == []
