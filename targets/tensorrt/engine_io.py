"""The inputs, outputs and optimization profiles of an engine.

Imports numpy only: the session adapter loads this file by its path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Shape = tuple[int, int]
Profile = tuple[Shape, Shape]
"""Smallest and largest shape [batch, sequence]; every input has the same."""
_DTYPES: dict[str, np.dtype[Any]] = {
    "INT64": np.dtype(np.int64),
    "INT32": np.dtype(np.int32),
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
}


class Names(Protocol):
    """What this file reads of the runner's plan."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Graph input names."""

    @property
    def output(self) -> str:
        """Name of the embedding output."""


class Tensor:
    """An input or output: its type, and memory for the largest shape, pinned and on the device."""

    def __init__(self, name: str, dtype: np.dtype[Any]) -> None:
        self.name = name
        self.dtype = dtype
        self.size_bytes = 0
        self.address = 0
        self.pinned: NDArray[np.uint8] = np.empty(0, np.uint8)

    def needs(self, shape: Sequence[int]) -> None:
        """Make sure that a shape will fit; before memory is taken."""
        self.size_bytes = max(self.size_bytes, self._size_bytes(shape))

    def part(self, shape: Sequence[int]) -> NDArray[np.uint8]:
        """Return the pinned bytes of a shape."""
        return self.pinned[: self._size_bytes(shape)]

    def _size_bytes(self, shape: Sequence[int]) -> int:
        return int(np.prod(shape)) * self.dtype.itemsize


def read_tensors(module: Any, engine: Any) -> tuple[dict[str, Tensor], dict[str, Tensor]]:  # noqa: ANN401
    """Return an engine's inputs and outputs by name.

    Raises:
        ValueError: a tensor has a type that nothing of ours has.
    """
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    for number in range(engine.num_io_tensors):
        name = engine.get_tensor_name(number)
        kind = engine.get_tensor_dtype(name).name
        if kind not in _DTYPES:
            raise ValueError(f"tensor {name!r} of the engine is {kind}")
        is_input = engine.get_tensor_mode(name) == module.TensorIOMode.INPUT
        (inputs if is_input else outputs)[name] = Tensor(name, _DTYPES[kind])
    return inputs, outputs


def require_plan(inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor], plan: Names) -> None:
    """Refuse an engine of other tensors than the plan's.

    Raises:
        ValueError: names both sides.
    """
    if set(inputs) != set(plan.inputs):
        raise ValueError(f"the plan feeds {list(plan.inputs)}, the engine takes {list(inputs)}")
    if plan.output not in outputs:
        raise ValueError(f"no output {plan.output!r} among {sorted(outputs)}")


def read_profiles(engine: Any, name: str) -> list[Profile]:  # noqa: ANN401
    """Return an engine's optimization profiles, as one of its inputs has them."""
    found: list[Profile] = []
    for number in range(engine.num_optimization_profiles):
        low, _, high = engine.get_tensor_profile_shape(name, number)
        found.append(((int(low[0]), int(low[1])), (int(high[0]), int(high[1]))))
    return found


def profile_of(shape: Shape, profiles: Sequence[Profile]) -> int:
    """Return the first profile that a shape fits into; earlier ones are for smaller shapes.

    Raises:
        ValueError: it fits none; names all.
    """
    for number, (low, high) in enumerate(profiles):
        if all(a <= x <= b for a, x, b in zip(low, shape, high, strict=True)):
            return number
    known = ", ".join(f"{low} to {high}" for low, high in profiles)
    raise ValueError(f"a batch of shape {shape} fits no optimization profile: {known}")
