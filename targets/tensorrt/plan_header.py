"""What a serialized engine says of itself before anything of it is deserialized.

The first 64 bytes, little-endian (`engine_header_size` of TensorRT for RTX 1.7): a tag, 0, two
more words, and at 24 the version as four bytes. In plans of TensorRT for RTX the word at 16 is the
size of the whole plan and the one at 32 the set of compute capabilities that it was built for, one
bit each; read from plans that its compiler made for every capability.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from targets.errors import CompileError, StorageError
from targets.hashing import sha256_file

HEADER_BYTES = 64
TENSORRT_RUNTIME, RTX_RUNTIME = "TensorRT", "TensorRT for RTX"
_TAGS = {b"ftrt": TENSORRT_RUNTIME, b"vtrt": RTX_RUNTIME}
_RTX_CAPABILITIES = ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")
_LAYOUT = struct.Struct("<4sI8xQ4B4xI")
Version = tuple[int, int, int, int]
"""Major, minor, patch, build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanHeader:
    """The head of a plan.

    Args:
        runtime: which family of runtimes reads it.
        version: of the one that built it.
        size_bytes: of the whole plan; None where the format does not tell.
        capabilities: compute capabilities that it runs on; none: the format does not tell.
    """

    runtime: str
    version: Version
    size_bytes: int | None = None
    capabilities: tuple[str, ...] = ()

    @property
    def version_text(self) -> str:
        """The version with points."""
        return ".".join(map(str, self.version))


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """Who is about to load a plan.

    Args:
        runtime: its family.
        version: its version, "11.4.0.106".
        rebuild: the command that makes a plan for it.
    """

    runtime: str
    version: str
    rebuild: str


def read_header(path: Path) -> PlanHeader:
    """Read the head of a plan.

    Raises:
        StorageError: it cannot be read, or is no plan.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
    except OSError as error:
        why = error.strerror or str(error)
        raise StorageError(f"{path} cannot be read", why=why) from error
    return parse_header(head, path.name)


def parse_header(head: bytes, name: str = "the plan") -> PlanHeader:
    """Read the head of a plan from its first bytes; see `read_header`."""
    if len(head) < HEADER_BYTES:
        raise StorageError(f"{name} is cut off in its first {HEADER_BYTES} bytes")
    tag, zero, size, major, minor, patch, build, mask = _LAYOUT.unpack_from(head)
    if tag not in _TAGS or zero != 0:
        raise StorageError(
            f"{name} is not a TensorRT engine",
            why=f"it begins with {tag!r}",
            hint="name a file that `exporter build` or trtexec --saveEngine wrote",
        )
    runtime, version = _TAGS[tag], (major, minor, patch, build)
    if runtime != RTX_RUNTIME:
        return PlanHeader(runtime=runtime, version=version)
    known = enumerate(_RTX_CAPABILITIES)
    capabilities = tuple(one for bit, one in known if mask & (1 << bit))
    return PlanHeader(runtime=runtime, version=version, size_bytes=size, capabilities=capabilities)


def require_plan(
    path: Path,
    loader: Loader,
    *,
    sha256: str = "",
    version_compatible: bool = False,
    capability: str = "",
) -> PlanHeader:
    """Refuse a plan that must not be handed to a runtime.

    Args:
        path: the plan.
        loader: who would load it.
        sha256: what its bundle says of it; "": nobody has said anything yet.
        version_compatible: it was built for later versions of the same major as well.
        capability: compute capability of the GPU at hand, "8.9"; "": not known.

    Raises:
        StorageError: it is damaged, or not the file that its bundle names.
        CompileError: another runtime, version or GPU; says what to build anew, and how.
    """
    header = read_header(path)
    if header.size_bytes not in (None, path.stat().st_size):
        raise StorageError(
            f"{path.name} is cut off or was added to",
            why=f"{path.stat().st_size} bytes; its head says {header.size_bytes}",
            hint=loader.rebuild,
        )
    if sha256 and sha256_file(path) != sha256:
        raise StorageError(
            f"{path.name} is not the engine that its bundle names",
            why="its SHA-256 is another one; an engine is code, and is not loaded unseen",
            hint=loader.rebuild,
        )
    if refused := _why_refused(header, loader, version_compatible, capability):
        raise CompileError(
            f"{path.name} cannot be loaded here",
            why=refused,
            hint=f"build it anew: {loader.rebuild}",
        )
    return header


def _why_refused(
    header: PlanHeader, loader: Loader, version_compatible: bool, capability: str
) -> str:
    if header.runtime != loader.runtime:
        return f"it is a plan of {header.runtime}, here is {loader.runtime}"
    here = parse_version(loader.version)
    later = version_compatible and here[0] == header.version[0] and here >= header.version
    if header.version != here and not later:
        return f"{header.runtime} {header.version_text} built it, here is {loader.version}"
    if capability and header.capabilities and capability not in header.capabilities:
        built = _listed(header.capabilities)
        return f"it was built for compute capability {built}, this GPU has {capability}"
    return ""


def parse_version(text: str) -> Version:
    """Read "11.4.0.106"; what is missing is 0."""
    parts = [int(part) if part.isdigit() else 0 for part in text.split(".")[:4]]
    major, minor, patch, build = [*parts, 0, 0, 0, 0][:4]
    return (major, minor, patch, build)


def _listed(values: Sequence[str]) -> str:
    return ", ".join(values)
