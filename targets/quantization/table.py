"""The calibration table: one pass over the FP32 graph, kept in one file for every target.

The file is a zip of `.npy` arrays (numpy's `.npz`, no pickles). `header` is JSON in UTF-8: format,
version, hashes, sizes, and per tensor its scalars and the names of its arrays; tensor i's arrays
are `i.counts`, `i.channel_absmax`, …, and `i.gram` is the upper triangle of a symmetric matrix,
row by row. The same table gives the same bytes: numpy dates every entry 1980-01-01.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from targets.errors import CalibrationError, StorageError
from targets.quantization.histogram import Histogram
from targets.quantization.statistics import TensorStatistics

FORMAT = "embedding-exporter calibration table"
VERSION = 1

_HEADER = "header"
_DTYPES = {
    "counts": "<i8",
    "channel_absmax": "<f4",
    "channel_minimum": "<f4",
    "channel_maximum": "<f4",
    "channel_mean": "<f8",
    "gram": "<f4",
}
"""Arrays of a tensor, in the order they are written."""
_STORED_BYTES = 1 << 18
"""Arrays of this size are second moments (histograms are a hundred times smaller)."""
_ZIP_MAGIC = b"PK\x03\x04"
_CALIBRATE = "run the calibration again"

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationTable:
    """Statistics of a graph's tensors over a corpus.

    Args:
        tensors: name of the ONNX tensor → its statistics.
        graph_sha256: the FP32 graph that gave the values.
        tokenizer_sha256: the tokenizer that made the ids.
        corpus_sha256: the texts.
        num_texts: texts of the corpus that were run.
        num_tokens: their tokens, without padding.
    """

    tensors: Mapping[str, TensorStatistics]
    graph_sha256: str
    tokenizer_sha256: str
    corpus_sha256: str
    num_texts: int
    num_tokens: int

    @property
    def sha256(self) -> str:
        """Hash of the content; independent of compression and of the order of the tensors."""
        header, arrays = _pack(self)
        digest = hashlib.sha256(header)
        for name in sorted(arrays):
            digest.update(f"{name}{list(arrays[name].shape)}".encode())
            digest.update(arrays[name].tobytes())
        return digest.hexdigest()

    def require(
        self,
        *,
        graph_sha256: str | None = None,
        tokenizer_sha256: str | None = None,
        corpus_sha256: str | None = None,
    ) -> None:
        """Check that the table was made from what is at hand; None is not checked.

        Raises:
            CalibrationError: names everything that differs.
        """
        asked = (
            ("graph", self.graph_sha256, graph_sha256),
            ("tokenizer", self.tokenizer_sha256, tokenizer_sha256),
            ("corpus", self.corpus_sha256, corpus_sha256),
        )
        wrong = [(kind, made, now) for kind, made, now in asked if now is not None and now != made]
        if wrong:
            raise CalibrationError(
                f"the calibration table was made from another {_listed(wrong)}",
                why="; ".join(
                    f"{kind}: the table has {made[:12]}…, at hand is {now[:12]}…"
                    for kind, made, now in wrong
                ),
                hint=f"{_CALIBRATE} with this {_listed(wrong)}, or use what the table was made of",
            )

    def save(self, path: Path) -> None:
        """Write the table; readers see the old file or the new one, never a part.

        Raises:
            StorageError: if the file cannot be written.
        """
        header, arrays = _pack(self)
        entries: dict[str, Any] = {_HEADER: np.frombuffer(header, np.uint8), **arrays}
        aside = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with aside.open("wb") as stream:
                _write_npz(stream, entries)
            aside.replace(path)
        except OSError as error:
            raise StorageError(
                f"the calibration table {path} cannot be written",
                why=str(error),
                hint="check free space and permissions",
            ) from error
        finally:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> CalibrationTable:
        """Read what `save` wrote.

        Raises:
            CalibrationError: if the file is missing, truncated, of an unknown version or no
                calibration table.
        """
        try:
            # numpy leaves a file open that it opened itself and could not read.
            with path.open("rb") as stream:
                if stream.read(len(_ZIP_MAGIC)) != _ZIP_MAGIC:
                    raise _unusable(path, "it is no calibration table: not a zip file")
                stream.seek(0)
                with np.load(stream, allow_pickle=False) as stored:
                    arrays: Arrays = {name: stored[name] for name in stored.files}
        except OSError as error:
            raise _unusable(path, error.strerror or str(error)) from error
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
            raise _unusable(path, f"it is truncated or damaged: {error}") from error
        return cls._unpack(path, arrays)

    @classmethod
    def _unpack(cls, path: Path, arrays: Arrays) -> CalibrationTable:
        header = _read_header(path, arrays)
        try:
            return cls(
                tensors={
                    str(entry["name"]): _unpack_tensor(index, entry, arrays)
                    for index, entry in enumerate(header["tensors"])
                },
                graph_sha256=str(header["graph_sha256"]),
                tokenizer_sha256=str(header["tokenizer_sha256"]),
                corpus_sha256=str(header["corpus_sha256"]),
                num_texts=int(header["num_texts"]),
                num_tokens=int(header["num_tokens"]),
            )
        except CalibrationError as error:
            raise _unusable(path, f"{error.what}: {error.why}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise _unusable(path, f"its parts do not fit each other: {error}") from error


def _listed(wrong: list[tuple[str, str, str]]) -> str:
    return " and ".join(kind for kind, _, _ in wrong)


def _unusable(path: Path, why: str) -> CalibrationError:
    return CalibrationError(
        f"the calibration table {path} cannot be used",
        why=why,
        hint=f"delete it and {_CALIBRATE}",
    )


def _read_header(path: Path, arrays: Arrays) -> dict[str, Any]:
    """Return the header of a table of the version that this program reads."""
    try:
        header = json.loads(arrays[_HEADER].tobytes())
        foreign = header["format"] != FORMAT
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(path, "it is no calibration table: it has no header") from error
    if foreign:
        raise _unusable(path, f"it is no calibration table but {header['format']!r}")
    if header.get("version") != VERSION:
        raise _unusable(
            path, f"it has version {header.get('version')}, this program reads {VERSION}"
        )
    return dict(header)


# -------------------------------------------------------------------- tensors and arrays


def _write_npz(stream: IO[bytes], entries: Mapping[str, NDArray[Any]]) -> None:
    """Write what `np.savez_compressed` would, but for second moments: these hardly shrink."""
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in entries.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array, allow_pickle=False)
            large = array.nbytes >= _STORED_BYTES
            archive.writestr(
                zipfile.ZipInfo(f"{name}.npy"),  # without the time: same statistics, same bytes
                content.getbuffer(),
                zipfile.ZIP_STORED if large else zipfile.ZIP_DEFLATED,
                compresslevel=1,
            )


def _pack(table: CalibrationTable) -> tuple[bytes, Arrays]:
    """Return header and arrays; tensors in the order of their names."""
    names = sorted(table.tensors)
    arrays: Arrays = {}
    for index, name in enumerate(names):
        arrays |= _pack_arrays(index, table.tensors[name])
    header = {
        "format": FORMAT,
        "version": VERSION,
        "graph_sha256": table.graph_sha256,
        "tokenizer_sha256": table.tokenizer_sha256,
        "corpus_sha256": table.corpus_sha256,
        "num_texts": table.num_texts,
        "num_tokens": table.num_tokens,
        "tensors": [_pack_scalars(name, table.tensors[name]) for name in names],
    }
    text = json.dumps(header, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode(), arrays


def _pack_scalars(name: str, statistics: TensorStatistics) -> dict[str, object]:
    return {
        "name": name,
        "count": statistics.count,
        "minimum": statistics.minimum,
        "maximum": statistics.maximum,
        "bin_width": statistics.histogram.bin_width,
        "first_bin": statistics.histogram.first_bin,
        "arrays": [field for field in _DTYPES if _array(statistics, field) is not None],
    }


def _array(statistics: TensorStatistics, field: str) -> NDArray[Any] | None:
    owner = statistics.histogram if field == "counts" else statistics
    array: NDArray[Any] | None = getattr(owner, field)
    return array


def _pack_arrays(index: int, statistics: TensorStatistics) -> Arrays:
    packed: Arrays = {}
    for field, dtype in _DTYPES.items():
        array = _array(statistics, field)
        if array is not None:
            half = array[np.triu_indices(len(array))] if field == "gram" else array
            packed[f"{index}.{field}"] = np.ascontiguousarray(half, np.dtype(dtype))
    return packed


def _unpack_tensor(index: int, entry: dict[str, Any], arrays: Arrays) -> TensorStatistics:
    own = {str(field): _typed(arrays[f"{index}.{field}"], field) for field in entry["arrays"]}
    if "gram" in own:
        own["gram"] = _mirrored(own["gram"])
    counts = own.pop("counts")
    return TensorStatistics(
        count=int(entry["count"]),
        minimum=float(entry["minimum"]),
        maximum=float(entry["maximum"]),
        histogram=Histogram(
            bin_width=float(entry["bin_width"]), first_bin=int(entry["first_bin"]), counts=counts
        ),
        **own,
    )


def _typed(array: NDArray[Any], field: str) -> NDArray[Any]:
    if array.dtype != np.dtype(_DTYPES[field]):
        raise ValueError(f"{field} is {array.dtype}")
    return array


def _mirrored(half: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the symmetric matrix of an upper triangle of n (n + 1) / 2 values."""
    size = (math.isqrt(8 * half.size + 1) - 1) // 2
    whole = np.zeros((size, size), np.float32)
    whole[np.triu_indices(size)] = half
    return whole + np.triu(whole, 1).T
