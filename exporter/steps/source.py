"""The source model: its ONNX graph with proven parity, and its FP32 embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporter.deliver.codec import dump_json, load_json
from exporter.source.modules import transformer_folder
from exporter.steps.texts import TokenizedEvaluation
from exporter.steps.workspace import Workspace, tool_versions
from exporter.values import EncoderSpec, EvaluationEmbeddings, ParityReport
from targets.contract import FloatArray, OnnxArtifact, Progress, SourceModel, TokenSequences
from targets.hashing import sha256_file, sha256_json

if TYPE_CHECKING:
    from exporter.source.encoder import LoadedEncoder

Embed = Callable[[TokenSequences, Progress], FloatArray]
"""Texts → rows in their order, shape [num_texts, dim], float32; told of the texts done, of all."""

_TOOLS = ("torch", "transformers", "sentence-transformers", "onnx", "onnxscript")
_GRAPH_FILE = "model.onnx"
_SIDECAR = "sidecar"


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """The FP32 graph and how well it agrees with PyTorch."""

    artifact: OnnxArtifact
    parity: ParityReport


def _settings_sha256(directory: Path) -> str:
    """Hash what else decides embeddings: every configuration, and the weights of later modules."""
    files = [*directory.rglob("*.json"), *directory.glob("*/*.safetensors")]
    return sha256_json([(str(f.relative_to(directory)), sha256_file(f)) for f in sorted(files)])


class Source:
    """The source model of one run, loaded (torch and all) only when something is missing."""

    def __init__(self, work: Workspace, spec: EncoderSpec) -> None:
        self._work = work
        self.spec = spec

    @cached_property
    def encoder(self) -> LoadedEncoder:
        """The model in PyTorch.

        Raises:
            ModelError: see `exporter.source.encoder.load_encoder`.
        """
        from exporter.source.encoder import load_encoder

        encoder = load_encoder(self.spec)
        for warning in encoder.warnings:
            self._work.reporter.note(warning)
        return encoder

    @property
    def _identity(self) -> tuple[object, ...]:
        spec = self.spec
        return (
            (spec.model_id, spec.revision, spec.weights_sha256, spec.tokenizer_sha256),
            (spec.modules, spec.pooling, spec.normalize, spec.max_seq_length),
            _settings_sha256(spec.directory),
            tool_versions(_TOOLS),
        )

    def graph(self, parity_tokens: TokenSequences, torch_threads: int | None = None) -> Graph:
        """Export the FP32 graph and prove that it computes what PyTorch computes.

        Args:
            parity_tokens: real texts to prove it with.
            torch_threads: for PyTorch; None: as many as it takes.

        Raises:
            ModelError, ExportError, ParityError, NonFiniteError: see `exporter.source`.
        """

        def build(folder: Path, progress: Progress) -> None:
            from exporter.source.onnx_export import export_onnx
            from exporter.source.parity import check_parity
            from exporter.source.torch_module import num_torch_threads

            with num_torch_threads(torch_threads):
                artifact = export_onnx(self.encoder, folder)
                parity = check_parity(self.encoder, artifact, parity_tokens, progress=progress)
            (folder / "parity.json").write_bytes(dump_json(parity))
            (folder / "artifact.json").write_bytes(dump_json(artifact))

        folder = self._work.cached(
            "graph",
            "export to ONNX, check parity with PyTorch",
            self._graph_parts(parity_tokens),
            build,
        )
        return _load_graph(folder)

    def lacks_graph(self, parity_tokens: TokenSequences) -> bool:
        """Say whether `graph` would have to export."""
        return self._work.lacks("graph", self._graph_parts(parity_tokens))

    def _graph_parts(self, parity_tokens: TokenSequences) -> tuple[object, ...]:
        return (*self._identity, parity_tokens.sha256)

    def model(self) -> SourceModel:
        """Return the PyTorch model's files, for targets that are made from it.

        Raises:
            StorageError, ModelError: what lies beside its weights cannot be copied.
        """

        def build(folder: Path, progress: Progress) -> None:
            from exporter.source.sidecar import copy_sidecar

            copy_sidecar(self.spec, folder / _SIDECAR)

        title = "gather the files beside the weights"
        folder = self._work.cached("sidecar", title, self._identity, build)
        return SourceModel(
            weights=transformer_folder(self.spec.directory),
            sidecar=folder / _SIDECAR,
            trust_remote_code=self.spec.trust_remote_code,
        )

    def reference(
        self, evaluation: TokenizedEvaluation, embed: Embed | None = None
    ) -> EvaluationEmbeddings:
        """Embed an evaluation set with the FP32 model in PyTorch.

        Args:
            evaluation: the texts.
            embed: does it in place of the model in this process.

        Raises:
            ModelError, NonFiniteError: see `exporter.source.encoder`, or what `embed` raises.
        """

        def build(folder: Path, progress: Progress) -> None:
            total = len(evaluation.queries) + len(evaluation.documents)
            done = 0
            for name in ("queries", "documents"):
                tokens: TokenSequences = getattr(evaluation, name)
                rows = (embed or self._embed)(
                    tokens, lambda n, _=None, base=done: progress(base + n, total)
                )
                np.save(folder / f"{name}.npy", rows, allow_pickle=False)
                done += len(tokens)
                progress(done, total)

        texts = evaluation.texts
        title = f"embed {texts.name} ({texts.split}) in PyTorch FP32"
        folder = self._work.cached("reference", title, self._reference_parts(evaluation), build)
        return EvaluationEmbeddings(
            queries=np.load(folder / "queries.npy", allow_pickle=False),
            documents=np.load(folder / "documents.npy", allow_pickle=False),
        )

    def lacks_reference(self, evaluation: TokenizedEvaluation) -> bool:
        """Say whether `reference` would have to embed."""
        return self._work.lacks("reference", self._reference_parts(evaluation))

    def _reference_parts(self, evaluation: TokenizedEvaluation) -> tuple[object, ...]:
        return (*self._identity, evaluation.queries.sha256, evaluation.documents.sha256)

    def _embed(self, tokens: TokenSequences, progress: Progress) -> FloatArray:
        return self.encoder.embed(tokens, progress=progress)


def _load_graph(folder: Path) -> Graph:
    artifact = load_json(OnnxArtifact, (folder / "artifact.json").read_bytes())
    return Graph(
        artifact=replace(artifact, path=folder / _GRAPH_FILE),
        parity=load_json(ParityReport, (folder / "parity.json").read_bytes()),
    )
