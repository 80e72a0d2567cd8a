"""`exporter targets [NAME]`: what can be exported to, whether it works here, what backs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from targets.errors import ConfigError, ExitCode, ExporterError, UsageError

if TYPE_CHECKING:
    from targets.contract import Device, Hardware

LIST = "list"
_DEVICE_HELP = "Where to look; local unless told otherwise."
_HARDWARE_HELP = (
    "Instead of a device, hardware by name: cortex-a72, graviton3, haswell, sm_90, H100; "
    f"{LIST!r} prints all names."
)


def targets(
    name: Annotated[str | None, typer.Argument(help="One target, in detail.")] = None,
    device: Annotated[str | None, typer.Option("--device", help=_DEVICE_HELP)] = None,
    hardware: Annotated[str | None, typer.Option("--hardware", help=_HARDWARE_HELP)] = None,
) -> int:
    """List the targets and what a device, or hardware that is only named, supports."""
    if hardware is None:
        _on_device(name, device or "local")
    elif device is not None:
        raise UsageError(
            "--device and --hardware exclude each other",
            why="a device says itself what it is",
            hint="leave one of them out",
        )
    else:
        _on_named_hardware(name, hardware)
    return int(ExitCode.PASS)


def _on_device(name: str | None, device: str) -> None:
    from exporter.cli.target_output import print_target, print_targets
    from targets.registry import describe_targets, load_target, open_device

    where = open_device(device)
    if name is None:
        print_targets(describe_targets(where), _hardware(where))
    else:
        print_target(load_target(name), where)


def _hardware(device: Device) -> Hardware | None:
    """Ask a device what it is; the list of targets says why one does not answer."""
    try:
        return device.hardware()
    except ExporterError:
        return None


def _on_named_hardware(name: str | None, hardware: str) -> None:
    from exporter.cli.target_output import (
        print_hardware_names,
        print_target_for,
        print_targets_for,
    )
    from targets.hardware.profiles import cpu_profile
    from targets.registry import describe_targets, load_target, open_device

    target = None if name is None else load_target(name)
    if hardware == LIST:
        print_hardware_names()
        return
    try:
        cpu = cpu_profile(hardware)
    except ConfigError as unknown:
        _on_named_gpu(name, hardware, unknown)
        return
    if target is None:
        print_targets_for(describe_targets(open_device("local")), cpu)
    else:
        print_target_for(target, cpu)


def _on_named_gpu(name: str | None, hardware: str, unknown: ConfigError) -> None:
    from exporter.cli.target_output import print_gpu
    from targets.hardware.gpus import gpu_profile

    try:
        gpu = gpu_profile(hardware)
    except ConfigError:
        raise unknown from None
    if name is not None:
        raise ConfigError(
            f"target {name} has no recipes for {hardware!r}",
            why=f"{hardware} is a GPU ({gpu.sm}), and recipes are listed for CPUs",
            hint=f"`exporter targets --hardware {gpu.sm}` prints what the GPU has",
        )
    print_gpu(gpu)
