"""GPUs as the contract's hardware: what artifacts are prepared for, and what they run on."""

from __future__ import annotations

from targets.contract import Device, Hardware, Recipe
from targets.hardware.gpu_hardware import hardware_at_hand
from targets.hardware.gpus import GpuProfile, gpu_profiles
from targets.hardware.nvidia import detect_gpu


def detected_hardware(device: Device) -> Hardware:
    """Return this machine's GPU, with the CPU cores that feed it.

    Raises:
        DeviceError: there is none.
    """
    return hardware_at_hand(detect_gpu(), device.hardware().num_cores)


def capability_of(hardware: Hardware) -> str:
    """Return the compute capability of one GPU, "" where it is none that is known."""
    return next((gpu.compute_capability for gpu in _gpus_of(hardware)), "")


def rtx_capabilities(hardware: Hardware, recipe: Recipe) -> tuple[str, ...]:
    """Return those that RTX can build a recipe for, of the device that is prepared for."""
    names = (gpu.compute_capability for gpu in _gpus_of(hardware) if gpu.tensorrt_rtx)
    return tuple(one for one in names if not _has_no_float32(one, recipe))


def only_without_float32(hardware: Hardware, recipe: Recipe) -> bool:
    """Say whether RTX can build a recipe for none of the GPUs because they are of Turing."""
    gpus = _gpus_of(hardware)
    return bool(gpus) and all(_has_no_float32(gpu.compute_capability, recipe) for gpu in gpus)


def _gpus_of(hardware: Hardware) -> list[GpuProfile]:
    return [gpu for gpu in gpu_profiles() if gpu.sm in hardware.features]


def _has_no_float32(capability: str, recipe: Recipe) -> bool:
    """TensorRT for RTX 1.7: "Cannot compile … for Turing (SM75): FP32 GEMM is not supported"."""
    return capability == "7.5" and recipe.float_precision == "float32"
