"""What the chosen artifact is: judged on the untouched test split, timed, looked into."""

from __future__ import annotations

from exporter.judge import (
    judge_fidelity,
    judge_int8_gain,
    judge_precision,
    judge_size,
    judge_speed,
    summarize,
)
from exporter.optimize.rounds import FULL
from exporter.optimize.workloads import MIX_TEXTS, shape_workloads
from exporter.steps.contest import Contest, Outcome, fidelity_of
from exporter.steps.execution import Built
from exporter.values import EvaluationEmbeddings, Latency, TargetResult
from targets.contract import Check
from targets.lengths import spread_by_length

_INSPECTED_TEXTS = 16
_STABILITY_TEXTS = 48


def certify(
    contest: Contest, outcome: Outcome, test_reference: EvaluationEmbeddings
) -> TargetResult:
    """Take every figure that the report quotes of the chosen artifact.

    Raises:
        DeviceError, NonFiniteError: the chosen artifact does not run on the test split.
    """
    chosen = outcome.chosen
    test = contest.texts.test
    contest.bench.stop(chosen.name)  # others were loaded beside it; its load time is quoted
    fidelity = fidelity_of(contest, chosen, test, test_reference, _STABILITY_TEXTS)
    latency, best_float = _latencies(contest, outcome)
    sample = spread_by_length(test.documents, _INSPECTED_TEXTS)
    runner, executed = contest.bench.look_into(chosen, sample)
    checks: list[Check] = [*judge_fidelity(fidelity, contest.policy)]
    is_baseline, goal = chosen is outcome.baseline, contest.goal
    checks += judge_speed(latency, contest.policy, is_baseline=is_baseline, mixes=goal.mixes)
    checks.append(judge_precision(chosen.recipe, executed))
    if chosen.recipe.precision == "int8" and goal.objective != "size":
        checks.append(judge_int8_gain(latency, best_float, goal.mixes))
    checks += judge_size(chosen.artifact.size_bytes, contest.policy)
    stand = contest.stand
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


def _latencies(
    contest: Contest, outcome: Outcome
) -> tuple[tuple[Latency, ...], tuple[Latency, ...]]:
    """Time the chosen artifact beside FP32 (and the best float, if int8 was chosen)."""
    beside = [outcome.baseline]
    if outcome.chosen is not outcome.baseline:
        beside.append(outcome.chosen)
    is_int8 = outcome.chosen.recipe.precision == "int8"
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
    baseline = outcome.baseline.name

    def of(built: Built, against: str | None) -> tuple[Latency, ...]:
        taken = (one for one in series if built.name in one.samples_ms)
        return tuple(summarize(one, built.name, against) for one in taken)

    chosen = of(outcome.chosen, None if outcome.chosen is outcome.baseline else baseline)
    return chosen, of(outcome.best_float, baseline) if is_int8 else ()
