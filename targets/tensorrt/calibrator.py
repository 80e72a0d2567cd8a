"""TensorRT 10's own entropy calibrator: texts through `IInt8EntropyCalibrator2`, scales to a file.

The implicit way to int8: TensorRT runs the float graph on batches and chooses scales itself; types
are its choice (weakly typed), so only the engine's layers say what became int8. TensorRT 11 has
none of it; there, and by default everywhere, scales stand in the graph as Q/DQ pairs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from targets.contract import TokenSequences
from targets.errors import (
    CalibrationError,
    CompileError,
    ConfigError,
    ExporterError,
)
from targets.tensorrt.build_plan import BuildPlan
from targets.tensorrt.calibration_batches import Batch, batches_of, require_texts
from targets.tensorrt.calibration_cache import CalibrationCache, stamped
from targets.tensorrt.cuda_interface import Cuda
from targets.tensorrt.engine import Engine, build_engine

_CALIBRATOR = "IInt8EntropyCalibrator2"
_T = TypeVar("_T")


def require_calibrators(module: Any) -> None:  # noqa: ANN401 - TensorRT's module, untyped
    """Refuse a TensorRT that has no calibrators.

    Raises:
        ConfigError: names the explicit mode, which does the same.
    """
    if not hasattr(module, _CALIBRATOR):
        raise ConfigError(
            f"TensorRT {module.__version__} has no entropy calibrator of its own",
            why="calibrators and the INT8 flag ended with TensorRT 10",
            hint="take the explicit mode: `exporter export --calibrator entropy` puts the same "
            "kind of scales into the graph as Q/DQ pairs",
        )


class Calibration:
    """What happens while TensorRT calibrates; its calibrator only forwards to this.

    TensorRT swallows what a callback raises and takes it for the end of the data: it is kept and
    raised by `finish`, after the build.

    Args:
        batches: all of one shape for each input.
        cuda: where they are put; the memory is freed by `finish`.
        version: of TensorRT, (major, minor, patch).
        cache: file of scales, read if it is there and written when TensorRT has chosen.
    """

    def __init__(
        self,
        batches: Iterator[Batch],
        cuda: Cuda,
        version: tuple[int, int, int],
        cache: Path | None = None,
    ) -> None:
        self._batches = batches
        self._cuda = cuda
        self._version = version
        self._cache = cache
        self._stream = cuda.stream()
        self._buffers: dict[str, tuple[int, int]] = {}
        self._failure: BaseException | None = None
        self.num_batches = 0
        self.scales: CalibrationCache | None = None

    def next_batch(self, names: list[str]) -> list[int] | None:
        """Return one device address for each name, in that order; None when all was given."""
        if self._failure is not None:
            return None
        return self._guarded(lambda: self._put(next(self._batches, None), names))

    def read(self) -> bytes | None:
        """Return an earlier calibration under this TensorRT's header; None: calibrate."""
        return self._guarded(self._read)

    def write(self, data: Any) -> None:  # noqa: ANN401 - a view that lives as long as the call
        """Keep what TensorRT has chosen."""
        copied = bytes(memoryview(data))
        self._guarded(lambda: self._write(copied))

    def finish(self) -> None:
        """Free the memory, raise what went wrong in a callback, and check that scales are there.

        Raises:
            ExporterError: of ours, as it was.
            CalibrationError: for anything else, or if TensorRT chose no scales.
        """
        self.release()
        self.raise_failure()
        if self.scales is None:
            raise CalibrationError(
                "TensorRT did not calibrate",
                why=f"it took {self.num_batches} batches and gave no scales",
                hint="the explicit mode needs no calibrator: leave it out",
            )

    def release(self) -> None:
        """Free the device memory."""
        while self._buffers:
            self._cuda.free(self._buffers.popitem()[1][0])

    def raise_failure(self) -> None:
        """Raise what went wrong in a callback, if something did; see `finish`."""
        if not isinstance(self._failure, Exception | None):
            raise self._failure  # Ctrl-C is no failure of the calibrator
        if isinstance(self._failure, ExporterError):
            raise self._failure
        if self._failure is not None:
            raise CalibrationError(
                "the calibrator failed while TensorRT was calibrating",
                why=f"{type(self._failure).__name__}: {self._failure}",
                hint="what TensorRT said afterwards comes from data that ended too early",
            ) from self._failure

    def _guarded(self, work: Callable[[], _T]) -> _T | None:
        try:
            return work()
        except BaseException as error:  # TensorRT would swallow it, whatever it is
            self._failure = self._failure or error
            return None

    def _put(self, batch: Batch | None, names: list[str]) -> list[int] | None:
        if batch is None:
            return None
        if sorted(names) != sorted(batch):
            raise CalibrationError(
                f"TensorRT asks for {sorted(names)}, the batches have {sorted(batch)}",
                hint="prepare the bundle again",
            )
        addresses = [self._copied(name, np.ascontiguousarray(batch[name])) for name in names]
        self.num_batches += 1
        return addresses

    def _copied(self, name: str, values: NDArray[np.int64]) -> int:
        if name not in self._buffers:
            self._buffers[name] = (self._cuda.device(values.nbytes), values.nbytes)
        address, size_bytes = self._buffers[name]
        if values.nbytes != size_bytes:
            raise CalibrationError(
                f"a batch of {name!r} has {values.nbytes} bytes, the first had {size_bytes}"
            )
        self._cuda.to_device(address, values.view(np.uint8).reshape(-1), self._stream)
        self._cuda.synchronize(self._stream)  # `values` may go, and TensorRT reads at once
        return address

    def _read(self) -> bytes | None:
        if self._cache is None or not self._cache.is_file():
            return None
        data = stamped(self._cache.read_bytes(), self._version)
        self.scales = CalibrationCache.from_bytes(data)
        return data

    def _write(self, data: bytes) -> None:
        self.scales = CalibrationCache.from_bytes(data)
        if self._cache is not None:
            aside = self._cache.with_name(f".{self._cache.name}.{os.getpid()}.part")
            aside.write_bytes(data)
            aside.replace(self._cache)


def make_calibrator(module: Any, calibration: Calibration) -> Any:  # noqa: ANN401 - untyped
    """Return an `IInt8EntropyCalibrator2` of this TensorRT, to be kept until the build is done.

    Raises:
        ConfigError: this TensorRT has none; see `require_calibrators`.
    """
    require_calibrators(module)

    class EntropyCalibrator(module.IInt8EntropyCalibrator2):  # type: ignore[misc]
        """Forwards every callback."""

        def __init__(self) -> None:
            super().__init__()  # the binding refuses an object without it

        def get_batch_size(self) -> int:
            return 1  # with dynamic shapes the profile says how large a batch is

        def get_batch(self, names: list[str]) -> list[int] | None:
            return calibration.next_batch(list(names))

        def read_calibration_cache(self) -> bytes | None:
            return calibration.read()

        def write_calibration_cache(self, cache: Any) -> None:  # noqa: ANN401
            calibration.write(cache)

    return EntropyCalibrator()


def build_calibrated(
    module: Any,  # noqa: ANN401
    graph: Path,
    plan: BuildPlan,
    tokens: TokenSequences | None,
    cuda: Cuda,
    cache: Path | None = None,
) -> Engine:
    """Build an int8 engine of a float graph with the scales that TensorRT 10 chooses.

    Whether anything became int8 is TensorRT's choice too: look at the engine's layers.

    Args:
        module: TensorRT 10.
        graph: a float ONNX file without Q/DQ.
        plan: how; calibrated at the typical shape of its last profile.
        tokens: calibration texts; None: the cache has everything.
        cuda: the GPU.
        cache: see `Calibration`.

    Raises:
        ConfigError: TensorRT 11.
        CalibrationError: too few texts, a damaged cache, or whatever failed in a callback.
        CompileError: see `build_engine`.
    """
    require_calibrators(module)
    batches: Iterator[Batch] = iter(())
    if tokens is not None:
        require_texts(tokens, plan)
        batches = batches_of(tokens, plan)
    calibration = Calibration(batches, cuda, version_of(module), cache)
    calibrator = make_calibrator(module, calibration)
    try:
        engine = build_engine(module, graph, plan, calibrator=calibrator)
    except CompileError:
        calibration.release()
        calibration.raise_failure()  # it came first, and explains more
        raise
    except BaseException:
        calibration.release()
        raise
    calibration.finish()
    return engine


def version_of(module: Any) -> tuple[int, int, int]:  # noqa: ANN401
    """Return TensorRT's version without the build number.

    Raises:
        CompileError: it has another form.
    """
    parts = str(module.__version__).split(".")
    try:
        major, minor, patch = (int(one) for one in parts[:3])
    except ValueError as error:
        raise CompileError(f"TensorRT calls its version {module.__version__!r}") from error
    return major, minor, patch
