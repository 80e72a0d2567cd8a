"""Both CUDA interfaces over a fake driver, and the names that they use in the real package.

The fake stands where a GPU would; see `tensorrt_api.fake_cuda`. Tests marked `gpu` do the same on
a real one.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from tensorrt_api import fake_cuda

from targets.tensorrt.cuda import CUDA_BINDINGS, PYCUDA, CudaError, open_cuda
from targets.tensorrt.cuda_interface import Cuda
from targets.tensorrt.sdk import lacks_cuda_package

BOTH = (CUDA_BINDINGS, PYCUDA)


def round_trip(cuda: Cuda) -> np.ndarray:
    """Send 64 bytes to the device and back; the target is zero until somebody waits."""
    stream = cuda.stream()
    source, target = cuda.pinned(64), cuda.pinned(64)
    source[:], target[:] = np.arange(64), 0
    address = cuda.device(64)
    start, end = cuda.event(), cuda.event()
    cuda.record(start, stream)
    cuda.to_device(address, source, stream)
    cuda.to_host(target, address, stream)
    cuda.record(end, stream)
    cuda.synchronize(stream)
    assert cuda.elapsed_ms(start, end) > 0
    cuda.free(address)
    return target


@pytest.mark.parametrize("name", BOTH)
def test_bytes_come_back_and_everything_is_freed(name, monkeypatch):
    gpu = fake_cuda.install(monkeypatch)
    cuda = open_cuda(name)
    np.testing.assert_array_equal(round_trip(cuda), np.arange(64))
    cuda.device(16)
    cuda.close()
    assert gpu.device == {}
    assert gpu.pinned == {}
    if name == CUDA_BINDINGS:
        assert sys.modules["cuda.bindings.runtime"].alive == []


@pytest.mark.parametrize("name", BOTH)
def test_nothing_is_there_before_somebody_waits(name, monkeypatch):
    """The fake's own twin: a session that forgets to wait reads old bytes."""
    fake_cuda.install(monkeypatch)
    cuda = open_cuda(name)
    stream, address = cuda.stream(), cuda.device(8)
    source, target = cuda.pinned(8), cuda.pinned(8)
    source[:], target[:] = 7, 0
    cuda.to_device(address, source, stream)
    cuda.to_host(target, address, stream)
    assert not target.any()
    cuda.synchronize(stream)
    assert (target == 7).all()


@pytest.mark.parametrize("name", BOTH)
def test_copies_beyond_what_was_allocated_are_noticed_by_the_fake(name, monkeypatch):
    fake_cuda.install(monkeypatch)
    cuda = open_cuda(name)
    with pytest.raises(AssertionError, match="not within device memory"):
        cuda.to_device(cuda.device(8), cuda.pinned(16), cuda.stream())


@pytest.mark.parametrize(
    ("name", "fails", "does"),
    [
        (CUDA_BINDINGS, {"cudaMalloc": "cudaErrorMemoryAllocation"}, lambda c: c.device(8)),
        (CUDA_BINDINGS, {"cudaStreamCreateWithFlags": "cudaErrorUnknown"}, lambda c: c.stream()),
        (CUDA_BINDINGS, {"cudaStreamSynchronize": "cudaErrorIllegalAddress"}, round_trip),
        (CUDA_BINDINGS, {"cudaMemcpyAsync": "cudaErrorInvalidValue"}, round_trip),
        (CUDA_BINDINGS, {"cudaEventRecord": "cudaErrorInvalidResourceHandle"}, round_trip),
        (PYCUDA, {"mem_alloc": "out of memory"}, lambda c: c.device(8)),
        (PYCUDA, {"memcpy_htod_async": "invalid argument"}, round_trip),
    ],
)
def test_every_code_that_is_no_success_is_an_error_by_name(name, fails, does, monkeypatch):
    fake_cuda.install(monkeypatch, **fails)
    cuda = open_cuda(name)
    said = next(iter(fails.values()))
    with pytest.raises(CudaError, match=said):
        does(cuda)


def test_no_gpu_is_said_when_it_is_opened(monkeypatch):
    fake_cuda.install(monkeypatch, cudaSetDevice="cudaErrorNoDevice")
    with pytest.raises(CudaError, match=r"cudaSetDevice: cudaErrorNoDevice \(100\)"):
        open_cuda(CUDA_BINDINGS)


def replay(cuda: Cuda) -> None:
    """Capture a copy there and back; every launch must bring what the source holds then."""
    stream, address = cuda.stream(), cuda.device(4)
    source, target = cuda.pinned(4), cuda.pinned(4)
    target[:] = 0

    def work() -> None:
        cuda.to_device(address, source, stream)
        cuda.to_host(target, address, stream)

    graph = cuda.capture(work, stream)
    cuda.synchronize(stream)
    assert not target.any()  # captured, not run
    for value in (3, 9):
        source[:] = value
        cuda.launch(graph, stream)
        cuda.synchronize(stream)
        assert (target == value).all()


def test_a_graph_replays_what_was_captured(monkeypatch):
    gpu = fake_cuda.install(monkeypatch)
    replay(open_cuda(CUDA_BINDINGS))
    assert gpu.launches == 2


def test_what_fails_within_a_capture_is_raised_and_the_capture_ended(monkeypatch):
    gpu = fake_cuda.install(monkeypatch)
    cuda = open_cuda(CUDA_BINDINGS)

    def work() -> None:
        raise RuntimeError("the engine refuses")

    with pytest.raises(RuntimeError, match="the engine refuses"):
        cuda.capture(work, cuda.stream())
    assert gpu.captured == {}


def test_pycuda_has_no_graphs_and_says_so(monkeypatch):
    fake_cuda.install(monkeypatch)
    cuda = open_cuda(PYCUDA)
    assert not cuda.has_graphs
    with pytest.raises(CudaError, match="captures no graphs"):
        cuda.capture(lambda: None, cuda.stream())


def test_memory_with_gaps_is_not_copied(monkeypatch):
    fake_cuda.install(monkeypatch)
    cuda = open_cuda(CUDA_BINDINGS)
    with pytest.raises(ValueError, match="contiguous"):
        cuda.to_device(cuda.device(8), cuda.pinned(16)[::2], cuda.stream())


def test_another_interface_is_refused():
    with pytest.raises(ValueError, match="'cupy' is neither"):
        open_cuda("cupy")


@pytest.mark.parametrize("name", BOTH)
def test_versions_and_place_are_told(name, monkeypatch):
    fake_cuda.install(monkeypatch)
    cuda = open_cuda(name)
    assert cuda.bus_id() == "0000:65:00.0"
    assert cuda.versions()["cuda-driver"] == "13.0"
    assert name in cuda.versions()
    assert cuda.stream_number(cuda.stream()) > 0


@pytest.mark.parametrize("name", ["cuda.bindings", "pycuda"])
def test_one_of_the_two_packages_is_enough(name, monkeypatch):
    def only(one: str) -> object:
        if one != name and "." in one:
            raise ModuleNotFoundError("No module named 'cuda'")
        return object() if one == name else None

    monkeypatch.setattr(importlib.util, "find_spec", only)
    assert lacks_cuda_package() == ()


def test_without_both_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (missing,) = lacks_cuda_package()
    assert "pip install 'embedding-exporter[tensorrt]'" in missing


# ----------------------------------------------------- against the package and a real GPU


def test_the_facts_are_those_of_the_installed_package():
    pytest.importorskip("cuda.bindings.runtime", reason="pip install cuda-bindings")
    from tensorrt_api.generate_cuda import read_runtime

    found = read_runtime()
    assert found["functions"] == fake_cuda.FACTS["functions"]
    assert "cudaStreamSynchronise" not in found["names"]
    for name, values in fake_cuda.FACTS["enums"].items():
        assert values.items() <= found["enums"][name].items()


def test_a_misspelt_function_is_none():
    runtime = fake_cuda.FakeRuntime(fake_cuda.FakeGpu(), {})
    with pytest.raises(AttributeError, match="cudaStreamSynchronise"):
        _ = runtime.cudaStreamSynchronise
    with pytest.raises(TypeError, match="takes"):
        runtime.cudaMalloc(1, 2)


@pytest.fixture
def real(request: pytest.FixtureRequest) -> Iterator[Cuda]:
    try:
        cuda = open_cuda(request.param)
    except (ImportError, CudaError) as error:
        pytest.skip(f"no GPU through {request.param} here: {error}")
    yield cuda
    cuda.close()


@pytest.mark.gpu
@pytest.mark.parametrize("real", BOTH, indirect=True)
def test_bytes_come_back_from_a_real_gpu(real):
    np.testing.assert_array_equal(round_trip(real), np.arange(64))
    assert real.bus_id()
    assert real.stream_number(real.stream()) > 0


@pytest.mark.gpu
@pytest.mark.parametrize("real", [CUDA_BINDINGS], indirect=True)
def test_a_graph_replays_on_a_real_gpu(real):
    replay(real)


@pytest.mark.gpu
@pytest.mark.parametrize("real", BOTH, indirect=True)
def test_more_memory_than_there_is_fails_on_a_real_gpu(real):
    with pytest.raises(CudaError):
        real.device(1 << 50)
