"""Which target runs on which device: named devices paired with the targets that fit them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from exporter.config import Settings
from exporter.steps.execution import Stand
from exporter.steps.workspace import Workspace
from exporter.values import TargetResult
from targets.contract import LOCAL, Availability, Device, Preparable, Target, hardware_of
from targets.errors import (
    ConfigError,
    DeviceError,
    ExporterError,
    NotInstalledError,
    UsageError,
)
from targets.hardware.detect import usable_cores
from targets.registry import BUILT_IN, load_target, open_device, target_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Stands:
    """Pairs that are ready, and those that cannot run, with the reason."""

    ready: tuple[Stand, ...]
    not_run: tuple[TargetResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """One target tried on one device: a stand, or the reason why not.

    `lacks` says what a device that answers does not have for this target.
    """

    target: str
    device: str
    stand: Stand | None = None
    lacks: Literal["", "architecture", "runtime"] = ""
    reason: str = ""
    error: ExporterError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What `--device` said: devices for every target that fits, and for one target only."""

    everybody: tuple[str, ...]
    only: tuple[tuple[str, str], ...]

    def of(self, target: str) -> tuple[str, ...]:
        """Return the devices of one target: its own, or those for everybody, or this machine."""
        own = tuple(device for name, device in self.only if name == target)
        return own or self.everybody or (LOCAL,)


def find_stands(work: Workspace) -> Stands:
    """Pair targets with devices and probe each pair.

    A device goes to every target that fits it (by architecture, and by the runtime that it
    has). A target that fits none of the named devices runs here, as long as another target
    took them: `--target openvino --target onnxruntime-mobile --device emulated:neoverse-n1`
    runs OpenVINO on this machine.

    Raises:
        UsageError: no target was named, or a device belongs to a target that was not.
        UnknownTargetError: a name is not known.
        ConfigError: a device suits no target.
        NotInstalledError, DeviceError: the only pair asked for cannot run.
    """
    settings = work.settings
    names = _target_names(settings.target)
    asked = _parse_devices(settings.device, names)
    opened: dict[str, Device | ExporterError] = {}
    pairs: list[_Pair] = []
    for name in names:
        pairs += [_try(name, one, opened, settings) for one in asked.of(name)]
    if len(pairs) == 1 and pairs[0].error is not None:
        raise pairs[0].error
    if asked.everybody:
        pairs = list(_fall_back(pairs, asked, opened, settings))
    _require_use(pairs, asked)
    return Stands(
        ready=tuple(pair.stand for pair in pairs if pair.stand is not None),
        not_run=tuple(_not_run(pair) for pair in pairs if pair.stand is None),
    )


def _target_names(asked: Sequence[str]) -> tuple[str, ...]:
    if not asked:
        raise UsageError(
            "no target was named",
            why=f"known targets: {', '.join(target_names())}, all",
            hint="add for example --target openvino",
        )
    return target_names() if "all" in asked else tuple(dict.fromkeys(asked))


def _parse_devices(given: Sequence[str], targets: Sequence[str]) -> _Asked:
    """Tell `DEVICE` from `TARGET=DEVICE`; device names hold no "=" before a colon."""
    everybody: list[str] = []
    only: list[tuple[str, str]] = []
    for one in given:
        before, equals, device = one.partition("=")
        if not equals or ":" in before:
            everybody.append(one)
        elif before in targets:
            only.append((before, device))
        else:
            raise UsageError(
                f"--device {one}: target {before!r} is not among those asked for",
                why=f"asked for: {', '.join(targets)}",
                hint=f"add --target {before}, or write --device {device}",
            )
    return _Asked(everybody=tuple(dict.fromkeys(everybody)), only=tuple(dict.fromkeys(only)))


def _try(
    name: str, device_name: str, opened: dict[str, Device | ExporterError], settings: Settings
) -> _Pair:
    """Probe one pair."""

    def failed(error: ExporterError, lacks: Literal["", "architecture", "runtime"] = "") -> _Pair:
        reason = error.what if lacks == "architecture" else error.why if lacks else str(error)
        return _Pair(target=name, device=device_name, error=error, lacks=lacks, reason=reason)

    try:
        target = load_target(name)
    except NotInstalledError as error:  # somebody else's plug-in that is broken
        return failed(error)
    device = _open(device_name, opened)
    if isinstance(device, ExporterError):
        return failed(device)
    try:
        misfit = _misfit(target, device)
        if misfit is not None:
            return failed(misfit, "architecture")
        found = _probe(target, device)
        if not found.ok and not (device.name == LOCAL and _prepares(target)):
            return failed(_cannot_run(target, device, found), "runtime")
        stand = _stand(target, device, found, settings)
    except DeviceError as error:
        return failed(error)
    return _Pair(target=name, device=device.name, stand=stand)


def _probe(target: Target, device: Device) -> Availability:
    try:
        return target.probe(device)
    except Exception as error:  # somebody else's code; the contract forbids it to raise
        reason = f"its probe raised {type(error).__name__}: {error}"
        return Availability(ok=False, missing=(reason,))


def _open(name: str, opened: dict[str, Device | ExporterError]) -> Device | ExporterError:
    """Open a device once. A name that is wrong is an error at once, whatever else was asked."""
    if name not in opened:
        try:
            opened[name] = open_device(name)
        except (DeviceError, NotInstalledError) as error:
            opened[name] = error
    return opened[name]


def _misfit(target: Target, device: Device) -> ConfigError | None:
    architecture, made_for = device.hardware().architecture, target.spec.architectures
    if architecture in made_for:
        return None
    return ConfigError(
        f"{target.spec.name} is made for {' and '.join(made_for)}, {device.name} is {architecture}",
        hint="name another device; `exporter devices` lists them",
    )


def _fall_back(
    pairs: Sequence[_Pair],
    asked: _Asked,
    opened: dict[str, Device | ExporterError],
    settings: Settings,
) -> Iterable[_Pair]:
    """Leave out misfits of targets that run elsewhere; give the homeless this machine."""
    running = {pair.target for pair in pairs if pair.stand is not None}
    used = any(pair.stand is not None for pair in pairs)
    for name in dict.fromkeys(pair.target for pair in pairs):
        own = [pair for pair in pairs if pair.target == name]
        has_its_own = any(target == name for target, _ in asked.only)
        if name in running:
            yield from (pair for pair in own if pair.lacks != "architecture")
        elif has_its_own or LOCAL in asked.everybody or not all(pair.lacks for pair in own):
            yield from own
        elif used:
            yield _try(name, LOCAL, opened, settings)
        else:
            yield from own


def _require_use(pairs: Sequence[_Pair], asked: _Asked) -> None:
    """Refuse a device that no target took; who is named but idle would look tested."""
    for device in asked.everybody:
        own = [pair for pair in pairs if pair.device == device]
        if not own and device != LOCAL:
            raise ConfigError(
                f"--device {device}: no target that was asked for fits it",
                why="by its architecture, or by the runtimes that it has",
                hint="add a target for it; `exporter targets` lists them",
            )


def _prepares(target: Target) -> bool:
    """Say whether a target works without its device, with all that this takes at hand."""
    return isinstance(target, Preparable) and not target.lacking_to_prepare()


def _stand(target: Target, device: Device, found: Availability, settings: Settings) -> Stand:
    here, threads, prepares = usable_cores(), settings.threads, ""
    if not found.ok and isinstance(target, Preparable):
        prepares = "; ".join(found.missing)
        hardware = target.prepared_hardware(settings.compute_capability)
    else:
        hardware = hardware_of(target, device)
    # emulation has this machine's cores, however many the CPU in its place has
    cores = hardware.num_cores if device.measures_latency and not prepares else here
    return Stand(
        target=target,
        device=device,
        hardware=hardware,
        tool_versions=found.tool_versions,
        num_threads=threads or cores,
        build_threads=threads or here,
        prepares=prepares,
    )


def _cannot_run(target: Target, device: Device, found: Availability) -> NotInstalledError:
    ours = target.spec.name in BUILT_IN  # a plug-in says in `missing` what mends it
    return NotInstalledError(
        f"target {target.spec.name} cannot run on {device.name}",
        why="; ".join(found.missing),
        hint=f"pip install 'embedding-exporter[{target.spec.extra}]'" if ours else "",
    )


def _not_run(pair: _Pair) -> TargetResult:
    return TargetResult(
        target=pair.target, device=pair.device, status="not_run", reason=pair.reason
    )
