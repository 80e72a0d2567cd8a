"""How fast and how warm a GPU is, by NVIDIA's management library; nothing where that is missing.

Imports the standard library only, and `pynvml` (package nvidia-ml-py) on use: the session adapter
loads this file too. Names checked against nvidia-ml-py 13.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def gpu_state(bus_id: str) -> dict[str, str]:
    """Return clocks, temperature and power of this moment, as far as the GPU tells.

    Args:
        bus_id: the GPU's place on the PCI bus.
    """
    try:
        import pynvml
    except ImportError:
        return {"gpu_state": "unknown: nvidia-ml-py is not installed"}
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return {"gpu_state": f"unknown: {error}"}
    try:
        return _read(pynvml, bus_id)
    finally:
        pynvml.nvmlShutdown()


def _read(nvml: Any, bus_id: str) -> dict[str, str]:  # noqa: ANN401 - untyped
    try:
        gpu = nvml.nvmlDeviceGetHandleByPciBusId(bus_id)
    except nvml.NVMLError as error:
        return {"gpu_state": f"unknown: {error}"}
    asked: dict[str, Callable[[], Any]] = {
        "sm_clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
        "max_sm_clock_mhz": lambda: nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM),
        "memory_clock_mhz": lambda: nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM),
        "temperature_c": lambda: nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU),
        "power_w": lambda: round(nvml.nvmlDeviceGetPowerUsage(gpu) / 1000),
    }
    found = {}
    for name, ask in asked.items():
        try:
            found[name] = str(ask())
        except nvml.NVMLError as error:  # virtual GPUs tell less than others
            found[name] = f"unknown: {error}"
    return found
