"""What is known of an artifact whose device is not here: simulated, compiled, never timed."""

from __future__ import annotations

from dataclasses import replace

from exporter.judge import PRECISION, judge_precision, not_run
from exporter.steps.certify import certify
from exporter.steps.contest import Contest, Outcome
from exporter.values import EvaluationEmbeddings, TargetResult
from targets.contract import Check, Preparable, Structure

NO_COMPILER = "no compiler of this target is installed here, so nobody looked into an engine"


def prepare(
    contest: Contest, outcome: Outcome, test_reference: EvaluationEmbeddings
) -> TargetResult:
    """Judge a prepared artifact by simulation, and its structure by a compiler if there is one.

    Raises:
        DeviceError, NonFiniteError: the simulation does not run on the test split.
    """
    stand, target = contest.stand, contest.stand.target
    simulated = certify(contest, outcome, test_reference)
    structure = None
    if isinstance(target, Preparable):
        structure = target.structure(outcome.chosen.artifact)
    checks = [one for one in simulated.checks if one.name != PRECISION]
    checks.append(_precision(outcome, structure))
    runner = simulated.runner
    if runner is not None:  # load time and memory of a simulation say nothing of the device
        warnings = structure.warnings if structure else ()
        runner = replace(runner, rss_bytes=0, peak_rss_bytes=0, warnings=warnings)
    return replace(
        simulated,
        status="prepared",
        reason=stand.prepares,
        numerics="simulated",
        executed=structure.rows if structure else (),
        runner=runner,
        checks=tuple(checks),
    )


def _precision(outcome: Outcome, structure: Structure | None) -> Check:
    if structure is None:
        return not_run(PRECISION, None, NO_COMPILER)
    found = judge_precision(outcome.chosen.recipe, structure.rows)
    return replace(found, details={**found.details, "told_by": structure.source})
