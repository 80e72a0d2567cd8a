"""The files of a source model: JSON settings, safetensors weights, hashes.

Nothing here loads a weight or runs code of the model: sizes and headers are read, pickles are
refused, and every damage is named before a minute is spent on it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from targets.errors import ModelError
from targets.hashing import sha256_file

# The safetensors format caps its header (safetensors 0.8, MAX_HEADER_SIZE in tensor.rs).
_MAX_SAFETENSORS_HEADER_BYTES = 100_000_000
_LENGTH_BYTES = 8
_WEIGHTS_INDEX = "model.safetensors.index.json"
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_CONVERT_HINT = (
    "convert the weights once where you trust them: "
    "AutoModel.from_pretrained(FOLDER).save_pretrained(FOLDER) writes model.safetensors"
)

TOKENIZER_FILES = (
    "added_tokens.json",
    "bpe.codes",
    "chat_template.jinja",
    "merges.txt",
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "spiece.model",
    "spm.model",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
)
"""Every file that can take part in building a tokenizer."""

VOCABULARY_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
)
"""Files of which at least one must exist."""


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelError: if the file cannot be read, is not JSON or not an object.
    """
    value = _read_json(path)
    if not isinstance(value, dict):
        raise ModelError(f"{path} is not a JSON object", why=f"it holds a {type(value).__name__}")
    return value


def read_json_objects(path: Path) -> list[dict[str, Any]]:
    """Read a JSON list of objects.

    Raises:
        ModelError: if the file cannot be read, is not JSON or not a list of objects.
    """
    value = _read_json(path)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ModelError(f"{path} is not a JSON list of objects", why="the file is damaged")
    return value


def read_optional_json(path: Path) -> dict[str, Any]:
    """Read a JSON object, or return an empty one when the file does not exist."""
    return read_json_object(path) if path.is_file() else {}


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read", why=str(error)) from error
    except ValueError as error:
        raise ModelError(
            f"{path} is not valid JSON",
            why=str(error),
            hint="the file is damaged or half downloaded: fetch the model again",
        ) from error


def weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the safetensors files of a module, checked, in name order.

    Raises:
        ModelError: if there are none, only pickles, a shard is missing or a file is damaged.
    """
    files = _listed_weights(folder)
    for file in files:
        check_safetensors(file)
    return files


def _listed_weights(folder: Path) -> tuple[Path, ...]:
    single = folder / "model.safetensors"
    if single.is_file():
        return (single,)
    index = folder / _WEIGHTS_INDEX
    if index.is_file():
        return _sharded_weights(index)
    raise _no_weights(folder)


def _sharded_weights(index: Path) -> tuple[Path, ...]:
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{index} names no weight files", why="`weight_map` is missing or empty")
    names = sorted({str(name) for name in weight_map.values()})
    if any(Path(name).name != name for name in names):
        raise ModelError(f"{index} names a weight file outside of its folder", why=", ".join(names))
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        raise ModelError(
            f"{index.parent} lacks weight files",
            why=f"{index.name} names {', '.join(missing)}",
            hint="fetch the model again",
        )
    return tuple(index.parent / name for name in names)


def _no_weights(folder: Path) -> ModelError:
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in _PICKLE_SUFFIXES)
    if pickles:
        return ModelError(
            f"{folder} has only pickled weights: {', '.join(pickles)}",
            why="loading a pickle runs whatever code is inside, so only safetensors are read",
            hint=_CONVERT_HINT,
        )
    return ModelError(
        f"{folder} has no weights",
        why=f"neither model.safetensors nor {_WEIGHTS_INDEX} is there",
        hint="name a folder that holds a complete model",
    )


def check_safetensors(path: Path) -> None:
    """Check that a safetensors file is whole: readable header, and as long as it says.

    Format: https://huggingface.co/docs/safetensors (8 bytes little-endian header length, JSON
    header with `data_offsets` per tensor, data).

    Raises:
        ModelError: if the file is truncated or not a safetensors file.
    """
    size_bytes = path.stat().st_size
    header, data_start = _safetensors_header(path, size_bytes)
    expected_bytes = data_start + _data_bytes(path, header)
    if size_bytes != expected_bytes:
        raise _damaged(path, f"it has {size_bytes} bytes, its header says {expected_bytes}")


def _safetensors_header(path: Path, size_bytes: int) -> tuple[dict[str, Any], int]:
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        if not 0 < length <= min(size_bytes - _LENGTH_BYTES, _MAX_SAFETENSORS_HEADER_BYTES):
            raise _damaged(path, f"it has {size_bytes} bytes and claims a header of {length}")
        raw = stream.read(length)
    try:
        header = json.loads(raw)
    except ValueError as error:
        raise _damaged(path, f"its header is not JSON ({error})") from error
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    return header, _LENGTH_BYTES + length


def _data_bytes(path: Path, header: dict[str, Any]) -> int:
    tensors = [value for name, value in header.items() if name != "__metadata__"]
    try:
        return max((int(tensor["data_offsets"][1]) for tensor in tensors), default=0)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise _damaged(path, f"a tensor has no usable data_offsets ({error!r})") from error


def _damaged(path: Path, why: str) -> ModelError:
    return ModelError(
        f"{path} is not a whole safetensors file",
        why=why,
        hint="the file is damaged or half downloaded: fetch the model again",
    )


def hash_files(files: Iterable[Path]) -> str:
    """Return one SHA-256 over several files in name order.

    A single file's hash is the file's own (what `sha256sum` prints); several are hashed as
    lines of file name and hash.
    """
    ordered = sorted(files, key=lambda file: (file.name, str(file)))
    if len(ordered) == 1:
        return sha256_file(ordered[0])
    digest = hashlib.sha256()
    for file in ordered:
        digest.update(f"{file.name} {sha256_file(file)}\n".encode())
    return digest.hexdigest()


def present(folder: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """Return those of `names` that are files in `folder`."""
    return tuple(folder / name for name in names if (folder / name).is_file())
