"""Our own side of a comparison: the artifact in a bundle, with the plan that ships it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from exporter.deliver.report import Report, read_report
from exporter.deliver.report.document import TargetSection, VariantSection
from targets.contract import (
    ArtifactFile,
    CompiledArtifact,
    Hardware,
    OnnxArtifact,
    Recipe,
    RunPlan,
    Target,
    variants_of,
)
from targets.errors import ExitCode, StepError, StorageError, UsageError
from targets.hashing import sha256_file
from targets.registry import LOCAL, load_target

DEFAULT_TARGET = "openvino"
_FINISHED = (ExitCode.PASS, ExitCode.GATE_FAILED, ExitCode.INCONCLUSIVE)


def ensure_bundle(bundle: Path, target: str = DEFAULT_TARGET) -> Report:
    """Read a bundle's report; export the built-in model first where there is no bundle.

    Args:
        bundle: folder of the bundle.
        target: what it is exported for where it is missing.

    Raises:
        StepError: the export failed.
        StorageError: the report cannot be read.
    """
    if not bundle.exists():
        command = [sys.executable, "-m", "exporter", "export", "--target", target]
        done = subprocess.run([*command, "-o", str(bundle)], stdout=subprocess.DEVNULL, check=False)
        if done.returncode not in _FINISHED:
            raise StepError(
                f"{bundle} could not be exported",
                why=f"exporter export ended with exit code {done.returncode}",
                hint="see its message above",
            )
    return read_report(bundle / "reports")


def chosen_section(report: Report, target: str = DEFAULT_TARGET) -> TargetSection:
    """Return what a report says of a target that was verified on this machine.

    Raises:
        UsageError: the bundle holds no verified artifact of that target.
    """
    for section in report.targets:
        verified_here = section.status == "verified" and section.device == LOCAL
        if section.target == target and verified_here:
            return section
    found = [f"{one.target} ({one.status} on {one.device})" for one in report.targets]
    raise UsageError(
        f"the bundle holds no verified artifact for {target} on this machine",
        why=f"its report is about {', '.join(found) or 'nothing'}",
        hint=f"build one with: exporter export --target {target}",
    )


def recipe_name(report: Report, target: str = DEFAULT_TARGET) -> str:
    """Return the name of the chosen recipe."""
    recipe = chosen_section(report, target).recipe
    return recipe.name if recipe else "unknown"


def bundle_threads(report: Report, target: str = DEFAULT_TARGET) -> int:
    """Return the CPU threads that a bundle's figures were taken with.

    Raises:
        StorageError: the report does not say what it was measured on.
        UsageError: see `chosen_section`.
    """
    asked = report.provenance.settings.get("threads", "None")
    hardware = chosen_section(report, target).hardware
    if hardware is None:
        raise StorageError("the bundle's report does not say what it was measured on")
    return hardware.num_cores if asked == "None" else int(asked)


def own_threads(report: Report, target: str = DEFAULT_TARGET) -> int:
    """Return the CPU threads that the chosen way of running takes.

    Raises:
        StorageError, UsageError: see `bundle_threads`.
    """
    way = _chosen_way(chosen_section(report, target))
    return bundle_threads(report, target) if way is None else way.num_threads


def require_this_machine(report: Report, hardware: Hardware, target: str = DEFAULT_TARGET) -> None:
    """Refuse a bundle whose artifact was chosen on another device.

    Raises:
        UsageError: the fingerprints differ.
    """
    made_on = chosen_section(report, target).hardware
    if made_on is None or made_on.fingerprint != hardware.fingerprint:
        raise UsageError(
            "the bundle's artifact was chosen on another machine",
            why=f"it was chosen on {made_on.model_name if made_on else 'an unknown one'}, "
            f"this is {hardware.model_name} (the fingerprints differ)",
            hint="export it here: another recipe may be the fastest",
        )


def bundle_plan(
    bundle: Path, report: Report, pad_token_id: int, target: str = DEFAULT_TARGET
) -> RunPlan:
    """Say how a bundle's artifact is run: its own file in the way that its report says.

    Raises:
        StorageError: the file is not the report's, or today's target would run it otherwise.
        UsageError: see `chosen_section`.
    """
    section = chosen_section(report, target)
    artifact = _artifact_of(bundle, report, section)
    loaded, num_threads = load_target(target), bundle_threads(report, target)
    default = loaded.run_plan(artifact, graph_of(bundle, report), pad_token_id, num_threads)
    plan = _in_the_chosen_way(loaded, default, section, num_threads)
    now = _way(plan.options, plan.length_multiple, plan.max_batch_tokens)
    reported = _reported_way(section, plan)
    if now != reported:
        raise StorageError(
            f"{bundle}: its artifact would not be run as its report says",
            why=f"report: {reported}; now: {now}",
            hint="export the bundle again with this version",
        )
    return plan


def _chosen_way(section: TargetSection) -> VariantSection | None:
    """Return the way of running that was chosen; None: no other than the target's was tried."""
    return next((one for one in section.variants if one.status == "chosen"), None)


def _in_the_chosen_way(
    target: Target, default: RunPlan, section: TargetSection, num_threads: int
) -> RunPlan:
    way = _chosen_way(section)
    offered = {one.name: one.plan for one in variants_of(target, default, num_threads)}
    return default if way is None else offered.get(way.name, default)


def _reported_way(section: TargetSection, plan: RunPlan) -> dict[str, str]:
    """Describe the way of running of a report, which keeps batches only where ways were tried."""
    batches = _chosen_way(section) or plan
    return _way(section.options, batches.length_multiple, batches.max_batch_tokens)


def _way(options: Mapping[str, str], length_multiple: int, max_batch_tokens: int) -> dict[str, str]:
    batches = {"length_multiple": length_multiple, "max_batch_tokens": max_batch_tokens}
    return {**options, **{name: str(value) for name, value in batches.items()}}


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
