"""Devices in form only: what a probe may ask, and nothing that runs."""

from __future__ import annotations

from collections.abc import Sequence

from targets.contract import Hardware, Runner, RunPlan
from targets.errors import DeviceError


class DeviceLike:
    """A device of any hardware that has the distributions it was given.

    Args:
        hardware: what it says it is.
        distributions: what its runners could import.
    """

    name = "emulated:stand-in"
    measures_latency = False

    def __init__(self, hardware: Hardware, distributions: Sequence[str] = ()) -> None:
        self._hardware = hardware
        self._distributions = tuple(distributions)
        self.asked: set[str] = set()

    def hardware(self) -> Hardware:
        return self._hardware

    def distributions(self, names: Sequence[str]) -> dict[str, str]:
        self.asked.update(names)
        return {name: "99.0" for name in names if name in self._distributions}

    def start(self, plan: RunPlan, num_threads: int) -> Runner:
        raise DeviceError(f"{self.name} runs nothing")


class BareDevice(DeviceLike):
    """A device that has Python and numpy, and no runtime."""

    def __init__(self, hardware: Hardware) -> None:
        super().__init__(hardware)


class BrokenDevice:
    """A device that cannot be asked."""

    name = "broken"
    measures_latency = False

    def hardware(self) -> Hardware:
        raise OSError("no route to host")

    def distributions(self, names: Sequence[str]) -> dict[str, str]:
        raise OSError("no route to host")

    def start(self, plan: RunPlan, num_threads: int) -> Runner:
        raise OSError("no route to host")
