"""This machine's NVIDIA GPU, for runtimes that run there as well as on the CPU."""

from __future__ import annotations

from dataclasses import replace

from targets.contract import LOCAL_CUDA, Hardware
from targets.devices.local import DEFAULT_SILENCE_S, LocalDevice
from targets.hardware.gpu_hardware import hardware_at_hand
from targets.hardware.nvidia import detect_gpu

FEATURE = "cuda"
"""Feature that this device has beside those of its tensor cores."""


class CudaDevice(LocalDevice):
    """The GPU that CUDA takes first here: runners are children of this machine, fed by its CPU.

    Args:
        silence_s: a runner that says nothing for this long is ended.

    Raises:
        DeviceError: there is no GPU, its driver does not answer, or it is too old for the table.
    """

    def __init__(self, *, silence_s: float = DEFAULT_SILENCE_S) -> None:
        self._gpu = detect_gpu()
        # CUDA counts the fastest GPU first unless told otherwise; the driver's tool, by the bus
        order = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        super().__init__(LOCAL_CUDA, environment=order, silence_s=silence_s)

    def hardware(self) -> Hardware:
        """Return the GPU, with the CPU cores that feed it."""
        found = hardware_at_hand(self._gpu, super().hardware().num_cores)
        return replace(found, features=found.features | {FEATURE})
