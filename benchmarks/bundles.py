"""Our own side of a comparison: the artifact in a bundle, with the plan that ships it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from exporter.deliver.report import Report, read_report
from exporter.deliver.report.document import TargetSection
from targets.contract import (
    ArtifactFile,
    CompiledArtifact,
    Hardware,
    OnnxArtifact,
    Recipe,
    RunPlan,
)
from targets.errors import ExitCode, StepError, StorageError, UsageError
from targets.hashing import sha256_file
from targets.registry import load_target

TARGET = "openvino"
_FINISHED = (ExitCode.PASS, ExitCode.GATE_FAILED, ExitCode.INCONCLUSIVE)


def ensure_bundle(bundle: Path) -> Report:
    """Read a bundle's report; export the built-in model first where there is no bundle.

    Raises:
        StepError: the export failed.
        StorageError: the report cannot be read.
    """
    if not bundle.exists():
        command = [sys.executable, "-m", "exporter", "export", "--target", TARGET]
        done = subprocess.run([*command, "-o", str(bundle)], stdout=subprocess.DEVNULL, check=False)
        if done.returncode not in _FINISHED:
            raise StepError(
                f"{bundle} could not be exported",
                why=f"exporter export ended with exit code {done.returncode}",
                hint="see its message above",
            )
    return read_report(bundle / "reports")


def chosen_section(report: Report, target: str = TARGET) -> TargetSection:
    """Return what a report says of a target that was verified on this machine.

    Raises:
        UsageError: the bundle holds no verified artifact of that target.
    """
    for section in report.targets:
        if section.target == target and section.status == "verified":
            return section
    raise UsageError(
        f"the bundle holds no verified artifact for {target}",
        why=f"its report is about {', '.join(s.target for s in report.targets) or 'nothing'}",
        hint=f"build one with: exporter export --target {target}",
    )


def recipe_name(report: Report) -> str:
    """Return the name of the chosen recipe."""
    recipe = chosen_section(report).recipe
    return recipe.name if recipe else "unknown"


def bundle_threads(report: Report) -> int:
    """Return the CPU threads that a bundle's figures were taken with.

    Raises:
        StorageError: the report does not say what it was measured on.
        UsageError: see `chosen_section`.
    """
    asked = report.provenance.settings.get("threads", "None")
    hardware = chosen_section(report).hardware
    if hardware is None:
        raise StorageError("the bundle's report does not say what it was measured on")
    return hardware.num_cores if asked == "None" else int(asked)


def require_this_machine(report: Report, hardware: Hardware) -> None:
    """Refuse a bundle whose artifact was chosen on another device.

    Raises:
        UsageError: the fingerprints differ.
    """
    made_on = chosen_section(report).hardware
    if made_on is None or made_on.fingerprint != hardware.fingerprint:
        raise UsageError(
            "the bundle's artifact was chosen on another machine",
            why=f"it was chosen on {made_on.model_name if made_on else 'an unknown one'}, "
            f"this is {hardware.model_name} (the fingerprints differ)",
            hint="export it here: another recipe may be the fastest",
        )


def bundle_plan(bundle: Path, report: Report, pad_token_id: int) -> RunPlan:
    """Say how a bundle's artifact is run: its own file under the options of its report.

    Raises:
        StorageError: the file is not the report's, or today's target would run it otherwise.
        UsageError: see `chosen_section`.
    """
    section = chosen_section(report)
    artifact = _artifact_of(bundle, report, section)
    plan = load_target(section.target).run_plan(
        artifact, graph_of(bundle, report), pad_token_id, bundle_threads(report)
    )
    if dict(plan.options) != dict(section.options):
        raise StorageError(
            f"{bundle}: its artifact would not be run as its report says",
            why=f"report: {dict(section.options)}; now: {dict(plan.options)}",
            hint="export the bundle again with this version",
        )
    return plan


def artifact_bytes(entry: Path) -> int:
    """Return the size of an artifact: its entry file and the weights beside it."""
    weights = entry.with_suffix(".bin") if entry.suffix == ".xml" else Path(f"{entry}_data")
    return sum(path.stat().st_size for path in (entry, weights) if path.is_file())


def _artifact_of(bundle: Path, report: Report, section: TargetSection) -> CompiledArtifact:
    recipe, shipped = _required(bundle, section)
    if _sha256(bundle / shipped.path) != shipped.sha256:
        raise StorageError(
            f"{bundle / shipped.path} is not the file that the bundle's report is about",
            hint="export the bundle again",
        )
    return CompiledArtifact(
        directory=bundle,
        files=(shipped,),
        target=section.target,
        recipe=recipe,
        built_from=report.model.graph.sha256,
        device_requirement=recipe.requires,
        tool_versions=section.tool_versions,
        compile_s=0.0,
    )


def _sha256(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        why = error.strerror or str(error)
        raise StorageError(f"{path} cannot be read", why=why, hint="export again") from error


def _required(bundle: Path, section: TargetSection) -> tuple[Recipe, ArtifactFile]:
    if section.recipe is None or section.artifact is None:
        raise StorageError(f"{bundle}: its report names no artifact for {section.target}")
    shipped = section.artifact
    return section.recipe, ArtifactFile(
        path=shipped.path, sha256=shipped.sha256, size_bytes=shipped.size_bytes
    )


def graph_of(bundle: Path, report: Report) -> OnnxArtifact:
    """Return a bundle's FP32 graph as its report describes it."""
    model = report.model
    return OnnxArtifact(
        path=bundle / "onnx" / "model.onnx",
        sha256=model.graph.sha256,
        opset=model.graph.opset,
        inputs=model.graph.inputs,
        outputs=model.graph.outputs,
        model_id=model.id,
        revision=model.revision,
        embedding_dim=model.embedding_dim,
        pooling=model.pooling,
        normalized=model.normalize,
        max_seq_length=model.max_seq_length,
    )
