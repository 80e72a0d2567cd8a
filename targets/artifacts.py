"""What targets of every kind say alike of what they built and of how it is loaded."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from targets.contract import (
    ArtifactFile,
    CompiledArtifact,
    CompileRequest,
    OnnxArtifact,
    RunPlan,
)
from targets.hashing import sha256_file


def artifact_file(path: Path, root: Path | None = None, *, on_device: bool = True) -> ArtifactFile:
    """Describe a file of an artifact.

    Args:
        path: where it lies.
        root: the artifact's folder; None: the file's own.
        on_device: whether a device needs it.
    """
    return ArtifactFile(
        path=path.relative_to(root or path.parent).as_posix(),
        sha256=sha256_file(path),
        size_bytes=path.stat().st_size,
        on_device=on_device,
    )


def built_artifact(
    request: CompileRequest,
    target: str,
    files: Sequence[ArtifactFile],
    tool_versions: Mapping[str, str],
    started_s: float,
) -> CompiledArtifact:
    """Describe what was built into the request's folder.

    Args:
        request: what was asked for.
        target: name of the target.
        files: the entry file first.
        tool_versions: of everything that had a part in it.
        started_s: when the work began, by `time.perf_counter`.
    """
    return CompiledArtifact(
        directory=request.output_dir,
        files=tuple(files),
        target=target,
        recipe=request.recipe,
        built_from=request.graph.sha256,
        device_requirement=request.recipe.requires,
        tool_versions=tool_versions,
        compile_s=time.perf_counter() - started_s,
    )


def plan_to_run(
    artifact: CompiledArtifact,
    graph: OnnxArtifact,
    pad_token_id: int,
    *,
    adapter: Path,
    output: str,
    options: Mapping[str, str],
    length_multiple: int,
    max_batch_tokens: int,
    adapter_parts: tuple[str, ...] = (),
) -> RunPlan:
    """Return the plan that loads an artifact's entry file with the graph's own inputs."""
    return RunPlan(
        adapter=adapter,
        adapter_parts=adapter_parts,
        model=artifact.directory / artifact.files[0].path,
        inputs=tuple(tensor.name for tensor in graph.inputs),
        output=output,
        pad_token_id=pad_token_id,
        embedding_dim=graph.embedding_dim,
        max_seq_length=graph.max_seq_length,
        options=options,
        length_multiple=length_multiple,
        max_batch_tokens=max_batch_tokens,
    )
