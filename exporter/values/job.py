"""What a machine with the device must do to finish a prepared artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exporter.values.record import ShippedFile
from targets.contract import Recipe

JOB_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile:
    """A file of a prepared artifact.

    Args:
        name: in the artifact's own folder.
        shipped: where the bundle keeps it; files with one content lie there once.
        on_device: whether the device loads it.
    """

    name: str
    shipped: ShippedFile
    on_device: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class JobArtifact:
    """A prepared artifact; the first of its files is the entry file."""

    recipe: Recipe
    files: tuple[JobFile, ...]
    tool_versions: Mapping[str, str]
    compile_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildJob:
    """Everything that is built, timed and judged on the device, with what it takes.

    Args:
        schema_version: of this document.
        tool_version: of the program that prepared it.
        target: who finishes it.
        device: name of the device in the report.
        graph_sha256: of the FP32 graph that everything was made from.
        artifacts: the chosen one, the best float and the FP32 baseline, each once.
        chosen: recipe name of what is certified.
        best_float: recipe name of what int8 must be faster than.
        baseline: recipe name of what speed-ups are over.
        evaluation_sha256: of the texts that certify.
        pad_token_id: what token ids are padded with.
        texts: the evaluation set, its token ids, FP32's embeddings, and the workload where it is
            the user's own.
        settings: of the export that decide what is timed.
        policy: thresholds of the checks.
    """

    schema_version: int = JOB_VERSION
    tool_version: str
    target: str
    device: str
    graph_sha256: str
    artifacts: tuple[JobArtifact, ...]
    chosen: str
    best_float: str
    baseline: str
    evaluation_sha256: str
    pad_token_id: int
    texts: tuple[ShippedFile, ...]
    settings: Mapping[str, str | int | float | bool | None]
    policy: Mapping[str, int | float | bool | None]

    def artifact(self, recipe: str) -> JobArtifact:
        """Return the artifact of a recipe. Raises: KeyError."""
        return {one.recipe.name: one for one in self.artifacts}[recipe]

    @property
    def files(self) -> tuple[ShippedFile, ...]:
        """Every file of the bundle that the job needs."""
        own = (file.shipped for artifact in self.artifacts for file in artifact.files)
        return (*own, *self.texts)
