"""What a device is, and what a target is anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from targets.contract.recipes import Precision

LOCAL = "local"
"""The device that is this machine's CPU; behind `local:` stands an instruction set, or:"""
LOCAL_CUDA = "local:cuda"
"""The device that is this machine's GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What a device is, as far as choosing a precision needs it.

    `features` use the Linux kernel's names (`avx512_vnni`, `amx_bf16`, `asimddp`, …).
    """

    architecture: str
    vendor: str
    model_name: str
    microarchitecture: str
    features: frozenset[str]
    num_cores: int
    memory_bytes: int

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change when figures may no longer be compared."""
        parts = (
            self.architecture,
            self.vendor,
            self.model_name,
            self.microarchitecture,
            *sorted(self.features),
            str(self.num_cores),
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """What a target is anywhere, with or without its runtime installed.

    Args:
        architectures: of the devices that its artifacts are made for.
        distributions: Python distributions that a device must have for its runner, besides
            numpy.
        needs_source: artifacts are made from the PyTorch model, not from its graph.
    """

    name: str
    vendor: str
    runtime: str
    precisions: tuple[Precision, ...]
    max_opset: int
    artifact_kind: str
    extra: str
    architectures: tuple[str, ...] = ("x86_64", "aarch64")
    distributions: tuple[str, ...] = ()
    needs_source: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """What a probe of one device found. `missing` says what is lacking and how to mend it."""

    ok: bool
    missing: tuple[str, ...] = ()
    device_name: str = ""
    fingerprint: str = ""
    features: tuple[str, ...] = ()
    tool_versions: Mapping[str, str] = field(default_factory=dict)
