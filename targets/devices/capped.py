"""This machine, with its runtimes held to an older instruction set.

oneDNN, and with it OpenVINO, picks its kernels by `ONEDNN_MAX_CPU_ISA`. Products of matrices,
attention and element-wise operations then are those of the older set and run at full speed; in
OpenVINO 2026.4 FakeQuantize, MVN, Reduce and the float32 products by MLAS do not ask oneDNN and
stay as they are. ONNX Runtime ignores the variable.
"""

from __future__ import annotations

import difflib

from targets.contract import Hardware
from targets.devices.local import DEFAULT_SILENCE_S, LocalDevice
from targets.errors import ConfigError
from targets.hardware.caps import (
    ALIASES,
    CAPS,
    Cap,
    cap_hardware,
    has_cap,
    vector_extensions,
)

VARIABLE = "ONEDNN_MAX_CPU_ISA"


class CappedDevice(LocalDevice):
    """A local device whose runner uses no newer instructions than a cap's.

    Numbers are those of the older instruction set. Latency is relative only: clocks, caches and
    memory are this machine's, and every runner says so among its warnings.

    Args:
        cap: a name of `targets.hardware.caps`, or one of its aliases.
        silence_s: a runner that says nothing for this long is ended.

    Raises:
        ConfigError: there is no such cap, or this CPU has less than it.
    """

    def __init__(self, cap: str, *, silence_s: float = DEFAULT_SILENCE_S) -> None:
        name = ALIASES.get(cap, cap)
        if name not in CAPS:
            raise _unknown(cap)
        self._cap = CAPS[name]
        _require(self._cap, f"local:{name}", super().hardware())
        super().__init__(
            f"local:{name}",
            environment={VARIABLE: self._cap.isa},
            silence_s=silence_s,
            warnings=(
                f"capped to {self._cap.isa}: latency is relative only, because clocks, caches and "
                f"memory are not those of such a CPU",
            ),
        )

    def hardware(self) -> Hardware:
        """Detect this machine and take away what the cap takes away."""
        return cap_hardware(super().hardware(), self._cap)


def device_names() -> tuple[str, ...]:
    """Return the names of all capped devices, without aliases."""
    return tuple(f"local:{name}" for name in CAPS)


def _unknown(cap: str) -> ConfigError:
    nearest = sorted(
        (*CAPS, *ALIASES),
        key=lambda one: -difflib.SequenceMatcher(None, cap.lower(), one).ratio(),
    )
    return ConfigError(
        f"unknown instruction set {cap!r} in device 'local:{cap}'",
        why=f"known ones, the nearest first: {', '.join(nearest)}",
        hint=f"for example --device local:{nearest[0]}",
    )


def _require(cap: Cap, device: str, hardware: Hardware) -> None:
    if has_cap(hardware, cap):
        return
    missing = ", ".join(sorted(cap.needed - hardware.features))
    has = ", ".join(vector_extensions(hardware)) or "none of these extensions"
    possible = [f"local:{name}" for name, one in CAPS.items() if has_cap(hardware, one)]
    raise ConfigError(
        f"device {device}: this CPU lacks {missing}",
        why=f"{hardware.model_name} ({hardware.architecture}) has {has}",
        hint=f"possible here: {', '.join(possible) or 'local only'}",
    )
