"""Names of targets and devices, and what is behind them; nothing is imported before its use.

Built-in targets stand in a table here, so that they work from a source tree too. Others come
from installed distributions through the entry-point group `embedding_exporter.targets`; none of
them can take a built-in name.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from targets.contract import LOCAL, LOCAL_CUDA, Availability, Device, Precision, Target, TargetSpec
from targets.errors import NotInstalledError, UnknownTargetError, UsageError

if TYPE_CHECKING:
    from targets.devices.catalogue import DeviceRow
    from targets.devices.userland_setup import Step

ENTRY_POINT_GROUP = "embedding_exporter.targets"
BUILT_IN: Mapping[str, str] = {
    "openvino": "targets.openvino.target:OpenVinoTarget",
    "onnxruntime": "targets.onnxruntime.target:OnnxRuntimeTarget",
    "onnxruntime-mobile": "targets.onnxruntime.mobile:MobileTarget",
    "tensorrt": "targets.tensorrt.target:TensorRtTarget",
    "tensorrt-rtx": "targets.tensorrt.rtx:TensorRtRtxTarget",
    "torch": "targets.pytorch.target:TorchTarget",
}
"""Name → "module:class" of our own targets."""
EMULATED = "emulated"
SSH = "ssh"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetRow:
    """What is known of one target on one device.

    Args:
        name: the registered name.
        spec: static facts; None where the target could not be loaded.
        availability: what the probe found; None where there was nothing to probe with.
        failure: why the target could not be loaded or probed; "" if it could.
    """

    name: str
    spec: TargetSpec | None
    availability: Availability | None
    failure: str = ""

    @property
    def runtime(self) -> str:
        """Name of the runtime, "-" where unknown."""
        return self.spec.runtime if self.spec else "-"

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions that the target can build anywhere; empty where unknown."""
        return self.spec.precisions if self.spec else ()

    @property
    def state(self) -> str:
        """One line: "ready", what is missing, or why it is broken."""
        if self.availability is None:
            return f"broken: {self.failure}"
        notes = "; ".join(self.availability.missing)
        if not self.availability.ok:
            return notes
        return f"ready ({notes})" if notes else "ready"


def target_names() -> tuple[str, ...]:
    """Return all registered names: ours first, then the plug-ins', sorted."""
    return (*BUILT_IN, *sorted(_plug_ins()))


def load_target(name: str) -> Target:
    """Import a target and return an instance.

    Raises:
        UnknownTargetError: no target of that name; the known ones are listed, nearest first.
        NotInstalledError: a plug-in that cannot be imported or is not a target.
    """
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        built_in: Target = getattr(importlib.import_module(module), attribute)()
        return built_in
    plug_in = _plug_ins().get(name)
    if plug_in is None:
        raise UnknownTargetError(
            f"unknown target {name!r}",
            why=f"known targets, the nearest first: {', '.join(_nearest(name, target_names()))}",
            hint="`exporter targets` says which of them work here",
        )
    return _load_plug_in(plug_in)


def describe_targets(device: Device) -> tuple[TargetRow, ...]:
    """Load and probe every target; what fails is listed with its reason."""
    return tuple(_describe(name, device) for name in target_names())


def device_names() -> tuple[str, ...]:
    """Return the names of all devices, without the shorter ones that are also understood."""
    from targets.devices import capped, emulated

    return (LOCAL, LOCAL_CUDA, *capped.device_names(), *emulated.device_names())


def describe_devices() -> tuple[DeviceRow, ...]:
    """List every device with what it would take to use it; nothing is started."""
    from targets.devices import catalogue

    return catalogue.describe_devices()


def set_up_device(name: str, step: Step) -> Path | None:
    """Build what a device needs on this machine; see `targets.devices.catalogue`.

    Returns:
        The folder that holds it; None where nothing is needed.

    Raises:
        UsageError, ConfigError: no such device.
        NotInstalledError, DeviceError, StorageError: it cannot be set up here.
    """
    from targets.devices import catalogue

    return catalogue.set_up_device(name, step=step)


def renew_device_lock(path: Path, step: Step) -> None:
    """Write the lock of what emulated devices are made of anew.

    Raises:
        NotInstalledError, DeviceError, StorageError: see `targets.devices.userland_renewal`.
    """
    from targets.devices.userland_renewal import renew_lock

    renew_lock(path, step)


def open_device(name: str) -> Device:
    """Return the device of that name: this machine, as it is or in disguise, or another one.

    Raises:
        UsageError: no such device; the known ones are listed.
        ConfigError: the instruction set behind `local:` or the CPU behind `emulated:` is
            unknown, this CPU lacks it, or it cannot be emulated; an ssh address is wrong.
        NotInstalledError: an emulated device is not set up, or asyncssh is missing; names the
            command that mends it.
        DeviceError: the files of an emulated device are damaged, or no GPU is behind `local:cuda`.
    """
    place, colon, detail = name.partition(":")
    if place == EMULATED:
        from targets.devices.emulated import EmulatedDevice

        return EmulatedDevice(detail)
    if place == SSH:
        from targets.devices.ssh import SshDevice

        return SshDevice(name)
    if place != LOCAL:
        raise UsageError(
            f"unknown device {name!r}",
            why=f"known devices: {', '.join(_nearest(name, device_names()))}",
            hint=f"--device {LOCAL} is this machine, --device {SSH}://user@host another one",
        )
    if name == LOCAL_CUDA:
        from targets.devices.cuda import CudaDevice

        return CudaDevice()
    if colon:
        from targets.devices.capped import CappedDevice

        return CappedDevice(detail)
    from targets.devices.local import LocalDevice

    return LocalDevice()


def _plug_ins() -> dict[str, metadata.EntryPoint]:
    """Entry points of other distributions; of several with one name the first by value counts."""
    found = sorted(metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda one: one.value)
    return {one.name: one for one in reversed(found) if one.name not in BUILT_IN}


def _load_plug_in(plug_in: metadata.EntryPoint) -> Target:
    """Import somebody else's target; whatever its code raises is the reason given."""
    try:
        target = plug_in.load()()
    except Exception as error:
        raise _broken(plug_in, f"{type(error).__name__}: {error}") from error
    if not isinstance(target, Target) or not isinstance(target.spec, TargetSpec):
        raise _broken(plug_in, f"{plug_in.value} is not a target: see targets.contract.Target")
    if target.spec.name != plug_in.name:
        raise _broken(plug_in, f"{plug_in.value} calls itself {target.spec.name!r}")
    return target


def _broken(plug_in: metadata.EntryPoint, why: str) -> NotInstalledError:
    owner = plug_in.dist.name if plug_in.dist else "its distribution"
    return NotInstalledError(
        f"target {plug_in.name} cannot be loaded",
        why=why,
        hint=f"reinstall or remove {owner}, which registers it",
    )


def _describe(name: str, device: Device) -> TargetRow:
    try:
        target = load_target(name)
    except NotInstalledError as error:
        return TargetRow(name=name, spec=None, availability=None, failure=error.why)
    try:
        found = target.probe(device)
        architecture = device.hardware().architecture
    except Exception as error:  # somebody else's code; the contract forbids it to raise
        reason = f"its probe raised {type(error).__name__}: {error}"
        return TargetRow(name=name, spec=target.spec, availability=None, failure=reason)
    if found.ok and architecture not in target.spec.architectures:
        made_for = f"made for {' and '.join(target.spec.architectures)}, this is {architecture}"
        found = replace(found, ok=False, missing=(made_for,))
    return TargetRow(name=name, spec=target.spec, availability=found)


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    """Sort names by likeness to a mistyped one."""
    return sorted(
        known, key=lambda one: -difflib.SequenceMatcher(None, name.lower(), one.lower()).ratio()
    )
