"""TensorRT 10's entropy calibrator on the strict stand-in, with a fake driver behind it.

TensorRT's own part is played by `drive`: it calls back as TensorRT does, and swallows what a
callback raises, as TensorRT does too.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorrt_api import fake_cuda
from tensorrt_api.stand_in import StandIn, make_module

from targets.contract import TokenSequences
from targets.errors import CalibrationError, CompileError, ConfigError
from targets.tensorrt import calibrator as calibrator_module
from targets.tensorrt.build_plan import BuildPlan, Profile
from targets.tensorrt.calibration_batches import batches_of
from targets.tensorrt.calibration_cache import CalibrationCache
from targets.tensorrt.calibrator import build_calibrated
from targets.tensorrt.cuda import CUDA_BINDINGS, open_cuda
from targets.tensorrt.cuda_interface import Cuda

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
SHAPE = (2, 5)
PLAN = BuildPlan(
    graph="m.onnx",
    inputs=INPUTS,
    profiles=(
        Profile(smallest=(1, 1), typical=(1, 2), largest=(4, 4)),
        Profile(smallest=(1, 1), typical=SHAPE, largest=(4, 8)),
    ),
)
GRAPH = Path("model.onnx")
TEXTS = TokenSequences.from_lists([[7, 8], [9] * 9, [5, 6, 7], [4], [3, 3]], pad_token_id=1)
CHOSEN = CalibrationCache(scales={"x": 0.5, "y": 0.25}, version=(10, 16, 1)).to_bytes()


class Driver:
    """Plays TensorRT's part while an engine is built."""

    def __init__(self, asks: tuple[str, ...] = INPUTS[::-1], *, gives: bool = True) -> None:
        self.asks, self.gives = list(asks), gives
        self.seen: list[dict[str, np.ndarray]] = []
        self.pointers: list[list[int]] = []
        self.cache: bytes | None = None
        self.end: str = ""
        self.builds = True

    def drive(self, calibrator: Any) -> None:
        self.cache = self._swallowing(calibrator.read_calibration_cache)
        if self.cache is not None:
            return
        assert calibrator.get_batch_size() == 1
        while pointers := self._swallowing(lambda: calibrator.get_batch(self.asks)):
            self.pointers.append(pointers)
            self.seen.append({n: read_int64(p) for n, p in zip(self.asks, pointers, strict=True)})
        if self.gives:
            view = bytearray(CHOSEN)
            self._swallowing(lambda: calibrator.write_calibration_cache(memoryview(view)))
            view[:] = b"\0" * len(view)  # TensorRT's memory is gone after the call

    def _swallowing(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except BaseException as error:
            self.end = type(error).__name__
            return None


def read_int64(address: int) -> np.ndarray:
    size_bytes = SHAPE[0] * SHAPE[1] * 8
    data = ctypes.string_at(address, size_bytes)
    return np.frombuffer(data, np.int64).reshape(SHAPE)


def module_with(driver: Driver) -> StandIn:
    made: StandIn

    def get_input(_: Any, index: int) -> Any:
        tensor = made.new("ITensor")
        tensor.name = INPUTS[index]
        return tensor

    def build(_: Any, network: Any, config: Any) -> Any:
        driver.drive(config.int8_calibrator)
        return made.new("IHostMemory") if driver.builds else None

    made = make_module(
        10,
        {
            "INetworkDefinition.num_inputs": len(INPUTS),
            "INetworkDefinition.get_input": get_input,
            "Builder.build_serialized_network": build,
        },
    )
    return made


@pytest.fixture
def gpu(monkeypatch):
    return fake_cuda.install(monkeypatch)


@pytest.fixture
def cuda(gpu) -> Cuda:
    return open_cuda(CUDA_BINDINGS)


def build(driver: Driver, cuda: Cuda, cache: Path | None = None, texts=TEXTS) -> StandIn:
    module = module_with(driver)
    assert build_calibrated(module, GRAPH, PLAN, texts, cuda, cache).data
    return module


def test_whole_batches_of_the_typical_shape_reach_the_device(gpu, cuda):
    driver = Driver()
    build(driver, cuda)
    assert len(driver.seen) == 2  # five texts: the fifth fills no batch
    np.testing.assert_array_equal(driver.seen[0]["input_ids"], [[7, 8, 1, 1, 1], [9] * 5])
    np.testing.assert_array_equal(driver.seen[0]["attention_mask"], [[1, 1, 0, 0, 0], [1] * 5])
    np.testing.assert_array_equal(driver.seen[1]["input_ids"], [[5, 6, 7, 1, 1], [4, 1, 1, 1, 1]])
    assert not driver.seen[1]["token_type_ids"].any()
    assert gpu.device == {}  # freed


def test_there_is_one_pointer_for_each_name_in_the_order_asked_for(cuda):
    driver = Driver(asks=("attention_mask", "input_ids", "token_type_ids"))
    build(driver, cuda)
    assert [len(one) for one in driver.pointers] == [3, 3]
    assert len(set(driver.pointers[0])) == 3
    assert driver.pointers[0] == driver.pointers[1]  # memory is used again
    np.testing.assert_array_equal(driver.seen[1]["input_ids"][1], [4, 1, 1, 1, 1])


def test_the_builder_is_told_to_calibrate_and_to_choose_types(cuda):
    module = build(Driver(), cuda)
    assert module.called("Builder.create_network") == [{"flags": 0}]
    flags = [one["flag"].name for one in module.called("IBuilderConfig.set_flag")]
    assert flags == ["FP16", "INT8"]
    (calibrated,) = module.called("IBuilderConfig.set_calibration_profile")
    assert (
        calibrated["profile"]
        is module.called("IBuilderConfig.add_optimization_profile")[-1]["profile"]
    )


def test_scales_are_written_and_read_again_under_this_version_s_header(cuda, tmp_path):
    path = tmp_path / "calibration.cache"
    build(Driver(), cuda, path)
    assert path.read_bytes() == CHOSEN  # copied before TensorRT's memory went
    assert list(tmp_path.iterdir()) == [path]
    path.write_bytes(CHOSEN.replace(b"TRT-101601", b"TRT-100900"))
    again = Driver()
    build(again, cuda, path)
    assert again.cache == CHOSEN
    assert again.seen == []


def test_a_damaged_cache_is_an_error_and_not_a_silent_calibration(cuda, tmp_path):
    path = tmp_path / "calibration.cache"
    path.write_bytes(CHOSEN[:-3])
    with pytest.raises(CalibrationError, match="line 3 of the calibration cache"):
        build(Driver(), cuda, path)


# -------------------------------------------- what TensorRT swallows comes out all the same


def failing(at: int):
    def batches(tokens: TokenSequences, plan: BuildPlan):
        for number, batch in enumerate(batches_of(tokens, plan)):
            if number == at:
                raise OSError("the texts' disk is gone")
            yield batch

    return batches


def test_an_exception_in_a_callback_is_raised_after_the_build(gpu, cuda, monkeypatch):
    monkeypatch.setattr(calibrator_module, "batches_of", failing(1))
    driver = Driver()
    with pytest.raises(CalibrationError, match="while TensorRT was calibrating") as caught:
        build(driver, cuda)
    assert "OSError: the texts' disk is gone" in caught.value.why
    assert len(driver.seen) == 1
    assert driver.end == ""  # nothing was left for TensorRT to swallow
    assert gpu.device == {}


def test_what_failed_first_is_raised_when_the_build_fails_after_it(cuda, monkeypatch):
    monkeypatch.setattr(calibrator_module, "batches_of", failing(0))
    driver = Driver()
    driver.builds = False
    with pytest.raises(CalibrationError, match="while TensorRT was calibrating"):
        build(driver, cuda)


def test_a_build_that_fails_by_itself_is_told_as_that(gpu, cuda):
    driver = Driver()
    driver.builds = False
    with pytest.raises(CompileError, match="builds no engine"):
        build(driver, cuda)
    assert gpu.device == {}


def test_ctrl_c_within_a_callback_stays_ctrl_c(cuda, monkeypatch):
    def interrupted(tokens: TokenSequences, plan: BuildPlan):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(calibrator_module, "batches_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(Driver(), cuda)


def test_other_names_than_the_batches_have_are_refused(cuda):
    with pytest.raises(CalibrationError, match="TensorRT asks for"):
        build(Driver(asks=("input_ids", "position_ids")), cuda)


def test_a_copy_that_cuda_refuses_is_an_error(monkeypatch):
    fake_cuda.install(monkeypatch, cudaMemcpyAsync="cudaErrorInvalidValue")
    with pytest.raises(CalibrationError) as caught:
        build(Driver(), open_cuda(CUDA_BINDINGS))
    assert "cudaErrorInvalidValue" in caught.value.why


def test_no_scales_are_no_calibration(cuda):
    with pytest.raises(CalibrationError, match="did not calibrate"):
        build(Driver(gives=False), cuda)


def test_too_few_texts_are_refused_before_anything_is_built(cuda):
    with pytest.raises(CalibrationError, match="1 calibration texts fill no batch of 2"):
        build(Driver(), cuda, texts=TEXTS.select([0]))


def test_tensorrt_11_names_the_explicit_mode(cuda):
    with pytest.raises(ConfigError, match=r"TensorRT 11\.4.* has no entropy calibrator") as caught:
        build_calibrated(make_module(11), GRAPH, PLAN, TEXTS, cuda)
    assert "--calibrator entropy" in caught.value.hint


def test_a_profile_that_is_no_calibration_profile_is_refused(cuda):
    module = module_with(Driver())
    module._answers["IBuilderConfig.set_calibration_profile"] = False
    with pytest.raises(CompileError, match="calibration profile"):
        build_calibrated(module, GRAPH, PLAN, TEXTS, cuda)
