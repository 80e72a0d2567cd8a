"""What a target is asked to build, and what it built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from targets.contract.graph import OnnxArtifact
from targets.contract.hardware import Hardware
from targets.contract.progress import Progress, no_progress
from targets.contract.recipes import Recipe
from targets.contract.source import SourceModel
from targets.contract.tokens import TokenSequences


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFile:
    """One file of a compiled artifact, relative to the artifact's directory.

    `on_device` is False for what a device does not load: another form of the same model, a report.
    """

    path: str
    sha256: str
    size_bytes: int
    on_device: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CompileRequest:
    """Everything a target needs to build one artifact into an empty `output_dir`.

    `plans` is a file of `targets.quantization.plans_file` with the int8 forms of this graph's
    linear layers in the recipe's scheme; there is one whenever the quantizer is "qdq".
    `source` is there whenever the target's specification says `needs_source`.
    `options` are those of `FinishRequest`, for the build that follows; a target that builds in
    one step gets none.
    """

    graph: OnnxArtifact
    recipe: Recipe
    calibration: TokenSequences
    plans: Path | None = None
    source: SourceModel | None = None
    hardware: Hardware
    output_dir: Path
    num_threads: int
    seed: int
    options: Mapping[str, str] = field(default_factory=dict)
    progress: Progress = no_progress


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledArtifact:
    """A built artifact: files under `directory`, the first of them is the entry file."""

    directory: Path
    files: tuple[ArtifactFile, ...]
    target: str
    recipe: Recipe
    built_from: str
    device_requirement: tuple[str, ...]
    tool_versions: Mapping[str, str]
    compile_s: float

    @property
    def size_bytes(self) -> int:
        """Size of the files that a device needs, together."""
        return sum(file.size_bytes for file in self.files if file.on_device)
