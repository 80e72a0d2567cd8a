"""A fake engine behind the strict stand-in: a lookup and a mean, computed on the fake GPU's memory.

It holds a session to what TensorRT demands: memory, profile, shapes and addresses are set before a
batch runs; shapes lie within the profile; ids lie within the table.
"""

from __future__ import annotations

import ctypes
import json
from typing import Any

import numpy as np
from tensorrt_api.fake_cuda import FakeGpu
from tensorrt_api.stand_in import StandIn, make_module

INPUTS = ("input_ids", "attention_mask")
OUTPUTS = ("last_hidden_state", "sentence_embedding")
DIM, VOCABULARY = 4, 100  # the ids of a runner's own texts reach so far
TABLE = np.random.default_rng(0).normal(size=(VOCABULARY, DIM)).astype(np.float32)
PROFILES = (((1, 1), (2, 4), (4, 8)), ((1, 1), (2, 8), (8, 16)))
SCRATCH_BYTES = 512
LAYERS = json.dumps(
    {
        "Layers": [
            {
                "Name": "lookup_myl0_1",
                "LayerType": "kgen",
                "Inputs": [{"Name": "input_ids", "Format/Datatype": "Int64"}],
            },
            {
                "Name": "q+k+v_myl0_2",
                "LayerType": "gemm",
                "Inputs": [{"Name": "x", "Format/Datatype": "Int8"}],
            },
            {
                "Name": "__mye_mha_myl0_3",
                "LayerType": "kgen",
                "Inputs": [{"Name": "q", "Format/Datatype": "Half"}],
            },
        ]
    }
)


def embed(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return what the engine computes: the mean of the rows that the mask keeps."""
    weights = mask[..., None].astype(np.float32)
    return (TABLE[ids] * weights).sum(1) / weights.sum(1)


class FakeEngine:
    """Answers for the stand-in.

    Args:
        gpu: whose memory it computes on.
        half: the embedding is float16.
        poison: ids that give NaN.
    """

    def __init__(self, gpu: FakeGpu, *, half: bool = False, poison: int = -1) -> None:
        self.gpu, self.poison = gpu, poison
        self.dtype = np.float16 if half else np.float32
        self.runs = 0

    def module(self, major: int, **changes: Any) -> StandIn:
        """Make the module; `changes` are answers as `Class__member=value`."""
        answers = {
            "ICudaEngine.num_io_tensors": len(INPUTS + OUTPUTS),
            "ICudaEngine.num_optimization_profiles": len(PROFILES),
            "ICudaEngine.device_memory_size_v2": SCRATCH_BYTES,
            "ICudaEngine.get_tensor_name": lambda _, index: (INPUTS + OUTPUTS)[index],
            "ICudaEngine.get_tensor_mode": self._mode,
            "ICudaEngine.get_tensor_dtype": self._dtype,
            "ICudaEngine.get_tensor_profile_shape": self._profile,
            "IExecutionContext.set_device_memory": self._memory,
            "IExecutionContext.set_optimization_profile_async": self._take_profile,
            "IExecutionContext.set_input_shape": self._take_shape,
            "IExecutionContext.set_tensor_address": self._take_address,
            "IExecutionContext.get_tensor_shape": self._shape,
            "IExecutionContext.execute_async_v3": self._execute,
            "EngineInspector.get_engine_information": LAYERS,
        }
        given = {name.replace("__", ".", 1): value for name, value in changes.items()}
        self.made = make_module(major, answers | given)
        return self.made

    def _mode(self, _: Any, name: str) -> Any:
        modes = self.made.TensorIOMode
        return modes.INPUT if name in INPUTS else modes.OUTPUT

    def _dtype(self, _: Any, name: str) -> Any:
        types = self.made.DataType
        if name in INPUTS:
            return types.INT64
        half = self.dtype == np.float16 and name == "sentence_embedding"
        return types.HALF if half else types.FLOAT

    def _profile(self, _: Any, name: str, profile_index: int) -> list[tuple[int, int]]:
        assert name in INPUTS
        return list(PROFILES[profile_index])

    def _memory(self, context: Any, memory: int, size: int) -> None:
        assert len(self.gpu.device[memory]) >= size >= SCRATCH_BYTES
        context._state["scratch"] = memory

    def _take_profile(self, context: Any, profile_index: int, stream_handle: int) -> bool:
        assert stream_handle in self.gpu.queues
        context._state.update(profile=profile_index, shapes={}, addresses={})
        return True

    def _take_shape(self, context: Any, name: str, shape: tuple[int, int]) -> bool:
        low, _, high = PROFILES[context._state["profile"]]
        if not all(a <= x <= b for a, x, b in zip(low, shape, high, strict=True)):
            return False
        context._state["shapes"][name] = tuple(shape)
        return True

    def _take_address(self, context: Any, name: str, memory: int) -> bool:
        if memory not in self.gpu.device:
            return False
        context._state["addresses"][name] = memory
        return True

    def _shape(self, context: Any, name: str) -> tuple[int, ...]:
        shape = context._state["shapes"]["input_ids"]
        if name in INPUTS:
            return shape
        return (*shape, DIM) if name == "last_hidden_state" else (shape[0], DIM)

    def _execute(self, context: Any, stream_handle: int) -> bool:
        state = context._state
        if "scratch" not in state or set(state["addresses"]) != set(INPUTS + OUTPUTS):
            return False
        shape, addresses = state["shapes"]["input_ids"], dict(state["addresses"])
        self.gpu.enqueue(stream_handle, lambda: self._compute(shape, addresses))
        return True

    def _compute(self, shape: tuple[int, int], addresses: dict[str, int]) -> None:
        self.runs += 1
        read = [self.gpu.bytes_at(addresses[name], int(np.prod(shape)) * 8) for name in INPUTS]
        ids, mask = (np.frombuffer(data, np.int64).reshape(shape) for data in read)
        if ids.min() < 0 or ids.max() >= VOCABULARY:
            raise AssertionError("an illegal memory access: ids beyond the table")
        rows = embed(ids, mask)
        rows[(ids == self.poison).any(1)] = np.nan
        data = rows.astype(self.dtype).tobytes()
        assert len(self.gpu.device[addresses["sentence_embedding"]]) >= len(data)
        ctypes.memmove(addresses["sentence_embedding"], data, len(data))
