"""Every device by name: what it is, what it is good for, and what it would take to use it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from targets.contract import LOCAL_CUDA, Hardware
from targets.devices.capped import CappedDevice
from targets.devices.capped import device_names as capped_names
from targets.devices.cuda import CudaDevice
from targets.devices.emulated import EMULATED, emulated_cpu
from targets.devices.emulated import device_names as emulated_names
from targets.devices.local import LocalDevice
from targets.devices.userland import locate_userland
from targets.devices.userland_lock import UserlandLock
from targets.devices.userland_setup import Step, download_bytes, set_up_userland, silent_step
from targets.errors import ConfigError, DeviceError, ExporterError, UsageError

READY = "ready"
_SSH = "ssh://USER@HOST[:PORT]"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRow:
    """What is known of one device.

    Args:
        name: for `--device`.
        hardware: what it is, or stands for.
        latency: "real", "relative" or "none".
        is_ready: whether it can be used now.
        state: "ready", or what it takes.
    """

    name: str
    hardware: str
    latency: str
    is_ready: bool
    state: str


def describe_devices(*, root: Path | None = None) -> tuple[DeviceRow, ...]:
    """List all devices; nothing is started.

    Args:
        root: folder of emulated devices; None: the user's.
    """
    here = LocalDevice().hardware()
    local = _row("local", _title(here), "real")
    capped = (_describe_capped(name) for name in capped_names())
    emulated = (_describe_emulated(name, root) for name in emulated_names())
    return (local, _describe_cuda(), *capped, *emulated, _describe_ssh())


def set_up_device(
    name: str,
    *,
    root: Path | None = None,
    lock: UserlandLock | None = None,
    step: Step = silent_step,
) -> Path | None:
    """Build what an emulated device needs, unless it is there.

    Returns:
        The folder of emulated devices; None for a device that needs no set-up.

    Raises:
        UsageError: no such kind of device.
        ConfigError: no such CPU, or it cannot be emulated.
        NotInstalledError, DeviceError, StorageError: see `set_up_userland`.
    """
    kind, _, detail = name.partition(":")
    if kind in ("local", "ssh"):
        return None
    if kind != EMULATED:
        raise UsageError(
            f"unknown device {name!r}",
            hint=f"for example {EMULATED}:neoverse-n1; `exporter devices`",
        )
    cpu, _ = emulated_cpu(detail)
    return set_up_userland(cpu.architecture, root=root, lock=lock, step=step).folder.parent


def _row(name: str, hardware: str, latency: str, state: str = READY) -> DeviceRow:
    return DeviceRow(
        name=name, hardware=hardware, latency=latency, is_ready=state == READY, state=state
    )


def _title(hardware: Hardware) -> str:
    return f"{hardware.model_name} ({hardware.architecture})"


def _describe_cuda() -> DeviceRow:
    try:
        hardware = CudaDevice().hardware()
    except DeviceError as error:
        return _row(LOCAL_CUDA, "-", "real", f"{error.what} ({error.why})")
    return _row(LOCAL_CUDA, f"{hardware.model_name} ({hardware.microarchitecture})", "real")


def _describe_capped(name: str) -> DeviceRow:
    try:
        hardware = CappedDevice(name.partition(":")[2]).hardware()
    except ConfigError as error:
        return _row(name, "-", "relative", error.what.partition(": ")[2])
    return _row(name, _title(hardware), "relative")


def _describe_emulated(name: str, root: Path | None) -> DeviceRow:
    cpu, _ = emulated_cpu(name.partition(":")[2])
    hardware = f"{cpu.hardware(1, 0).model_name} ({cpu.architecture})"
    try:
        userland = locate_userland(cpu.architecture, root=root)
        state = READY
        if not userland.is_built:
            megabytes = download_bytes(cpu.architecture, root=root) / 1e6
            state = f"exporter devices setup {name} ({megabytes:.0f} MB to download)"
        elif damage := userland.damage(deep=False):
            state = f"damaged ({damage}): exporter devices setup {name}"
    except ExporterError as error:
        state = error.what
    return _row(name, hardware, "none", state)


def _describe_ssh() -> DeviceRow:
    if importlib.util.find_spec("asyncssh") is None:
        return _row(_SSH, "any", "real", "pip install 'embedding-exporter[ssh]'")
    return _row(_SSH, "any", "real", "a host with python3, numpy and the runtime")
