"""Files of an artifact, written so that the same model gives the same bytes."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from targets.errors import StorageError

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
RUNNER_FILE = "runner.json"
HEAD_FILE = "head.safetensors"
PLACE, MIN_TOKENS = "place", "min_tokens"
"""Names in the runner's file, which the session knows too: "cpu" or "cuda", and how many padded
tokens a batch has at least."""
LOADED = (WEIGHTS_FILE, CONFIG_FILE, RUNNER_FILE, HEAD_FILE)
"""What the session reads, the entry file first; the rest is for loaders that take texts."""

_LENGTH = struct.Struct("<Q")
"""A safetensors file begins with the length of its JSON header, 64 bits, little-endian."""


def copy_sidecar(source: Path, folder: Path) -> None:
    """Copy what Sentence Transformers needs beside the transformer; what is there stays.

    Raises:
        StorageError: a file cannot be read or written.
    """
    try:
        for path in sorted(one for one in source.rglob("*") if one.is_file()):
            copy = folder / path.relative_to(source)
            if not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
    except OSError as error:
        raise storage_error(folder, error) from error


def write_runner_file(folder: Path, values: Mapping[str, Any]) -> None:
    """Write what the session must know besides the model.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        text = json.dumps(values, indent=1, sort_keys=True)
        (folder / RUNNER_FILE).write_text(f"{text}\n", "utf-8")
    except OSError as error:
        raise storage_error(folder, error) from error


def place_of(folder: Path) -> str:
    """Return where an artifact was made to run, "cpu" or "cuda".

    Raises:
        StorageError: the runner's file cannot be read.
    """
    path = folder / RUNNER_FILE
    try:
        return str(json.loads(path.read_text("utf-8")).get(PLACE, "cpu"))
    except (OSError, ValueError, AttributeError) as error:
        raise StorageError(f"{path} cannot be read", why=str(error)) from error


def declare_dtype(path: Path, dtype: str) -> None:
    """Say in a configuration which precision the model runs in.

    Transformers takes the first parameter's for it, which may be an embedding table that is only
    stored in another one; loaders would run the whole model in that.

    Raises:
        StorageError: the file cannot be read or written.
    """
    try:
        values = {**json.loads(path.read_text("utf-8")), "dtype": dtype}
        path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", "utf-8")
    except OSError as error:
        raise storage_error(path.parent, error) from error


def sort_metadata(path: Path) -> None:
    """Put a safetensors file's metadata in order; safetensors writes it in a random one.

    The header's length may not change: tensors lie where they lay.

    Raises:
        StorageError: the file cannot be read or written.
    """
    try:
        with path.open("r+b") as stream:
            (length,) = _LENGTH.unpack(stream.read(_LENGTH.size))
            header = json.loads(stream.read(length))
            metadata = header.get("__metadata__", {})
            ordered = {**header, "__metadata__": dict(sorted(metadata.items()))}
            first = {"__metadata__": ordered.pop("__metadata__"), **ordered}
            text = json.dumps(first, separators=(",", ":"), ensure_ascii=False).encode()
            if len(text) > length:
                raise OSError(f"{path.name}: its header does not fit into its place")
            stream.seek(_LENGTH.size)
            stream.write(text.ljust(length))
    except OSError as error:
        raise storage_error(path.parent, error) from error


def storage_error(folder: Path, error: OSError) -> StorageError:
    """Say that an artifact could not be written."""
    return StorageError(
        f"{folder} cannot be written", why=str(error), hint="free space, or choose another folder"
    )
