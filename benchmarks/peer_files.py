"""What the peers make of the same model, by their own functions in their own packages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.side_env import (
    EnvironmentName,
    SideEnvironment,
    requirements_sha256,
    side_environment,
)
from exporter.deliver.cache import key_of
from exporter.steps.workspace import Workspace
from exporter.values import EncoderSpec, fingerprint_texts
from targets.errors import UsageError
from targets.hashing import sha256_file

_PROGRAMS = Path(__file__).with_name("side_programs")
_PEER_MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerFiles:
    """A peer's exported model.

    Args:
        directory: folder with the model.
        inputs: graph inputs in the order they are fed.
        files: "float32", and every form that was made of it → entry file below the folder.
        versions: versions of the peer's packages.
    """

    directory: Path
    inputs: tuple[str, ...]
    files: Mapping[str, str]
    versions: Mapping[str, str]

    def entry(self, form: str) -> Path:
        """Return the entry file of a form."""
        return self.directory / self.files[form]


def onnxruntime_files(
    work: Workspace, spec: EncoderSpec, presets: Sequence[str], levels: Sequence[str] = ()
) -> PeerFiles:
    """Export with sentence-transformers' ONNX backend, and let its helpers work on the graph.

    Args:
        work: cache and reporter.
        spec: the model.
        presets: of `export_dynamic_quantized_onnx_model`, e.g. "avx512_vnni"; each is a form.
        levels: of `export_optimized_onnx_model`, e.g. "O2"; each is a form.
    """
    asked = {"presets": list(presets), "levels": list(levels)}
    return _export(work, spec, "onnxruntime", "export_onnx.py", asked)


def openvino_files(work: Workspace, spec: EncoderSpec, texts: Sequence[str]) -> PeerFiles:
    """Export with sentence-transformers' OpenVINO backend and quantize statically to int8.

    Args:
        work: cache and reporter.
        spec: the model.
        texts: calibration texts, in place of the peer's own data set.
    """
    return _export(work, spec, "openvino", "export_openvino.py", {"texts": list(texts)})


def require_peer_support(spec: EncoderSpec) -> None:
    """Refuse a model whose pooling the peers' adapter does not do.

    Raises:
        UsageError: the model is not mean pooling and normalization behind a transformer.
    """
    if spec.modules != _PEER_MODULES or spec.pooling != "mean":
        raise UsageError(
            f"{spec.model_id} cannot be compared with the peers' artifacts",
            why=f"they are pooled with the mean and normalized; this model has "
            f"{', '.join(spec.modules)} with pooling {spec.pooling}",
            hint="take a bundle of a model such as all-MiniLM-L6-v2",
        )


def _export(
    work: Workspace,
    spec: EncoderSpec,
    name: EnvironmentName,
    program: str,
    asked: Mapping[str, object],
) -> PeerFiles:
    environment = side_environment(name, work.reporter.note)
    file = _PROGRAMS / program
    key = key_of(
        requirements_sha256(name),
        sha256_file(file),
        (spec.weights_sha256, spec.tokenizer_sha256, spec.max_seq_length),
        {what: _fingerprint(value) for what, value in asked.items()},
    )

    def build(folder: Path) -> None:
        _run(environment, file, folder, {**asked, "model": str(spec.directory)})

    with work.step(f"peer-{name}", f"export with sentence-transformers for {name}"):
        folder = work.cache.build(f"peer-{name}", key, build)
    return _read(folder)


def _fingerprint(value: object) -> str:
    return fingerprint_texts(value) if isinstance(value, list) else str(value)


def _run(
    environment: SideEnvironment, program: Path, folder: Path, request: Mapping[str, object]
) -> None:
    answer = environment.run(program, {**request, "output": str(folder / "model")})
    (folder / "answer.json").write_text(json.dumps(answer), "utf-8")


def _read(folder: Path) -> PeerFiles:
    answer = json.loads((folder / "answer.json").read_text("utf-8"))
    return PeerFiles(
        directory=folder / "model",
        inputs=tuple(answer["inputs"]),
        files=answer["files"],
        versions=answer["versions"],
    )
