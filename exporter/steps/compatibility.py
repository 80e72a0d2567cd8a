"""Which artifacts may share an index: of one export run, or of bundles that were delivered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.deliver.spaces import space_of
from exporter.judge import (
    Embedded,
    ExchangePolicy,
    Index,
    compare_members,
    judge_upgrade,
)
from exporter.steps.bundled import OpenBundle, open_bundles
from exporter.steps.common_texts import common_evaluation, require_one_model
from exporter.steps.execution import Bench, Built, Stand
from exporter.steps.members import (
    Candidate,
    candidates_of,
    embed_member,
    embed_reference,
    member_name,
    missing_of,
    place_all,
    reference_member,
)
from exporter.steps.reduced import reduce_evaluation
from exporter.steps.source import Source
from exporter.steps.texts import TokenizedEvaluation
from exporter.steps.workspace import Workspace
from exporter.values import (
    Compatibility,
    ExportRecord,
    MissingMember,
    ShippedFile,
    SpaceMember,
    TargetResult,
    Upgrade,
    reference_space,
)
from targets.contract import ArtifactFile, CompiledArtifact, Target
from targets.errors import ConfigError, ExitCode, ExporterError

if TYPE_CHECKING:
    from exporter.steps.assemble import Shipment

_STAGE = "compatibility"


# ------------------------------------------------------------------------- bundles, compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What is compared.

    Args:
        bundles: folders of bundles, or archives of them.
        old: bundles whose indexes exist already; none: no upgrade is asked about.
        index: what searches.
        policy: the borders between drop-in, degraded and re-index.
        simulate: take this machine's kernels for emulated CPUs, and all texts.
    """

    bundles: tuple[Path, ...]
    old: tuple[Path, ...] = ()
    index: Index
    policy: ExchangePolicy
    simulate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CompatibilityAnswer:
    """The matrix, the answer about an upgrade where one was asked for, and the exit code."""

    compatibility: Compatibility
    upgrade: Upgrade | None
    exit_code: int


def compare_bundles(work: Workspace, asked: Comparison) -> CompatibilityAnswer:
    """Embed one evaluation set with all artifacts of some bundles and compare all pairs.

    An artifact that cannot run here is missing, with the reason. Archives are unpacked into
    temporary folders for as long as it takes.

    Raises:
        StorageError: a bundle is damaged.
        UsageError: bundles of different models or evaluation sets.
        ConfigError: k is larger than the evaluation set allows.
    """
    paths: dict[Path, Path] = {}
    for path in (*asked.bundles, *asked.old):
        paths.setdefault(path.resolve(), path)
    with open_bundles(paths.values()) as bundles:
        return _compare(work, asked, bundles)


def _compare(
    work: Workspace, asked: Comparison, bundles: Sequence[OpenBundle]
) -> CompatibilityAnswer:
    require_one_model(bundles)
    evaluation = common_evaluation(work, bundles)
    candidates = candidates_of(bundles)
    placed, missing = place_all(candidates, simulate=asked.simulate, threads=work.settings.threads)
    for one in placed:
        if one.why_simulated:
            work.reporter.note(f"{one.candidate.name} is simulated here: {one.why_simulated}")
    if any(not one.stand.device.measures_latency for one in placed):
        seed = int(bundles[0].report.provenance.settings.get("seed", "0"))
        evaluation = reduce_evaluation(evaluation, seed=seed).evaluation
    embedded = [embed_reference(work, bundles[0], evaluation)]
    for one in placed:
        try:
            embedded.append(embed_member(work, one, evaluation))
        except ExporterError as error:
            missing.append(missing_of(one.candidate, error))
    matrix = _compared(work, evaluation, embedded, asked.policy, asked.index, missing)
    upgrade = _upgrade(matrix, candidates, asked) if asked.old else None
    return CompatibilityAnswer(
        compatibility=matrix, upgrade=upgrade, exit_code=int(_exit_code(matrix, upgrade))
    )


def _upgrade(matrix: Compatibility, candidates: Sequence[Candidate], asked: Comparison) -> Upgrade:
    here = {one.name for one in matrix.members}

    def names_in(paths: Sequence[Path]) -> list[str]:
        folders = {path.resolve() for path in paths}
        own = [one.name for one in candidates if one.bundle.source.resolve() in folders]
        return [name for name in own if name in here]

    return judge_upgrade(matrix, names_in(asked.bundles), names_in(asked.old))


def _exit_code(matrix: Compatibility, upgrade: Upgrade | None) -> ExitCode:
    """A missing artifact is never a pass; only an upgrade has something to fail."""
    if upgrade is None:
        return ExitCode.INCONCLUSIVE if matrix.missing else ExitCode.PASS
    if not upgrade.decided:
        return ExitCode.INCONCLUSIVE
    return ExitCode.PASS if upgrade.survives == "yes" else ExitCode.GATE_FAILED


# --------------------------------------------------------------------------- one export run


def with_compatibility(
    work: Workspace,
    record: ExportRecord,
    source: Source,
    test: TokenizedEvaluation,
    stands: Sequence[Stand],
    shipments: Sequence[Shipment],
) -> ExportRecord:
    """Add the matrix of a run's artifacts to its record, where there are several.

    The embeddings are those that certified the artifacts, out of the cache. Where a device
    embedded a part of the texts only, all are compared on that part.

    Args:
        work: the run's surroundings.
        record: what the run found.
        source: FP32.
        test: the texts that certify.
        stands: where the artifacts ran.
        shipments: what came of them, in the same order.
    """
    built = [(stand, one) for stand, one in zip(stands, shipments, strict=True) if one.built]
    if len(record.targets) < 2 or not built:
        return record
    reference = source.reference(test)
    if any(not stand.device.measures_latency for stand, _ in built):
        reduced = reduce_evaluation(test, seed=work.settings.seed)
        test, reference = reduced.evaluation, reduced.rows_of(reference)
    spec = record.encoder
    embedded = [reference_member(reference_space(spec), spec.weights_sha256, reference)]
    reasons = {_place(one): one.reason for one in record.targets}
    for stand, shipment in built:
        try:
            embedded.append(_embedded(work, record, stand, shipment, test))
            del reasons[_place(shipment.result)]
        except ExporterError as error:  # the run's own results do not depend on the matrix
            reasons[_place(shipment.result)] = error.what
    missing = [_missing(one, reasons) for one in record.targets if _place(one) in reasons]
    try:
        matrix = _compared(work, test, embedded, _borders(work), Index(), missing)
    except ConfigError as error:
        work.reporter.note(f"no compatibility matrix: {error.what}")
        return record
    return replace(record, compatibility=matrix)


def _borders(work: Workspace) -> ExchangePolicy:
    """Hold a mixed pair to the promise that an artifact keeps by itself."""
    promised, usual = work.settings.policy, ExchangePolicy()
    return ExchangePolicy(
        k=promised.k,
        min_drop_in=promised.min_overlap_at_k,
        min_degraded=min(usual.min_degraded, promised.min_overlap_at_k),
    )


def _embedded(
    work: Workspace,
    record: ExportRecord,
    stand: Stand,
    shipment: Shipment,
    test: TokenizedEvaluation,
) -> Embedded:
    built = shipment.built
    if built is None:
        raise ValueError(f"{shipment.result.target} has nothing to embed with")
    with Bench(work, stand) as bench:
        embeddings = bench.embed(built, test)
    return Embedded(member=_member(record, shipment, built), embeddings=embeddings)


def _member(record: ExportRecord, shipment: Shipment, built: Built) -> SpaceMember:
    result = shipment.result
    entry = _entry(shipment.target, built.artifact)
    shipped = ShippedFile(path=entry.path, sha256=entry.sha256, size_bytes=entry.size_bytes)
    return SpaceMember(
        name=member_name(result.target, built.recipe.name, result.device),
        space_id=space_of(record.encoder, replace(result, artifact=shipped)),
        recipe=built.recipe.name,
        artifact_sha256=entry.sha256,
        bundle="",
        numerics="device" if result.status == "verified" else "simulated",
    )


def _entry(target: Target, artifact: CompiledArtifact) -> ArtifactFile:
    """Return the file that the bundle's report will name."""
    name = target.ship(artifact)[0][0]
    return next(file for file in artifact.files if file.path == name)


def _place(result: TargetResult) -> tuple[str, str]:
    return result.target, result.device


def _missing(result: TargetResult, reasons: Mapping[tuple[str, str], str]) -> MissingMember:
    reason = reasons[_place(result)] or f"it is {result.status.replace('_', ' ')}"
    name = member_name(result.target, "", result.device)
    return MissingMember(name=name, bundle="", reason=reason)


def _compared(
    work: Workspace,
    evaluation: TokenizedEvaluation,
    embedded: Sequence[Embedded],
    policy: ExchangePolicy,
    index: Index,
    missing: Sequence[MissingMember],
) -> Compatibility:
    with work.step(_STAGE, f"compare {len(embedded)} artifacts pair by pair"):
        return compare_members(
            evaluation.texts,
            embedded,
            summary=evaluation.summary,
            policy=policy,
            index=index,
            missing=missing,
            seed=work.settings.seed,
        )
