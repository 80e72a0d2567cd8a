"""What the chosen artifact is: judged on the untouched test split, timed, looked into."""

from __future__ import annotations

from dataclasses import replace

from exporter.judge import (
    SPEEDUP,
    judge_fidelity,
    judge_int8_gain,
    judge_precision,
    judge_size,
    judge_speed,
    not_run,
    summarize,
)
from exporter.optimize.rounds import FULL, LONG
from exporter.optimize.search import is_float
from exporter.optimize.workloads import MIX_TEXTS, shape_workloads
from exporter.steps.contest import Contest, Outcome, fidelity_of
from exporter.steps.execution import Built
from exporter.values import EvaluationEmbeddings, Latency, TargetResult
from targets.contract import Check
from targets.lengths import spread_by_length

_INSPECTED_TEXTS = 16
_STABILITY_TEXTS = 48
_FEW_STABILITY_TEXTS = 8
"""On a device that needs seconds for a text."""


def certify(
    contest: Contest, outcome: Outcome, test_reference: EvaluationEmbeddings
) -> TargetResult:
    """Take every figure that the report quotes of the chosen artifact.

    No latency is taken where the device cannot measure any; the checks that need it say so.

    Raises:
        DeviceError, NonFiniteError: the chosen artifact does not run on the test split.
    """
    chosen = outcome.chosen
    test = contest.texts.test
    contest.bench.stop(chosen.name)  # others were loaded beside it; its load time is quoted
    stand, timed = contest.stand, contest.stand.measures_latency
    stability_texts = _STABILITY_TEXTS if timed else _FEW_STABILITY_TEXTS
    fidelity = fidelity_of(contest, chosen, test, test_reference, stability_texts)
    latency, over_float = _latencies(contest, outcome) if timed else ((), ())
    sample = spread_by_length(test.documents, _INSPECTED_TEXTS if timed else 1)
    runner, executed = contest.bench.look_into(chosen, sample)
    if not timed:
        runner = replace(runner, load_s=None, first_call_ms=None)
    checks: list[Check] = [*judge_fidelity(fidelity, contest.policy)]
    speed = _speed_checks(contest, outcome, latency, over_float)
    speed, latency = _settled(contest, outcome, speed, latency)
    checks += speed
    checks.append(judge_precision(chosen.recipe, executed))
    checks += judge_size(chosen.artifact.size_bytes, contest.policy)
    return TargetResult(
        target=stand.target.spec.name,
        device=stand.device.name,
        status="verified",
        hardware=stand.hardware,
        recipe=chosen.recipe,
        options=chosen.plan.options,
        artifact_size_bytes=chosen.artifact.size_bytes,
        checks=tuple(checks),
        latency=latency,
        fidelity=fidelity,
        executed=executed,
        runner=runner,
        candidates=outcome.candidates,
        variants=outcome.variants,
        tool_versions=dict(stand.tool_versions),
    )


def _speed_checks(
    contest: Contest,
    outcome: Outcome,
    latency: tuple[Latency, ...],
    over_float: tuple[Latency, ...],
) -> tuple[Check, ...]:
    """Judge the speed-ups over FP32 and over the best float."""
    device, goal, policy = contest.stand.device, contest.goal, contest.policy
    if not contest.stand.measures_latency:
        reason = f"{device.name} measures no latency: time means nothing under emulation"
        if contest.stand.prepares:
            reason = f"nothing was timed without the device: {contest.stand.prepares}"
        return (not_run(SPEEDUP, policy.min_speedup, reason, unit="x"),)
    is_baseline = outcome.chosen is outcome.baseline
    checks = judge_speed(latency, policy, is_baseline=is_baseline, mixes=goal.mixes)
    if not is_float(outcome.chosen.recipe) and goal.objective != "size":
        checks = (*checks, judge_int8_gain(over_float, goal.mixes))
    return checks


def _settled(
    contest: Contest, outcome: Outcome, checks: tuple[Check, ...], latency: tuple[Latency, ...]
) -> tuple[tuple[Check, ...], tuple[Latency, ...]]:
    """Time once more what the rounds so far leave open, by itself and for longer.

    The new rounds alone decide: which figures are taken again depends on the old ones, so these
    have had their say.

    Returns:
        The checks, and the latencies, those of the mixes anew if the speed-up over FP32 was open.
    """
    chosen, goal = outcome.chosen, contest.goal
    settled: list[Check] = []
    for check in checks:
        if check.verdict != "inconclusive":
            settled.append(check)
            continue
        other = outcome.baseline if check.name == SPEEDUP else outcome.best_float
        title = f"{check.name} is open: time {chosen.name} and {other.name} longer"
        mixes = contest.mixes(contest.texts.test, MIX_TEXTS)
        series = contest.bench.time(title, [other, chosen], mixes, LONG)
        over = {one.workload: summarize(one, chosen.name, other.name) for one in series}
        again: tuple[Check, ...] = (judge_int8_gain([*over.values()], goal.mixes),)
        if check.name == SPEEDUP:
            again = judge_speed(
                [*over.values()], contest.policy, is_baseline=False, mixes=goal.mixes
            )
            latency = tuple(over.get(one.workload, one) for one in latency)
        settled += [_said_to_be_longer(one) for one in again]
    return tuple(settled), latency


def _said_to_be_longer(check: Check) -> Check:
    words = f"{LONG.rounds} rounds, since {FULL.rounds} had left it open"
    return replace(check, details={**check.details, "timed": words})


def _latencies(
    contest: Contest, outcome: Outcome
) -> tuple[tuple[Latency, ...], tuple[Latency, ...]]:
    """Time the chosen artifact beside FP32 (and the best float, if int8 was chosen).

    Returns:
        Its latencies with speed-ups over FP32, and, of int8, with speed-ups over the best float.
    """
    beside = [outcome.baseline]
    if outcome.chosen is not outcome.baseline:
        beside.append(outcome.chosen)
    is_int8 = not is_float(outcome.chosen.recipe)
    everybody = list(beside)
    if is_int8 and outcome.best_float not in beside:
        everybody.append(outcome.best_float)  # the mixes alone decide whether int8 gains on it
    name, bench = outcome.chosen.name, contest.bench
    mixes = contest.mixes(contest.texts.test, MIX_TEXTS)
    shapes = shape_workloads(contest.graph.max_seq_length)
    series = (
        *bench.time(f"time {name} beside FP32, fixed shapes", beside, shapes, FULL),
        *bench.time(f"time {name} beside FP32, real mixes", everybody, mixes, FULL),
    )

    def over(other: Built) -> tuple[Latency, ...]:
        taken = (one for one in series if other.name in one.samples_ms)
        against = None if other is outcome.chosen else other.name
        return tuple(summarize(one, name, against) for one in taken)

    return over(outcome.baseline), over(outcome.best_float) if is_int8 else ()
