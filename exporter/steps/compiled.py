"""What a target says it compiled, held against what lies there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from targets.contract import (
    ArtifactFile,
    CompiledArtifact,
    CompileRequest,
    FinishRequest,
    Recipe,
    TargetSpec,
)
from targets.errors import CompileError
from targets.hashing import sha256_file


def check_compiled(artifact: CompiledArtifact, request: CompileRequest, spec: TargetSpec) -> None:
    """Refuse an artifact that is not what its target says.

    Everything behind this point is named by these hashes: the cache, the report, the bundle.
    A file that nobody claims would be there when the artifact is verified, and not be shipped.

    Args:
        artifact: what the target answered.
        request: what it was asked for.
        spec: what it says of itself.

    Raises:
        CompileError: names the target, the recipe and every difference.
    """
    faults = [
        *_wrong_facts(artifact, request.recipe, request.graph.sha256, spec),
        *_wrong_files(artifact, request.output_dir),
    ]
    _refuse(faults, "compiled", request.recipe, spec)


def check_finished(artifact: CompiledArtifact, request: FinishRequest, spec: TargetSpec) -> None:
    """Refuse a finished artifact that is not what its target says; see `check_compiled`."""
    prepared = request.artifact
    faults = [
        *_wrong_facts(artifact, prepared.recipe, prepared.built_from, spec),
        *_wrong_files(artifact, request.output_dir),
    ]
    _refuse(faults, "finished", prepared.recipe, spec)


def _refuse(faults: Sequence[str], did: str, recipe: Recipe, spec: TargetSpec) -> None:
    if faults:
        raise CompileError(
            f"target {spec.name}: what it {did} for {recipe.name} is not what it says",
            why="; ".join(faults),
            hint=f"this is a fault of target {spec.name}; report it to {spec.vendor}",
        )


def _wrong_facts(
    artifact: CompiledArtifact, recipe: Recipe, graph_sha256: str, spec: TargetSpec
) -> Iterator[str]:
    if artifact.target != spec.name:
        yield f"it calls itself {artifact.target!r}"
    if artifact.recipe != recipe:
        yield f"it names another recipe, {artifact.recipe.name}"
    if artifact.built_from != graph_sha256:
        yield "it was built from another graph"
    asked = (artifact.recipe.precision, artifact.recipe.float_precision)
    for precision in dict.fromkeys(asked):
        if precision not in spec.precisions:
            yield f"{precision} is none of its precisions ({', '.join(spec.precisions)})"


def _wrong_files(artifact: CompiledArtifact, output_dir: Path) -> Iterator[str]:
    folder = output_dir.resolve()
    if artifact.directory.resolve() != folder:
        yield f"its folder is not {output_dir}"
    if not artifact.files:
        yield "it names no file"
    for file in artifact.files:
        yield from _wrong_file(file, folder)
    present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    for path in sorted(present - {file.path for file in artifact.files}):
        yield f"{path} is there and not named"


def _wrong_file(file: ArtifactFile, folder: Path) -> Iterator[str]:
    path = (folder / file.path).resolve()
    if not path.is_relative_to(folder):
        yield f"{file.path} lies outside of its folder"
    elif not path.is_file():
        yield f"{file.path} is not there"
    elif path.stat().st_size != file.size_bytes:
        yield f"{file.path} has {path.stat().st_size} bytes, not {file.size_bytes}"
    elif sha256_file(path) != file.sha256:
        yield f"{file.path} does not hash to what it says"
