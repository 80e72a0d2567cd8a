"""The two implementations of `cuda_interface.Cuda`.

`cuda-bindings` is NVIDIA's own, the default; `pycuda` has no graphs. Every return code is checked;
what is not freed before is freed by `close`. Imports the standard library and numpy only, and one
of the two packages on use: the session adapter, which stands apart from the rest, loads this file
too.

Names checked against cuda-bindings 13.5 and the sources of pycuda 2026.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from targets.tensorrt.cuda_interface import Bytes, Cuda, Handle

CUDA_BINDINGS, PYCUDA = "cuda-bindings", "pycuda"


class CudaError(RuntimeError):
    """A CUDA call failed: its name, and what CUDA says."""


def open_cuda(name: str) -> Cuda:
    """Open the first GPU that CUDA shows.

    Args:
        name: "cuda-bindings" or "pycuda".

    Raises:
        ValueError: another name.
        ImportError: the package is not installed.
        CudaError: there is no GPU, or its driver does not fit.
    """
    if name == CUDA_BINDINGS:
        return CudaBindings()
    if name == PYCUDA:
        return PyCuda()
    raise ValueError(f"{name!r} is neither {CUDA_BINDINGS} nor {PYCUDA}")


class CudaBindings:
    """The runtime API through `cuda.bindings`."""

    name = CUDA_BINDINGS
    has_graphs = True

    def __init__(self) -> None:
        from cuda.bindings import runtime

        self._cuda = runtime
        self._device: set[int] = set()
        self._others: list[tuple[str, Handle]] = []
        self._call("cudaSetDevice", 0)
        self._call("cudaFree", 0)  # makes the context now, not within the first measurement

    def _call(self, function: str, *arguments: Any) -> Any:  # noqa: ANN401
        code, *values = getattr(self._cuda, function)(*arguments)
        if code != self._cuda.cudaError_t.cudaSuccess:
            _, said = self._cuda.cudaGetErrorString(code)
            raise CudaError(f"{function}: {code.name} ({int(code)}): {said.decode()}")
        return values[0] if values else None

    def versions(self) -> dict[str, str]:
        """Return versions of the driver's CUDA and of the package."""
        import cuda.bindings

        number = self._call("cudaDriverGetVersion")
        return {"cuda-driver": _dotted(number), CUDA_BINDINGS: cuda.bindings.__version__}

    def bus_id(self) -> str:
        """Return the GPU's place on the PCI bus."""
        found: bytes = self._call("cudaDeviceGetPCIBusId", 64, 0)
        return found.split(b"\0")[0].decode()

    def stream(self) -> Handle:
        """Make a stream that waits for no other."""
        return self._kept(
            "cudaStreamDestroy",
            self._call("cudaStreamCreateWithFlags", self._cuda.cudaStreamNonBlocking),
        )

    def _kept(self, end: str, handle: Handle) -> Handle:
        self._others.append((end, handle))
        return handle

    def stream_number(self, stream: Handle) -> int:
        """Return the stream's handle."""
        return int(stream)

    def pinned(self, size_bytes: int) -> Bytes:
        """Return page-locked host memory."""
        import ctypes

        address = self._kept("cudaFreeHost", self._call("cudaMallocHost", size_bytes))
        memory = (ctypes.c_uint8 * size_bytes).from_address(int(address))
        pinned: Bytes = np.ctypeslib.as_array(memory)
        return pinned

    def device(self, size_bytes: int) -> int:
        """Return the address of device memory."""
        address = int(self._call("cudaMalloc", size_bytes))
        self._device.add(address)
        return address

    def free(self, address: int) -> None:
        """Free device memory."""
        self._device.remove(address)
        self._call("cudaFree", address)

    def to_device(self, address: int, source: Bytes, stream: Handle) -> None:
        """Start copying host memory."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call(
            "cudaMemcpyAsync", address, _contiguous(source).ctypes.data, source.nbytes, kind, stream
        )

    def to_host(self, target: Bytes, address: int, stream: Handle) -> None:
        """Start filling host memory."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call(
            "cudaMemcpyAsync", _contiguous(target).ctypes.data, address, target.nbytes, kind, stream
        )

    def synchronize(self, stream: Handle) -> None:
        """Wait until a stream is done."""
        self._call("cudaStreamSynchronize", stream)

    def event(self) -> Handle:
        """Make an event that takes the time."""
        return self._kept("cudaEventDestroy", self._call("cudaEventCreate"))

    def record(self, event: Handle, stream: Handle) -> None:
        """Let an event take the time when the stream arrives there."""
        self._call("cudaEventRecord", event, stream)

    def elapsed_ms(self, start: Handle, end: Handle) -> float:
        """Return the milliseconds between two events."""
        return float(self._call("cudaEventElapsedTime", start, end))

    def capture(self, work: Callable[[], None], stream: Handle) -> Handle:
        """Record work as a graph; what work raises ends the capture and goes on."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)
        try:
            work()
        except BaseException:
            self._cuda.cudaStreamEndCapture(stream)  # may fail: the capture is broken already
            raise
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return self._kept("cudaGraphExecDestroy", self._call("cudaGraphInstantiate", graph, 0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Handle, stream: Handle) -> None:
        """Start a graph."""
        self._call("cudaGraphLaunch", graph, stream)

    def close(self) -> None:
        """Free everything that is left, the latest first."""
        while self._others:
            self._call(*self._others.pop())
        while self._device:
            self._call("cudaFree", self._device.pop())


class PyCuda:
    """The driver API through `pycuda`; no graphs."""

    name = PYCUDA
    has_graphs = False

    def __init__(self) -> None:
        from pycuda import driver

        self._cuda = driver
        self._device: dict[int, Any] = {}
        self._checked(driver.init)
        self._gpu = self._checked(driver.Device, 0)
        # the context that TensorRT, which uses the runtime API, takes as well
        self._context = self._checked(self._gpu.retain_primary_context)
        self._checked(self._context.push)

    def _checked(self, call: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
        try:
            return call(*arguments)
        except self._cuda.Error as error:
            raise CudaError(f"{getattr(call, '__name__', call)}: {error}") from error

    def versions(self) -> dict[str, str]:
        """Return versions of the driver's CUDA and of the package."""
        from importlib.metadata import version

        number = self._checked(self._cuda.get_driver_version)
        return {"cuda-driver": _dotted(number), PYCUDA: version("pycuda")}

    def bus_id(self) -> str:
        """Return the GPU's place on the PCI bus."""
        return str(self._checked(self._gpu.pci_bus_id))

    def stream(self) -> Handle:
        """Make a stream that waits for no other (CU_STREAM_NON_BLOCKING is 1)."""
        return self._checked(self._cuda.Stream, 1)

    def stream_number(self, stream: Handle) -> int:
        """Return the stream's handle."""
        return int(stream.handle)

    def pinned(self, size_bytes: int) -> Bytes:
        """Return page-locked host memory; freed with the array."""
        memory: Bytes = self._checked(self._cuda.pagelocked_empty, size_bytes, np.uint8)
        return memory

    def device(self, size_bytes: int) -> int:
        """Return the address of device memory."""
        memory = self._checked(self._cuda.mem_alloc, size_bytes)
        self._device[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        """Free device memory."""
        self._checked(self._device.pop(address).free)

    def to_device(self, address: int, source: Bytes, stream: Handle) -> None:
        """Start copying host memory."""
        self._checked(self._cuda.memcpy_htod_async, address, _contiguous(source), stream)

    def to_host(self, target: Bytes, address: int, stream: Handle) -> None:
        """Start filling host memory."""
        self._checked(self._cuda.memcpy_dtoh_async, _contiguous(target), address, stream)

    def synchronize(self, stream: Handle) -> None:
        """Wait until a stream is done."""
        self._checked(stream.synchronize)

    def event(self) -> Handle:
        """Make an event that takes the time."""
        return self._checked(self._cuda.Event)

    def record(self, event: Handle, stream: Handle) -> None:
        """Let an event take the time when the stream arrives there."""
        self._checked(event.record, stream)

    def elapsed_ms(self, start: Handle, end: Handle) -> float:
        """Return the milliseconds between two events."""
        return float(self._checked(start.time_till, end))

    def capture(self, work: Callable[[], None], stream: Handle) -> Handle:
        """Refuse. Raises: CudaError."""
        raise CudaError(f"pycuda captures no graphs: take {CUDA_BINDINGS}, or turn them off")

    def launch(self, graph: Handle, stream: Handle) -> None:
        """Refuse. Raises: CudaError."""
        raise CudaError("pycuda has no graphs to launch")

    def close(self) -> None:
        """Free everything that is left, and leave the context."""
        while self._device:
            self._checked(self._device.popitem()[1].free)
        self._checked(self._context.pop)


def _contiguous(memory: Bytes) -> Bytes:
    if not memory.flags.c_contiguous:
        raise ValueError("only contiguous host memory is copied")
    return memory


def _dotted(number: int) -> str:
    """Spell CUDA's version number, 1000 * major + 10 * minor."""
    return f"{number // 1000}.{number % 1000 // 10}"
