"""The type of a row in the table of CPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from targets.contract import Hardware
from targets.hardware.microarchitectures import numbers_of

SOURCES: Mapping[str, str] = {
    "linux": "Linux 6.12, arch/arm64/include/asm/cputype.h, arch/x86/include/asm/intel-family.h, "
    "arch/x86/kernel/cpu/amd.c: the numbers",
    "llvm": "LLVM's processor definitions and host detection, as Zig 0.17.1 ships them in "
    "lib/std/Target and lib/std/zig/system: features and numbers",
    "archspec": "archspec 0.2.7, microarchitectures.json: features",
    "qemu": "QEMU 10.0.2 user mode: features that programs find on its model of this CPU",
}
"""Key in `CpuProfile.sources` → what it is and what was taken from it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuProfile:
    """What a CPU microarchitecture has, whether or not one is at hand.

    Firmware and hypervisors hide instructions, so the live flags of a device at hand win.

    Args:
        name: the name in `--hardware NAME` and `emulated:NAME`.
        microarchitecture: what detection calls it (`targets.hardware.microarchitectures`).
        vendor: as detection says it ("ARM", "GenuineIntel", …).
        architecture: "aarch64" or "x86_64".
        features: the vector and matrix instructions that it has, by the kernel's names.
        sources: keys of `SOURCES`.
        aliases: products that are this CPU, or whose fastest core it is.
        qemu_model: name for QEMU's `-cpu`; None where QEMU 10 has no model of it or its user mode
            cannot run all of `features` (it has nothing after AVX2).
        note: what a reader should know beside that; "" for nothing.
    """

    name: str
    microarchitecture: str
    vendor: str
    architecture: str
    features: frozenset[str]
    sources: tuple[str, ...]
    aliases: tuple[str, ...] = ()
    qemu_model: str | None = None
    note: str = ""

    @property
    def numbers(self) -> tuple[str, ...]:
        """Numbers that such a CPU says of itself: implementer/part or family/model."""
        return numbers_of(self.microarchitecture)

    def hardware(self, num_cores: int, memory_bytes: int) -> Hardware:
        """Return what detection would find on such a CPU, with its own name as the model's."""
        return Hardware(
            architecture=self.architecture,
            vendor=self.vendor,
            model_name=self.name,
            microarchitecture=self.microarchitecture,
            features=self.features,
            num_cores=num_cores,
            memory_bytes=memory_bytes,
        )
