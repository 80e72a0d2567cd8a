"""Artifacts compiled, and finished on their device where a target works in two steps; cached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from exporter.config import Settings
from exporter.deliver.codec import dump_json, load_json
from exporter.steps.compiled import check_finished
from exporter.steps.compilers import Compile, finish_apart
from exporter.steps.execution import Built, Stand
from exporter.steps.workspace import Workspace
from targets.contract import (
    CompiledArtifact,
    CompileRequest,
    FinishRequest,
    OnnxArtifact,
    Preparable,
    Progress,
    Recipe,
    SourceModel,
    Target,
    TokenSequences,
)
from targets.errors import ConfigError
from targets.hashing import sha256_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredients:
    """What a recipe is made of: the FP32 graph, calibration texts, int8 forms of layers.

    `source` is the PyTorch model, for targets that ask for it.
    """

    graph: OnnxArtifact
    calibration: TokenSequences
    plans: Path | None = None
    source: SourceModel | None = None


def build_options(settings: Settings) -> dict[str, str]:
    """Return the options of builds that the settings name, by the targets' own names."""
    return {"cuda_api": settings.cuda_api} if settings.cuda_api else {}


def require_two_steps(settings: Settings, targets: Sequence[Target]) -> None:
    """Refuse options of builds where no target has a build of that kind.

    Raises:
        ConfigError: nobody would take them.
    """
    if settings.cuda_api and not any(isinstance(one, Preparable) for one in targets):
        names = ", ".join(one.spec.name for one in targets)
        raise ConfigError(
            f"--cuda-api {settings.cuda_api}: no target speaks to CUDA",
            why=f"targets are {names}",
            hint="leave it out, or add --target tensorrt",
        )


def build_artifact(
    work: Workspace, stand: Stand, given: Ingredients, recipe: Recipe, compile_: Compile
) -> Built:
    """Compile one recipe, unless the same was compiled before.

    Raises:
        CompileError, NotInstalledError: see `Target.compile`.
    """
    two_steps = isinstance(stand.target, Preparable)
    options = build_options(work.settings) if two_steps else {}

    def build(folder: Path, progress: Progress) -> None:
        files = folder / "files"
        files.mkdir()
        request = CompileRequest(
            graph=given.graph,
            recipe=recipe,
            calibration=given.calibration,
            plans=given.plans,
            source=given.source,
            hardware=stand.hardware,
            output_dir=files,
            num_threads=stand.build_threads,
            seed=work.settings.seed,
            options=options,
        )
        (folder / "artifact.json").write_bytes(dump_json(compile_(request)))

    parts = (
        given.graph.sha256,
        dump_json(recipe).decode(),
        given.calibration.sha256 if recipe.quantizer == "nncf_ptq" or stand.prepares else "",
        sha256_file(given.plans) if given.plans else "",
        work.settings.seed,
        options,
        *stand.identity,
    )
    folder = work.cached("artifact", f"compile {recipe.name}", parts, build)
    stored = load_json(CompiledArtifact, (folder / "artifact.json").read_bytes())
    artifact = replace(stored, directory=folder / "files")
    padding = given.calibration.pad_token_id
    make_plan = stand.target.run_plan
    if stand.prepares and isinstance(stand.target, Preparable):
        make_plan = stand.target.simulation
    else:
        artifact = finished(work, stand, artifact)
    plan = make_plan(artifact, given.graph, padding, stand.num_threads)
    return Built(artifact=artifact, plan=plan)


def finished(
    work: Workspace,
    stand: Stand,
    artifact: CompiledArtifact,
    options: Mapping[str, str] | None = None,
    engine: Path | None = None,
    calibration: TokenSequences | None = None,
) -> CompiledArtifact:
    """Return what runs on the device: built there where the target works in two steps.

    Args:
        work: the run's surroundings.
        stand: the target on its device.
        artifact: what `Target.compile` made.
        options: of the build, by the target's own names.
        engine: built from it by the runtime's own tool; None: the target builds it.
        calibration: texts for a builder that chooses scales itself.

    Raises:
        CompileError, ConfigError, NotInstalledError: see `Preparable.finish`.
    """
    target, maker = stand.target, stand.target
    if not isinstance(maker, Preparable):
        return artifact

    def build(folder: Path, progress: Progress) -> None:
        files = folder / "files"
        files.mkdir()
        request = FinishRequest(
            artifact=artifact,
            hardware=stand.hardware,
            output_dir=files,
            num_threads=stand.build_threads,
            keep_dir=work.cache.root / "kept" / target.spec.name,
            options=options or {},
            engine=engine,
            calibration=calibration,
        )
        made = finish_apart(target.spec.name, request)
        check_finished(made, request, target.spec)
        (folder / "artifact.json").write_bytes(dump_json(made))

    parts = (
        [(file.path, file.sha256) for file in artifact.files],
        sha256_file(engine) if engine else "",
        calibration.sha256 if calibration else "",
        dict(options or {}),
        *stand.identity,
    )
    with work.device_builds:
        folder = work.cached("engine", f"build {artifact.recipe.name} on its device", parts, build)
    stored = load_json(CompiledArtifact, (folder / "artifact.json").read_bytes())
    return replace(stored, directory=folder / "files")
