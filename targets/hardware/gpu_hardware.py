"""NVIDIA GPUs as the contract's hardware."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from targets.contract import Hardware
from targets.hardware.gpus import GpuProfile
from targets.hardware.nvidia import Gpu

ARCHITECTURE = "cuda"
TENSOR_CORE = "tensor_{}"
"""Feature of a GPU whose tensor cores multiply a format: "tensor_int8"."""
_VENDOR = "NVIDIA"


def hardware_of_gpus(gpus: Sequence[GpuProfile], name: str) -> Hardware:
    """Return what several GPUs have in common.

    Args:
        gpus: at least one.
        name: of the hardware, in words for a report.
    """
    formats = set.intersection(*(set(gpu.tensor_formats) for gpu in gpus))
    names = [gpu.sm for gpu in gpus]
    return Hardware(
        architecture=ARCHITECTURE,
        vendor=_VENDOR,
        model_name=name,
        microarchitecture="+".join(names),
        features=frozenset((*names, *(TENSOR_CORE.format(one) for one in formats))),
        num_cores=0,
        memory_bytes=0,
    )


def hardware_at_hand(gpu: Gpu, num_cores: int) -> Hardware:
    """Return a GPU of this machine.

    Args:
        gpu: what the driver says of it.
        num_cores: CPU cores that feed it.
    """
    found = hardware_of_gpus([gpu.profile], gpu.name)
    return replace(found, num_cores=num_cores, memory_bytes=gpu.memory_bytes)
