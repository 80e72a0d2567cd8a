"""Timings of kernels between builds: kept by version and GPU, merged, cold where they do not fit.

TensorRT's part is played by a configuration that answers as its bindings may: None, False, True.
"""

from __future__ import annotations

import pytest

from targets.errors import CompileError, StorageError
from targets.tensorrt.timing_cache import TimingCache


class Timings:
    """A set of timings; `combine` merges as TensorRT's does."""

    def __init__(self, data: bytes) -> None:
        self.known = set(data.split())

    def combine(self, other: Timings, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        self.known |= other.known
        return True

    def serialize(self) -> bytes:
        return b" ".join(sorted(self.known))


class Config:
    """Refuses caches that hold `foreign`, by None or by False."""

    def __init__(self, *, refuses_by=None, refuses_all: bool = False) -> None:
        self.refuses_by, self.refuses_all = refuses_by, refuses_all
        self.cache: Timings | None = None

    def create_timing_cache(self, data: bytes) -> Timings | None:
        if self.refuses_all or (b"foreign" in data and self.refuses_by is None):
            return None
        return Timings(data)

    def set_timing_cache(self, cache: Timings, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        if b"foreign" in cache.known:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> Timings | None:
        return self.cache

    def build(self, *learnt: bytes) -> None:
        self.cache.known |= set(learnt)


@pytest.fixture
def cache(tmp_path):
    return TimingCache(path=tmp_path / "a" / "gpu.timing")


def test_what_one_build_learnt_the_next_one_knows(cache):
    first, second = Config(), Config()
    cache.attach(first)
    assert first.cache.known == set()
    first.build(b"gemm")
    cache.keep(first)
    cache.attach(second)
    assert second.cache.known == {b"gemm"}


def test_two_builds_at_once_lose_nothing(cache):
    one, other = Config(), Config()
    cache.attach(one)
    cache.attach(other)
    one.build(b"gemm")
    other.build(b"softmax")
    cache.keep(one)
    cache.keep(other)
    assert cache.read() == b"gemm softmax"


@pytest.mark.parametrize("refuses_by", [None, False])
def test_a_cache_of_another_gpu_is_a_cold_one(cache, refuses_by):
    cache.path.parent.mkdir()
    cache.path.write_bytes(b"foreign")
    config = Config(refuses_by=refuses_by)
    cache.attach(config)
    assert config.cache.known == set()


def test_a_configuration_that_takes_none_is_an_error(cache):
    with pytest.raises(CompileError, match="takes no timing cache"):
        cache.attach(Config(refuses_all=True))


def test_every_version_and_gpu_has_a_file_of_its_own(tmp_path):
    names = {
        TimingCache.for_gpu(tmp_path, version, gpu).path.name
        for version in ("10.16.1.11", "11.4.0.106")
        for gpu in ("NVIDIA H100 80GB HBM3 sm_90", "NVIDIA L4 sm_89")
    }
    assert len(names) == 4
    assert "11.4.0.106-nvidia-l4-sm-89.timing" in names


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache, config = TimingCache(path=tmp_path / "file" / "gpu.timing"), Config()
    cache.attach(config)
    with pytest.raises(StorageError, match="cannot be written"):
        cache.keep(config)


def test_a_build_without_a_cache_keeps_none(cache):
    cache.keep(Config())
    assert cache.read() == b""
