"""The NVIDIA GPU of this machine, as its driver's own tool describes it; no CUDA is needed."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from shutil import which

from targets.errors import ConfigError, DeviceError
from targets.hardware.gpus import GpuProfile, gpu_profile

_TOOL = "nvidia-smi"
_FIELDS = ("name", "compute_cap", "memory.total", "driver_version")
_TIMEOUT_S = 30.0
_MIB = 1 << 20
_INSTALL = "install NVIDIA's driver, or run this on the machine with the GPU"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU at hand.

    Args:
        name: the driver's, "NVIDIA H100 80GB HBM3".
        profile: what GPUs of its compute capability have.
        memory_bytes: of its own.
        driver: version of the driver.
    """

    name: str
    profile: GpuProfile
    memory_bytes: int
    driver: str


def detect_gpu() -> Gpu:
    """Return the GPU that CUDA takes first here.

    `CUDA_VISIBLE_DEVICES` counts by the order of the bus, as with `CUDA_DEVICE_ORDER=PCI_BUS_ID`.

    Raises:
        DeviceError: there is none, its driver does not answer, or it is too old for the table.
    """
    tool = which(_TOOL)
    if tool is None:
        raise DeviceError("no NVIDIA GPU is here", why=f"no {_TOOL}", hint=_INSTALL)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    if visible in ("", "-1"):
        raise DeviceError(
            "no NVIDIA GPU is to be used here",
            why="CUDA_VISIBLE_DEVICES hides all of them",
            hint="unset CUDA_VISIBLE_DEVICES, or name one",
        )
    return parse_gpu(_ask(Path(tool), visible))


def parse_gpu(line: str) -> Gpu:
    """Read one GPU from a line of `nvidia-smi --query-gpu` in the order of the fields asked for.

    Raises:
        DeviceError: it is no such line, or a GPU that the table does not know.
    """
    parts = [part.strip() for part in line.strip().split(",")]
    try:
        name, capability, memory_mib, driver = parts
        return Gpu(
            name=name,
            profile=gpu_profile(capability),
            memory_bytes=int(memory_mib) * _MIB,
            driver=driver,
        )
    except ConfigError as error:
        raise DeviceError(f"this GPU is not known: {line.strip()}", why=error.what) from error
    except ValueError as error:
        raise DeviceError(
            f"{_TOOL} answers with something else than a GPU", why=line.strip(), hint=_INSTALL
        ) from error


def _ask(tool: Path, gpu: str) -> str:
    command = [
        str(tool),
        f"--query-gpu={','.join(_FIELDS)}",
        "--format=csv,noheader,nounits",
        f"--id={gpu}",
    ]
    try:
        answer = subprocess.run(  # noqa: S603 - the driver's own tool, found on PATH
            command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
    except subprocess.CalledProcessError as error:
        why = (error.stdout + error.stderr).strip()
        raise DeviceError(f"{_TOOL} finds no GPU {gpu}", why=why, hint=_INSTALL) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(f"{_TOOL} does not answer", why=str(error), hint=_INSTALL) from error
    return answer.stdout.splitlines()[0] if answer.stdout.strip() else ""
