"""Files of embeddings that say which space they are of, and refuse rows of another.

`.jsonl`: one object a line with `text`, `embedding`, `space_id` and `artifact_sha256`.
`.npz`: `embeddings` [num_texts, dim] float32 in the order of the texts, `space_id`,
`artifact_sha256` [num_artifacts] and `artifact` [num_texts], the place of each row's artifact
in it. Both are written aside and renamed, so an interrupted run loses nothing.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporter.deliver.storage import locked, replaced, storage_errors
from targets.contract import FloatArray
from targets.errors import StorageError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedTexts:
    """Texts with their embeddings.

    Args:
        texts: in the order of the rows.
        embeddings: shape [num_texts, dim], float32.
        space_id: of all rows.
        artifact_sha256: of the artifact that embedded them.
    """

    texts: tuple[str, ...]
    embeddings: FloatArray
    space_id: str
    artifact_sha256: str


def json_lines(encoded: EncodedTexts) -> Iterator[str]:
    """Yield one JSON object for every text."""
    for text, row in zip(encoded.texts, encoded.embeddings, strict=True):
        record = {
            "text": text,
            "embedding": [float(value) for value in row],
            "space_id": encoded.space_id,
            "artifact_sha256": encoded.artifact_sha256,
        }
        yield json.dumps(record, ensure_ascii=False, allow_nan=False)


def check_embeddings_file(path: Path) -> None:
    """Refuse a name that no format goes by, before any long work.

    Raises:
        UsageError: it is a folder, or ends neither in .npz nor in .jsonl.
    """
    if path.is_dir() or path.suffix.lower() not in _WRITERS:
        what = "is a folder" if path.is_dir() else "has no known ending"
        raise UsageError(
            f"--output {path} {what}",
            why=f"embeddings are written as {' or '.join(_WRITERS)}",
            hint="for example -o embeddings.jsonl",
        )


def check_same_space(path: Path, space_id: str, dim: int) -> None:
    """Refuse a file that holds embeddings of another space; one that is not there is fine.

    Raises:
        UsageError: the file's name is no format's, or it is of another space.
        StorageError: it is damaged.
    """
    check_embeddings_file(path)
    if path.exists():
        with storage_errors("cannot read the file", path, remedy="name another --output"):
            _READERS[path.suffix.lower()](path, space_id, dim)


def append_embeddings(path: Path, encoded: EncodedTexts) -> int:
    """Write embeddings into a file, behind those that it holds.

    Returns:
        How many rows the file holds now.

    Raises:
        UsageError: see `check_same_space`.
        StorageError: it is damaged or cannot be written; it is left as it was.
    """
    check_embeddings_file(path)
    with storage_errors("cannot write the file", path, remedy="name another --output"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_name(f".{path.name}.lock")):
            return _WRITERS[path.suffix.lower()](path, encoded)


def _require_same(place: str, found: tuple[str, int], wanted: tuple[str, int]) -> None:
    """Compare space and number of dimensions."""
    if found != wanted:
        raise UsageError(
            f"{place} is of another embedding space",
            why=f"it holds {found[0]} with {found[1]} dimensions, these are {wanted[0]} "
            f"with {wanted[1]}",
            hint="write into another file, or embed all texts anew with one artifact; "
            "`exporter compatibility` says whether the two may be mixed",
        )


def _not_ours(place: str, error: Exception) -> StorageError:
    return StorageError(
        f"{place} holds no embeddings that `exporter encode` wrote",
        why=str(error) or type(error).__name__,
        hint="nothing was changed; name another file",
    )


# ------------------------------------------------------------------------------ JSON lines


def _append_lines(path: Path, encoded: EncodedTexts) -> int:
    earlier = 0
    with replaced(path) as aside:
        if path.exists():
            earlier = _count_lines(path, encoded.space_id, encoded.embeddings.shape[1])
            shutil.copyfile(path, aside)
        with aside.open("a", encoding="utf-8", newline="\n") as stream:
            stream.writelines(f"{line}\n" for line in json_lines(encoded))
    return earlier + len(encoded.texts)


def _count_lines(path: Path, space_id: str, dim: int) -> int:
    """Count the lines of a file, every one of which must be of the same space."""
    place, count = str(path), 0
    with path.open(encoding="utf-8") as stream:
        try:
            for line in stream:
                count += 1
                place = f"{path}:{count}"
                record = json.loads(line)
                found = str(record["space_id"]), len(record["embedding"])
                _require_same(place, found, (space_id, dim))
                if not line.endswith("\n"):
                    raise ValueError("the last line has no end")
        except (ValueError, KeyError, TypeError) as error:
            raise _not_ours(place, error) from error
    return count


# --------------------------------------------------------------------------------- arrays


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arrays:
    """What a `.npz` holds.

    Args:
        embeddings: shape [num_texts, dim], float32.
        artifacts: hashes of the artifacts that made them.
        artifact: the place of each row's in `artifacts`, shape [num_texts], int32.
    """

    embeddings: FloatArray
    artifacts: list[str]
    artifact: NDArray[np.int32]


def _append_arrays(path: Path, encoded: EncodedTexts) -> int:
    dim = encoded.embeddings.shape[1]
    held = _Arrays(
        embeddings=np.empty((0, dim), np.float32), artifacts=[], artifact=np.empty(0, np.int32)
    )
    if path.exists():
        held = _read_arrays(path, encoded.space_id, dim)
    artifacts = list(dict.fromkeys([*held.artifacts, encoded.artifact_sha256]))
    place = artifacts.index(encoded.artifact_sha256)
    embeddings = np.concatenate([held.embeddings, encoded.embeddings])
    with replaced(path) as aside, aside.open("wb") as stream:
        np.savez(
            stream,
            embeddings=embeddings,
            space_id=np.array(encoded.space_id),
            artifact_sha256=np.array(artifacts),
            artifact=np.append(held.artifact, np.full(len(encoded.texts), place, np.int32)),
        )
    return len(embeddings)


def _read_arrays(path: Path, space_id: str, dim: int) -> _Arrays:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            found = str(arrays["space_id"])
            held = _Arrays(
                embeddings=arrays["embeddings"],
                artifacts=[str(one) for one in arrays["artifact_sha256"]],
                artifact=arrays["artifact"],
            )
            shape = (len(held.artifact), int(held.embeddings.shape[1]))
            if held.embeddings.shape != shape:
                raise ValueError(f"embeddings of shape {held.embeddings.shape}, not {shape}")
    except (ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise _not_ours(str(path), error) from error
    _require_same(str(path), (found, shape[1]), (space_id, dim))
    return held


_READERS: dict[str, Callable[[Path, str, int], object]] = {
    ".npz": _read_arrays,
    ".jsonl": _count_lines,
}
_WRITERS: dict[str, Callable[[Path, EncodedTexts], int]] = {
    ".npz": _append_arrays,
    ".jsonl": _append_lines,
}
