"""Compressed streams: the same bytes each time, read no further than is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, cast

from targets.errors import StorageError, UsageError

Compression = Literal["gzip", "zstd"]

SUFFIXES: dict[str, Compression] = {".tar.gz": "gzip", ".tgz": "gzip", ".tar.zst": "zstd"}
_MAGIC: dict[bytes, Compression] = {
    b"\x1f\x8b": "gzip",  # RFC 1952, 2.3.1
    b"\x28\xb5\x2f\xfd": "zstd",  # RFC 8878, 3.1.1
}


def compression_of_name(path: Path) -> Compression:
    """Return the compression that a file's name asks for.

    Raises:
        UsageError: it asks for none that is known.
    """
    for suffix, compression in SUFFIXES.items():
        if path.name.endswith(suffix):
            return compression
    raise UsageError(
        f"{path} names no archive",
        why="an archive's name ends in " + ", ".join(SUFFIXES),
        hint=f"for example {path}.tar.zst",
    )


@contextmanager
def compressed_writer(path: Path, compression: Compression) -> Iterator[BinaryIO]:
    """Yield a stream that compresses into a file: no time and no name in its header."""
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as raw, pa.CompressedOutputStream(raw, compression) as stream:
        yield cast(BinaryIO, stream)


class BoundedReader:
    """A decompressed stream that ends with an error where it gives more than it may.

    A few bytes can decompress to terabytes; whoever reads raises the limit as he learns how
    much there should be.
    """

    def __init__(self, stream: BinaryIO, limit_bytes: int) -> None:
        self._stream = stream
        self._taken_bytes = 0
        self.limit_bytes = limit_bytes

    def read(self, size: int) -> bytes:
        """Return the next bytes, at most `size`; fewer only at the end.

        Raises:
            ValueError: there are more than the limit allows.
        """
        data = self._stream.read(size)
        self._taken_bytes += len(data)
        if self._taken_bytes > self.limit_bytes:
            raise ValueError(f"it unpacks to more than {self.limit_bytes:,} bytes")
        return data

    def read_to_the_end(self) -> None:
        """Read what is left, so that the stream's own check of its end takes place."""
        while self.read(1 << 16):
            pass


@contextmanager
def decompressed_reader(path: Path, *, limit_bytes: int) -> Iterator[BoundedReader]:
    """Yield what a compressed file holds; its first bytes say how it is compressed.

    Raises:
        StorageError: they say nothing that is known.
        OSError: it is truncated or damaged (found while reading), or cannot be read.
    """
    import pyarrow as pa

    with path.open("rb") as raw:
        start = raw.read(4)
        compression = next((c for magic, c in _MAGIC.items() if start.startswith(magic)), None)
        if compression is None:
            raise StorageError(
                f"{path} is not an archive of a bundle",
                why="it is compressed neither with gzip nor with zstd",
                hint="name a bundle's folder, or an archive that `exporter pack` wrote",
            )
        raw.seek(0)
        with pa.CompressedInputStream(raw, compression) as stream:
            yield BoundedReader(cast(BinaryIO, stream), limit_bytes)
