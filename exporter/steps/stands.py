"""Which targets were asked for, and which of them can run here."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.steps.execution import Stand
from exporter.steps.workspace import Workspace
from exporter.values import TargetResult
from targets.contract import Availability, Device, Target
from targets.errors import NotInstalledError, UsageError
from targets.registry import load_target, open_device, target_names


@dataclass(frozen=True, slots=True, kw_only=True)
class Stands:
    """Targets that are ready, and those that cannot run here, with the reason."""

    ready: tuple[Stand, ...]
    not_run: tuple[TargetResult, ...]


def find_stands(work: Workspace) -> Stands:
    """Probe every target asked for on the device.

    Raises:
        UsageError: no target was named.
        UnknownTargetError: a name is not known.
        NotInstalledError: the only target asked for cannot run here.
    """
    settings = work.settings
    if not settings.target:
        raise UsageError(
            "no target was named",
            why=f"known targets: {', '.join(target_names())}, all",
            hint="add for example --target openvino",
        )
    names = target_names() if "all" in settings.target else tuple(dict.fromkeys(settings.target))
    device = open_device(settings.device)
    ready, not_run = [], []
    for name in names:
        try:
            target = load_target(name)
        except NotInstalledError as error:  # somebody else's plug-in that is broken
            if len(names) == 1:
                raise
            not_run.append(_not_run(name, device, str(error)))
            continue
        found = target.probe(device)
        if found.ok:
            ready.append(_stand(target, device, found, settings.threads))
        elif len(names) == 1:
            raise _cannot_run(target, device, found)
        else:
            not_run.append(_not_run(name, device, "; ".join(found.missing)))
    return Stands(ready=tuple(ready), not_run=tuple(not_run))


def _stand(target: Target, device: Device, found: Availability, threads: int | None) -> Stand:
    hardware = device.hardware()
    return Stand(
        target=target,
        device=device,
        hardware=hardware,
        tool_versions=found.tool_versions,
        num_threads=threads or hardware.num_cores,
    )


def _cannot_run(target: Target, device: Device, found: Availability) -> NotInstalledError:
    return NotInstalledError(
        f"target {target.spec.name} cannot run on {device.name}",
        why="; ".join(found.missing),
        hint=f"pip install 'embedding-exporter[{target.spec.extra}]'",
    )


def _not_run(name: str, device: Device, reason: str) -> TargetResult:
    return TargetResult(target=name, device=device.name, status="not_run", reason=reason)
