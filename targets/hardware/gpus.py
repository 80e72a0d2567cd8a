"""NVIDIA GPUs by compute capability, as data: what their tensor cores multiply, who supports them.

A format is listed where the GPU has the instruction itself. Formats were checked by assembling one
product of each with ptxas 13.5 for every capability (`mma.sync`, `wgmma`, `tcgen05.mma`): what it
refuses is not there, and int4 is left out from 9.0 on because ptxas assembles it into four times
the code there, an emulation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from targets.errors import ConfigError
from targets.hardware.profiles import nearest

TensorFormat = Literal["tf32", "bfloat16", "float16", "fp8", "fp4", "int8", "int4"]

GPU_SOURCES: Mapping[str, str] = {
    "cuda-gpus": "NVIDIA, CUDA GPUs (developer.nvidia.com/cuda-gpus): products of each capability",
    "ptxas": "ptxas of CUDA 13.5: formats that it assembles natively",
    "tensorrt-10": "NVIDIA TensorRT 10 support matrix",
    "tensorrt-11": "kernels inside libnvinfer_lean of TensorRT 11.4 for x86 (sm_75, 80, 86, 89, "
    "90, 100, 103, 120)",
    "tensorrt-rtx": "capabilities that TensorRT-RTX 1.7 compiles for ahead of time",
}
"""Key in `GpuProfile.sources` → what it is and what was taken from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProfile:
    """What GPUs of one compute capability have, whether or not one is at hand.

    Args:
        compute_capability: as NVIDIA writes it, "9.0".
        generation: NVIDIA's name of the architecture.
        names: products, the best known first.
        tensor_formats: what the tensor cores multiply, floats first.
        tensorrt: major versions of TensorRT that support it, as far as `sources` tell.
        tensorrt_rtx: whether TensorRT-RTX compiles for it.
        sources: keys of `GPU_SOURCES`.
        note: what a reader should know beside that; "" for nothing.
    """

    compute_capability: str
    generation: str
    names: tuple[str, ...]
    tensor_formats: tuple[TensorFormat, ...]
    tensorrt: tuple[int, ...]
    tensorrt_rtx: bool
    sources: tuple[str, ...]
    note: str = ""

    @property
    def sm(self) -> str:
        """The capability as compilers spell it, "sm_90"."""
        return f"sm_{self.compute_capability.replace('.', '')}"


_TURING: tuple[TensorFormat, ...] = ("float16", "int8", "int4")
_AMPERE: tuple[TensorFormat, ...] = ("tf32", "bfloat16", "float16", "int8", "int4")
_ADA: tuple[TensorFormat, ...] = ("tf32", "bfloat16", "float16", "fp8", "int8", "int4")
_HOPPER: tuple[TensorFormat, ...] = ("tf32", "bfloat16", "float16", "fp8", "int8")
_BLACKWELL: tuple[TensorFormat, ...] = ("tf32", "bfloat16", "float16", "fp8", "fp4", "int8")

_BOTH = ("cuda-gpus", "ptxas", "tensorrt-10", "tensorrt-11")
_ONLY_10 = ("cuda-gpus", "ptxas", "tensorrt-10")
_RTX = "tensorrt-rtx"

_GPUS: tuple[GpuProfile, ...] = (
    GpuProfile(
        compute_capability="7.5",
        generation="Turing",
        names=("T4", "RTX 2060", "RTX 2070", "RTX 2080", "RTX 2080 Ti", "Quadro RTX 8000"),
        tensor_formats=_TURING,
        tensorrt=(10, 11),
        tensorrt_rtx=True,
        sources=(*_BOTH, _RTX),
        note="GTX 16 cards have this capability and no tensor cores",
    ),
    GpuProfile(
        compute_capability="8.0",
        generation="Ampere",
        names=("A100", "A30"),
        tensor_formats=_AMPERE,
        tensorrt=(10, 11),
        tensorrt_rtx=True,
        sources=(*_BOTH, _RTX),
    ),
    GpuProfile(
        compute_capability="8.6",
        generation="Ampere",
        names=(
            *("A10", "A10G", "A40", "A16", "A2", "RTX 3060", "RTX 3070", "RTX 3080", "RTX 3090"),
            *("RTX A4000", "RTX A5000", "RTX A6000"),
        ),
        tensor_formats=_AMPERE,
        tensorrt=(10, 11),
        tensorrt_rtx=True,
        sources=(*_BOTH, _RTX),
    ),
    GpuProfile(
        compute_capability="8.7",
        generation="Ampere",
        names=("Jetson AGX Orin", "Jetson Orin NX", "Jetson Orin Nano", "Orin"),
        tensor_formats=_AMPERE,
        tensorrt=(10,),
        tensorrt_rtx=False,
        sources=_ONLY_10,
        note="TensorRT 11 on Jetson is not told by the x86 library",
    ),
    GpuProfile(
        compute_capability="8.9",
        generation="Ada Lovelace",
        names=(
            *("L4", "L40", "L40S", "RTX 4060", "RTX 4070", "RTX 4080", "RTX 4090"),
            "RTX 6000 Ada",
        ),
        tensor_formats=_ADA,
        tensorrt=(10, 11),
        tensorrt_rtx=True,
        sources=(*_BOTH, _RTX),
    ),
    GpuProfile(
        compute_capability="9.0",
        generation="Hopper",
        names=("H100", "H200", "GH200", "H20"),
        tensor_formats=_HOPPER,
        tensorrt=(10, 11),
        tensorrt_rtx=False,
        sources=_BOTH,
    ),
    GpuProfile(
        compute_capability="10.0",
        generation="Blackwell",
        names=("B200", "GB200", "B100"),
        tensor_formats=_BLACKWELL,
        tensorrt=(10, 11),
        tensorrt_rtx=False,
        sources=_BOTH,
    ),
    GpuProfile(
        compute_capability="10.3",
        generation="Blackwell Ultra",
        names=("B300", "GB300"),
        tensor_formats=_BLACKWELL,
        tensorrt=(10, 11),
        tensorrt_rtx=False,
        sources=_BOTH,
        note="int8 by mma.sync only: tcgen05.mma, the fast product, takes no integers here",
    ),
    GpuProfile(
        compute_capability="11.0",
        generation="Blackwell",
        names=("Jetson Thor", "Jetson T5000"),
        tensor_formats=_BLACKWELL,
        tensorrt=(10,),
        tensorrt_rtx=False,
        sources=_ONLY_10,
        note="10.1 before CUDA 13; TensorRT 11 on Jetson is not told by the x86 library",
    ),
    GpuProfile(
        compute_capability="12.0",
        generation="Blackwell",
        names=("RTX PRO 6000 Blackwell", "RTX 5060", "RTX 5070", "RTX 5080", "RTX 5090"),
        tensor_formats=_BLACKWELL,
        tensorrt=(10, 11),
        tensorrt_rtx=True,
        sources=(*_BOTH, _RTX),
    ),
    GpuProfile(
        compute_capability="12.1",
        generation="Blackwell",
        names=("GB10", "DGX Spark"),
        tensor_formats=_BLACKWELL,
        tensorrt=(10, 11),
        tensorrt_rtx=True,
        sources=(*_BOTH, _RTX),
        note="runs kernels of 12.0",
    ),
)


def gpu_profiles() -> tuple[GpuProfile, ...]:
    """Return every GPU of the table, the oldest first."""
    return _GPUS


def gpu_profile(name: str) -> GpuProfile:
    """Return the GPU of that name or capability.

    Args:
        name: a product ("H100", "NVIDIA GeForce RTX 4090", "NVIDIA H100 80GB HBM3"), a capability
            ("9.0") or a compiler's spelling of it ("sm_90", "sm_90a").

    Raises:
        ConfigError: no such GPU; the nearest names come first.
    """
    found = _by_capability(name) or _by_product(name)
    if found is not None:
        return found
    names = nearest(name, (one for gpu in _GPUS for one in (*gpu.names, gpu.sm)))
    raise ConfigError(
        f"unknown GPU {name!r}",
        why=f"known ones, the nearest first: {', '.join(names[:8])}, …",
        hint=f"for example {names[0]}, or a compute capability such as 8.9 or sm_89",
    )


def _by_capability(name: str) -> GpuProfile | None:
    wanted = name.strip().lower()
    spelled = re.sub(r"(?<=\d)[af]$", "", wanted)
    return next((gpu for gpu in _GPUS if spelled in (gpu.compute_capability, gpu.sm)), None)


def _by_product(name: str) -> GpuProfile | None:
    """Find a product's words inside a driver's name ("NVIDIA H100 80GB HBM3")."""
    words = _words(name)
    return next(
        (gpu for gpu in _GPUS if any(_holds(words, _words(product)) for product in gpu.names)),
        None,
    )


def _words(name: str) -> tuple[str, ...]:
    return tuple(re.split(r"[\s_-]+", name.strip().lower()))


def _holds(words: tuple[str, ...], part: tuple[str, ...]) -> bool:
    return any(words[i : i + len(part)] == part for i in range(len(words) - len(part) + 1))
