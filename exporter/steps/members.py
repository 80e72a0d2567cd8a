"""Artifacts of bundles embedded again: on their own device where it is here, else simulated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from exporter.deliver.report.document import TargetSection
from exporter.deliver.spaces import space_of
from exporter.judge import Embedded
from exporter.steps.bundled import OpenBundle, chosen_way, plan_of
from exporter.steps.execution import Bench, Built, Stand
from exporter.steps.texts import TokenizedEvaluation
from exporter.steps.workspace import Workspace
from exporter.values import EvaluationEmbeddings, MissingMember, SpaceMember, reference_space
from targets.contract import LOCAL, Device, Preparable, Target, hardware_of
from targets.errors import DeviceError, ExporterError, NotInstalledError
from targets.hardware.detect import usable_cores
from targets.registry import load_target, open_device

REFERENCE_NAME = "float32"
_REFERENCE_TARGETS = ("onnxruntime", "onnxruntime-mobile")
"""What runs the FP32 graph of a bundle: the first that is made for this machine."""

Numerics = Literal["device", "simulated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One target's artifact of one bundle, before anything runs."""

    bundle: OpenBundle
    section: TargetSection
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A candidate with where it is embedded, and whose kernels those are.

    `why_simulated` says why they are not its own device's; "" where they are.
    """

    candidate: Candidate
    stand: Stand
    numerics: Numerics
    why_simulated: str = ""


def candidates_of(bundles: Sequence[OpenBundle]) -> tuple[Candidate, ...]:
    """Name every artifact of some bundles, so that no two have one name."""
    found = [(bundle, section) for bundle in bundles for section in bundle.report.targets]
    names = [_name_of(section) for _, section in found]
    folders = [bundle.source.resolve().name for bundle, _ in found]
    names = _told_apart(_told_apart(names, folders), [bundle.name for bundle, _ in found])
    return tuple(
        Candidate(bundle=bundle, section=section, name=name)
        for name, (bundle, section) in zip(names, found, strict=True)
    )


def member_name(target: str, recipe: str, device: str) -> str:
    """Return what an artifact is called in the matrix; this machine goes without saying."""
    parts = [target, recipe, "" if device == LOCAL else f"on {device}"]
    return " ".join(part for part in parts if part)


def _name_of(section: TargetSection) -> str:
    recipe = section.recipe.name if section.recipe else ""
    return member_name(section.target, recipe, section.device)


def _told_apart(names: Sequence[str], places: Sequence[str]) -> list[str]:
    """Add where it comes from to every name that occurs twice."""
    often = Counter(names)
    return [
        f"{name} ({place})" if often[name] > 1 else name
        for name, place in zip(names, places, strict=True)
    ]


# --------------------------------------------------------------------------------- places


def place_all(
    candidates: Sequence[Candidate], *, simulate: bool, threads: int | None
) -> tuple[list[Placed], list[MissingMember]]:
    """Find where each candidate can be embedded.

    Args:
        candidates: artifacts of bundles.
        simulate: take this machine's kernels for what does not measure latency (emulation).
        threads: CPU threads; None: as many as there are.

    Returns:
        Those that can run, and those that cannot with the reason.
    """
    placed, missing = [], []
    for one in candidates:
        try:
            placed.append(_place(one, simulate=simulate, threads=threads))
        except ExporterError as error:
            missing.append(missing_of(one, error))
    return placed, missing


def missing_of(candidate: Candidate, error: ExporterError) -> MissingMember:
    """Say that an artifact could not be compared, and why."""
    reason = f"{error.what}: {error.why}" if error.why else error.what
    return MissingMember(name=candidate.name, bundle=candidate.bundle.name, reason=reason)


def _place(candidate: Candidate, *, simulate: bool, threads: int | None) -> Placed:
    section = candidate.section
    if section.status not in ("verified", "prepared") or section.artifact is None:
        raise NotInstalledError(
            f"its artifact is {section.status.replace('_', ' ')}", why=section.reason
        )
    target = load_target(section.target)
    if section.status == "prepared":
        return _simulated_for_now(candidate, target, threads)
    try:
        own = _own_stand(target, section, threads)
    except ExporterError as error:
        why = f"{error.what}: {error.why}" if error.why else error.what
    else:
        if own.device.measures_latency or not simulate:
            return Placed(candidate=candidate, stand=own, numerics="device")
        why = "a simulation was asked for"
    here = stand_on(target, open_device(LOCAL), threads)
    return Placed(candidate=candidate, stand=here, numerics="simulated", why_simulated=why)


def _simulated_for_now(candidate: Candidate, target: Target, threads: int | None) -> Placed:
    """Let this machine stand for a device that the artifact has never met."""
    if not isinstance(target, Preparable):
        raise NotInstalledError(
            "its artifact is prepared", why=f"{target.spec.name} cannot simulate it here"
        )
    here = open_device(LOCAL)
    stand = Stand(
        target=target,
        device=here,
        hardware=here.hardware(),
        tool_versions={},
        num_threads=threads or usable_cores(),
    )
    why = f"it is prepared, and {candidate.section.device} has not finished it"
    return Placed(candidate=candidate, stand=stand, numerics="simulated", why_simulated=why)


def _own_stand(target: Target, section: TargetSection, threads: int | None) -> Stand:
    """Return the device that an artifact was verified on.

    Raises:
        ExporterError: it is not here, or what is here by that name is another one.
    """
    stand = stand_on(target, open_device(section.device), threads)
    verified_on = section.hardware.fingerprint if section.hardware else ""
    if stand.hardware.fingerprint != verified_on:
        raise DeviceError(
            f"{section.device} is another machine here than the one it was verified on"
        )
    return stand


def stand_on(target: Target, device: Device, threads: int | None) -> Stand:
    """Return a target on a device that it can run on.

    Raises:
        NotInstalledError: it cannot, with the reason.
        DeviceError: the device does not answer.
    """
    found = target.probe(device)
    if not found.ok:
        raise NotInstalledError(
            f"target {target.spec.name} cannot run on {device.name}",
            why="; ".join(found.missing),
        )
    hardware, here = hardware_of(target, device), usable_cores()
    cores = hardware.num_cores if device.measures_latency else here
    return Stand(
        target=target,
        device=device,
        hardware=hardware,
        tool_versions=found.tool_versions,
        num_threads=threads or cores,
        build_threads=threads or here,
    )


# ------------------------------------------------------------------------------ embedding


def embed_member(work: Workspace, placed: Placed, evaluation: TokenizedEvaluation) -> Embedded:
    """Embed an evaluation set with an artifact, run as its report says.

    Raises:
        StorageError: it would be run otherwise today.
        DeviceError, NonFiniteError: it does not run.
    """
    candidate, section = placed.candidate, placed.candidate.section
    built = built_of(candidate.bundle, section, evaluation.documents.pad_token_id)
    with Bench(work, placed.stand) as bench:
        embeddings = bench.embed(built, evaluation)
    member = SpaceMember(
        name=candidate.name,
        space_id=space_of(candidate.bundle.report.model, section),
        recipe=built.recipe.name,
        artifact_sha256=built.artifact.files[0].sha256,
        bundle=candidate.bundle.name,
        numerics=placed.numerics,
    )
    return Embedded(member=member, embeddings=embeddings)


def built_of(bundle: OpenBundle, section: TargetSection, pad_token_id: int) -> Built:
    """Return a bundle's artifact with the plan that ran it when it was verified.

    Raises:
        StorageError: today's target would run it otherwise.
    """
    artifact, target = bundle.artifact(section), load_target(section.target)
    if section.status == "prepared" and isinstance(target, Preparable):
        simulated = target.simulation(artifact, bundle.graph, pad_token_id, usable_cores())
        return Built(artifact=artifact, plan=simulated)
    plan = plan_of(bundle.path, bundle.report, section, artifact, pad_token_id)
    way = chosen_way(section)
    num_threads = min(way.num_threads, usable_cores()) if way else None
    return Built(artifact=artifact, plan=plan, num_threads=num_threads)


def embed_reference(
    work: Workspace, bundle: OpenBundle, evaluation: TokenizedEvaluation
) -> Embedded:
    """Embed an evaluation set with a bundle's FP32 graph, which needs neither torch nor weights.

    Raises:
        NotInstalledError: nothing here runs ONNX.
    """
    device = open_device(LOCAL)
    architecture = device.hardware().architecture
    targets = [load_target(name) for name in _REFERENCE_TARGETS]
    target = next((t for t in targets if architecture in t.spec.architectures), targets[0])
    stand = stand_on(target, device, work.settings.threads)
    artifact = replace(bundle.reference, target=target.spec.name)
    padding = evaluation.documents.pad_token_id
    plan = target.run_plan(artifact, bundle.graph, padding, stand.num_threads)
    with Bench(work, stand) as bench:
        embeddings = bench.embed(Built(artifact=artifact, plan=plan), evaluation)
    model = bundle.report.model
    return reference_member(reference_space(model), model.weights_sha256, embeddings)


def reference_member(
    space_id: str, weights_sha256: str, embeddings: EvaluationEmbeddings
) -> Embedded:
    """Return FP32 itself as a member: what the others are compared with."""
    member = SpaceMember(
        name=REFERENCE_NAME,
        space_id=space_id,
        recipe=REFERENCE_NAME,
        artifact_sha256=weights_sha256,
        bundle="",
        numerics="device",
    )
    return Embedded(member=member, embeddings=embeddings)
