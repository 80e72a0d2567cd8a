"""TensorRT's timings of kernels, kept between builds: one file per version and GPU.

A cache of another version or GPU is worthless. TensorRT says so by None, by False, or by a warning
and an empty cache, and the build begins cold. Two builds at once lose nothing: what the other has
written meanwhile is merged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from targets.errors import CompileError, StorageError

_SUFFIX = ".timing"


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingCache:
    """A file of timings.

    Args:
        path: the file; it need not exist.
    """

    path: Path

    @classmethod
    def for_gpu(cls, folder: Path, version: str, gpu: str) -> TimingCache:
        """Return the cache of one version of TensorRT on one kind of GPU."""
        name = re.sub(r"[^A-Za-z0-9.]+", "-", f"{version} {gpu}").strip("-").lower()
        return cls(path=folder / f"{name}{_SUFFIX}")

    def read(self) -> bytes:
        """Return what is there; nothing is a cold cache."""
        try:
            return self.path.read_bytes()
        except OSError:
            return b""

    def attach(self, config: Any) -> None:  # noqa: ANN401 - TensorRT's builder configuration
        """Give a build what is known, or an empty cache to fill.

        Raises:
            CompileError: TensorRT refuses even an empty cache.
        """
        known = self.read()
        cache = config.create_timing_cache(known) if known else None
        if cache is not None and config.set_timing_cache(cache, False):
            return
        empty = config.create_timing_cache(b"")
        if empty is None or not config.set_timing_cache(empty, False):
            raise CompileError(
                "TensorRT takes no timing cache",
                why="it refuses an empty one",
                hint="report it, with the versions that `exporter targets tensorrt` prints",
            )

    def keep(self, config: Any) -> None:  # noqa: ANN401
        """Write what a build has learnt, with what others wrote meanwhile.

        Raises:
            StorageError: it cannot be written.
        """
        cache = config.get_timing_cache()
        if cache is None:
            return
        meanwhile = self.read()
        other = config.create_timing_cache(meanwhile) if meanwhile else None
        if other is not None:
            cache.combine(other, False)  # False: theirs is of another GPU, and worth nothing here
        data = cache.serialize()
        if data is None:
            return
        aside = self.path.with_name(f".{self.path.name}.new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(bytes(memoryview(data)))
            aside.replace(self.path)
        except OSError as error:
            raise StorageError(
                f"the timing cache {self.path} cannot be written", why=str(error)
            ) from error
