"""A fake CUDA driver: device memory is memory of this process, streams are queues.

It is called fake because it is: no GPU computes anything. It holds what our code must keep to:
nothing on a stream happens before somebody waits for it, copies stay within what was allocated,
everything is freed once, and a graph replays what was captured. It is spoken to through the faces
of the two packages: `runtime` (names, parameters and enums from `cuda_runtime.json`) and `pycuda`.
"""

from __future__ import annotations

import ctypes
import enum
import importlib.metadata
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FACTS = json.loads(Path(__file__).with_name("cuda_runtime.json").read_text(encoding="utf-8"))
Work = Callable[[], None]


class FakeGpu:
    """Memory, queues and a clock that counts pieces of work, one millisecond each."""

    def __init__(self) -> None:
        self.device: dict[int, Any] = {}
        self.pinned: dict[int, Any] = {}
        self.queues: dict[int, list[Work]] = {}
        self.captured: dict[int, list[Work]] = {}
        self.clock_ms = 0.0
        self.launches = 0
        self.copies: list[tuple[str, int]] = []

    def allocate(self, pool: dict[int, Any], size_bytes: int) -> int:
        dirty = b"\xee" * size_bytes  # nobody may count on zeros
        memory = (ctypes.c_uint8 * size_bytes).from_buffer_copy(dirty)
        pool[ctypes.addressof(memory)] = memory
        return ctypes.addressof(memory)

    def stream(self) -> int:
        number = 1000 + len(self.queues)
        self.queues[number] = []
        return number

    def enqueue(self, stream: int, work: Work) -> None:
        """Put work on a stream, or into the graph that is being captured there."""
        (self.captured if stream in self.captured else self.queues)[stream].append(work)

    def copy(self, kind: str, target: int, source: int, size_bytes: int, stream: int) -> None:
        far = target if kind == "to_device" else source
        if not any(start <= far <= start + len(one) - size_bytes for start, one in self.inside()):
            raise AssertionError(f"{size_bytes} bytes at {far} are not within device memory")
        self.copies.append((kind, size_bytes))
        self.enqueue(stream, lambda: ctypes.memmove(target, source, size_bytes) and None)

    def inside(self) -> list[tuple[int, Any]]:
        return list(self.device.items())

    def bytes_at(self, address: int, size_bytes: int) -> bytes:
        """Read device memory as a kernel would."""
        return ctypes.string_at(address, size_bytes)

    def synchronize(self, stream: int) -> None:
        if stream in self.captured:
            raise AssertionError("nobody may wait for a stream that is being captured")
        while self.queues[stream]:
            self.clock_ms += 1
            self.queues[stream].pop(0)()

    def launch(self, graph: list[Work], stream: int) -> None:
        self.launches += 1
        self.queues[stream] += graph


class Object:
    """A handle; what CUDA's own are like."""

    def __init__(self, value: Any = 0) -> None:
        self.value = value
        self.time_ms: float | None = None

    def __int__(self) -> int:
        return int(self.value)


class FakeRuntime:
    """The face of `cuda.bindings.runtime`: strict names and parameters, error codes first.

    Args:
        gpu: what is behind it.
        fails: function → name of the error that it answers with.
    """

    def __init__(self, gpu: FakeGpu, fails: dict[str, str]) -> None:
        self.gpu, self.fails = gpu, fails
        self.alive: list[Object] = []
        for name, values in FACTS["enums"].items():
            setattr(self, name, enum.IntEnum(name, values))
        for name, value in FACTS["constants"].items():
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in FACTS["functions"]:
            raise AttributeError(f"cuda.bindings {FACTS['version']} has no {name!r} here")

        def call(*arguments: Any) -> tuple[Any, ...]:
            wanted = FACTS["functions"][name]
            if len(arguments) != len(wanted):
                raise TypeError(f"{name} takes {wanted}, not {len(arguments)} arguments")
            if name in self.fails:
                return (self.cudaError_t[self.fails[name]], *[None] * (name in _GIVES))
            found = getattr(_Calls, name)(self, *arguments)
            return (self.cudaError_t.cudaSuccess, *(() if found is None else (found,)))

        return call

    def keep(self, value: Any) -> Object:
        self.alive.append(Object(value))
        return self.alive[-1]

    def end(self, handle: Object) -> None:
        self.alive.remove(handle)


_GIVES = {"cudaMalloc", "cudaMallocHost", "cudaStreamCreateWithFlags", "cudaEventCreate"}


class _Calls:
    """What the functions do; `this` is a FakeRuntime."""

    def cudaSetDevice(self, device): ...
    def cudaDriverGetVersion(self):
        return 13000

    def cudaDeviceGetPCIBusId(self, length, device):
        return b"0000:65:00.0".ljust(length, b"\0")

    def cudaGetErrorString(self, error):
        return b"as the test wanted it"

    def cudaMalloc(self, size):
        return self.gpu.allocate(self.gpu.device, size)

    def cudaFree(self, address):
        if address:
            del self.gpu.device[address]

    def cudaMallocHost(self, size):
        return self.gpu.allocate(self.gpu.pinned, size)

    def cudaFreeHost(self, address):
        del self.gpu.pinned[address]

    def cudaStreamCreateWithFlags(self, flags):
        assert flags == self.cudaStreamNonBlocking
        return self.keep(self.gpu.stream())

    def cudaStreamDestroy(self, stream):
        self.end(stream)

    def cudaStreamSynchronize(self, stream):
        self.gpu.synchronize(int(stream))

    def cudaMemcpyAsync(self, target, source, count, kind, stream):
        to_device = kind is self.cudaMemcpyKind.cudaMemcpyHostToDevice
        assert to_device or kind is self.cudaMemcpyKind.cudaMemcpyDeviceToHost
        name = "to_device" if to_device else "to_host"
        self.gpu.copy(name, target, source, count, int(stream))

    def cudaEventCreate(self):
        return self.keep(1)

    def cudaEventDestroy(self, event):
        self.end(event)

    def cudaEventRecord(self, event, stream):
        self.gpu.enqueue(int(stream), lambda: setattr(event, "time_ms", self.gpu.clock_ms))

    def cudaEventElapsedTime(self, start, end):
        return end.time_ms - start.time_ms

    def cudaStreamBeginCapture(self, stream, mode):
        assert mode is self.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.gpu.captured[int(stream)] = []

    def cudaStreamEndCapture(self, stream):
        return self.keep(self.gpu.captured.pop(int(stream)))

    def cudaGraphInstantiate(self, graph, flags):
        return self.keep(list(graph.value))

    def cudaGraphDestroy(self, graph):
        self.end(graph)

    def cudaGraphExecDestroy(self, graph):
        self.end(graph)

    def cudaGraphLaunch(self, graph, stream):
        self.gpu.launch(graph.value, int(stream))


def fake_pycuda(gpu: FakeGpu, fails: dict[str, str]) -> types.SimpleNamespace:
    """Return the face of `pycuda.driver` 2026.1, as far as it is used; it knows no graphs."""

    class Error(Exception):
        pass

    def failing(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*arguments: Any) -> Any:
            if name in fails:
                raise Error(fails[name])
            return call(*arguments)

        return made

    class Stream:
        def __init__(self, flags: int = 0) -> None:
            self.handle = gpu.stream()

        def synchronize(self) -> None:
            gpu.synchronize(self.handle)

    class Event:
        def record(self, stream: Stream) -> Event:
            gpu.enqueue(stream.handle, lambda: setattr(self, "time_ms", gpu.clock_ms))
            return self

        def time_till(self, end: Event) -> float:
            return end.time_ms - self.time_ms

    class DeviceAllocation(Object):
        def free(self) -> None:
            del gpu.device[int(self)]

    class Context:
        def push(self) -> None: ...
        def pop(self) -> None: ...

    class Device:
        def __init__(self, number: int) -> None:
            assert number == 0

        def retain_primary_context(self) -> Context:
            return Context()

        def pci_bus_id(self) -> str:
            return "0000:65:00.0"

    def to_device(dest: int, src: np.ndarray, stream: Stream) -> None:
        gpu.copy("to_device", dest, src.ctypes.data, src.nbytes, stream.handle)

    def to_host(dest: np.ndarray, src: int, stream: Stream) -> None:
        gpu.copy("to_host", dest.ctypes.data, src, dest.nbytes, stream.handle)

    return types.SimpleNamespace(
        Error=Error,
        Stream=Stream,
        Event=Event,
        Device=Device,
        init=lambda: None,
        get_driver_version=lambda: 13000,
        pagelocked_empty=lambda shape, dtype: np.empty(shape, dtype),
        mem_alloc=failing("mem_alloc", lambda n: DeviceAllocation(gpu.allocate(gpu.device, n))),
        memcpy_htod_async=failing("memcpy_htod_async", to_device),
        memcpy_dtoh_async=to_host,
    )


def install(monkeypatch: pytest.MonkeyPatch, **fails: str) -> FakeGpu:
    """Let both packages be fakes over one GPU, which is returned; `fails` names what fails."""
    gpu = FakeGpu()
    bindings = types.ModuleType("cuda.bindings")
    bindings.runtime, bindings.__version__ = FakeRuntime(gpu, fails), FACTS["version"]
    cuda, pycuda = types.ModuleType("cuda"), types.ModuleType("pycuda")
    cuda.bindings, pycuda.driver = bindings, fake_pycuda(gpu, fails)
    modules = {
        "cuda": cuda,
        "cuda.bindings": bindings,
        "cuda.bindings.runtime": bindings.runtime,
        "pycuda": pycuda,
        "pycuda.driver": pycuda.driver,
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    version = importlib.metadata.version
    told = {"pycuda": "2026.1"}
    monkeypatch.setattr(importlib.metadata, "version", lambda one: told.get(one) or version(one))
    return gpu
