"""Ways of running the chosen artifact, timed beside the target's own plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from exporter.judge import cosine_drift
from exporter.optimize.budget import SearchBudget
from exporter.optimize.rounds import HEAT, Protocol
from exporter.optimize.tuning import (
    CONFIRMING,
    DEFAULT,
    KEPT,
    MIN_COSINE,
    UNTRIED,
    is_confirmed,
    matters,
    most_promising,
    outcome_of,
)
from exporter.steps.compilers import side_by_side
from exporter.steps.contest import Contest
from exporter.steps.execution import Built
from exporter.values import Estimate, Latency, VariantResult
from targets.contract import Batching, FloatArray, RunPlan, RuntimeVariant, variants_of
from targets.errors import DeviceError, DeviceLacksError, NonFiniteError
from targets.lengths import spread_by_length

_AGREEMENT_TEXTS = 16
_AGREEMENT: Mapping[str, Batching] = {"a few texts": Batching()}

Timed = Mapping[str, tuple[Latency, ...]]
"""Name of a variant, or `DEFAULT` → latencies, speed-ups over the default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """An artifact in the way of running it that was chosen, and what all ways came to."""

    built: Built
    results: tuple[VariantResult, ...] = ()


def tune(contest: Contest, built: Built, budget: SearchBudget) -> Tuned:
    """Choose the fastest way of running an artifact whose embeddings are the default's.

    A variant must gain at first sight and once more beyond the noise of further rounds;
    otherwise the target's own plan stays.
    """
    variants = _worth_trying(contest, built)
    refusal = budget.refusal()
    if not variants:
        return Tuned(built=built)
    if refusal is not None:
        untried = [_result(one, status="dropped", reason=refusal) for one in variants]
        return Tuned(built=built, results=(_default(contest, built, reason=UNTRIED), *untried))
    compared = _compare_all(contest, built, variants)
    ways = {one.name: as_variant(built, one) for one in variants}
    running = [result.name for result in compared if result.status == "eligible"]
    title = f"first look at other ways of running {built.name}"
    timed = _time(contest, title, built, ways, running, HEAT)
    best = most_promising(_gains(contest, timed))
    if best is not None:
        title = f"second look at {ways[best].name}"
        timed = {**timed, **_time(contest, title, built, ways, [best], CONFIRMING)}
    gains = _gains(contest, timed)
    chosen = best if best in gains and is_confirmed(gains[best]) else None
    for name, way in ways.items():
        if name != chosen:
            contest.bench.stop(way.name)
    return Tuned(
        built=built if chosen is None else ways[chosen],
        results=(
            _settled_default(contest, built, chosen, timed),
            *(_settled(contest, result, gains, chosen, best, timed) for result in compared),
        ),
    )


def run_alike(contest: Contest, built: Built, variant: str) -> Built:
    """Return another artifact run as `variant` says; as it is where it has no such variant."""
    found = _variants(contest, built)
    return next((as_variant(built, one) for one in found if one.name == variant), built)


def as_variant(built: Built, variant: RuntimeVariant) -> Built:
    """Return an artifact with a variant's plan and threads."""
    return replace(built, plan=variant.plan, variant=variant.name, num_threads=variant.num_threads)


def _variants(contest: Contest, built: Built) -> tuple[RuntimeVariant, ...]:
    return variants_of(contest.stand.target, built.plan, contest.stand.num_threads)


def _worth_trying(contest: Contest, built: Built) -> list[RuntimeVariant]:
    num_threads, mixes = contest.stand.num_threads, contest.timed
    found = _variants(contest, built)
    return [one for one in found if matters(one, built.plan, num_threads, mixes)]


# -------------------------------------------------------------------------- agreement


def _compare_all(
    contest: Contest, built: Built, variants: Sequence[RuntimeVariant]
) -> list[VariantResult]:
    rows = _rows(contest, built)
    compare = [partial(_compared, contest, built, one, rows) for one in variants]
    return side_by_side(compare, contest.stand.num_threads)  # processes take long to start


def _compared(
    contest: Contest, built: Built, variant: RuntimeVariant, rows: FloatArray
) -> VariantResult:
    """Compare a variant's embeddings with the default's; drop it where they differ.

    One that needs what the device does not have was not run, which is no failure.
    """
    try:
        lowest = float(1.0 - cosine_drift(rows, _rows(contest, as_variant(built, variant))).max())
    except DeviceLacksError as error:
        return _result(variant, status="dropped", reason=f"not run: {error}")
    except (DeviceError, NonFiniteError) as error:
        return _result(variant, status="failed", reason=str(error))
    if lowest >= MIN_COSINE:
        return _result(variant, status="eligible", reason="was tried", min_cosine=lowest)
    reason = f"embeddings differ from the default's: cosine {lowest:.5f}, asked {MIN_COSINE:g}"
    return _result(variant, status="dropped", reason=reason, min_cosine=lowest)


def _rows(contest: Contest, built: Built) -> FloatArray:
    sample = spread_by_length(contest.choosing.documents, _AGREEMENT_TEXTS)
    (rows,) = contest.bench.embed_in_company(built, sample, _AGREEMENT).values()
    return rows


# ----------------------------------------------------------------------------- timing


def _time(
    contest: Contest,
    title: str,
    built: Built,
    ways: Mapping[str, Built],
    names: Sequence[str],
    protocol: Protocol,
) -> Timed:
    if not names:
        return {}
    contenders = {DEFAULT: built, **{name: ways[name] for name in names}}
    timed = contest.time(title, list(contenders.values()), protocol)
    return {name: timed[way.name] for name, way in contenders.items() if way.name in timed}


def _gains(contest: Contest, timed: Timed) -> dict[str, Estimate]:
    gains = contest.speedups(timed)
    gains.pop(DEFAULT, None)
    return gains


# ---------------------------------------------------------------------------- results


def _settled(
    contest: Contest,
    result: VariantResult,
    gains: Mapping[str, Estimate],
    chosen: str | None,
    best: str | None,
    timed: Timed,
) -> VariantResult:
    name = result.name
    if result.status != "eligible" or name not in gains:
        return result
    reason = outcome_of(gains[name], contest.goal.where, looked_twice=name == best)
    settled = replace(result, reason=reason, latency=timed[name])
    return replace(settled, status="chosen") if name == chosen else settled


def _settled_default(
    contest: Contest, built: Built, chosen: str | None, timed: Timed
) -> VariantResult:
    reason = KEPT if chosen is None else f"{chosen} is measurably faster"
    result = replace(_default(contest, built, reason=reason), latency=timed.get(DEFAULT, ()))
    return result if chosen is None else replace(result, status="eligible")


def _default(contest: Contest, built: Built, *, reason: str) -> VariantResult:
    return _described(
        built.plan,
        contest.stand.num_threads,
        name=DEFAULT,
        why="what the target does unless measurement says otherwise",
        status="chosen",
        reason=reason,
    )


def _result(variant: RuntimeVariant, **outcome: object) -> VariantResult:
    return _described(
        variant.plan, variant.num_threads, name=variant.name, why=variant.why, **outcome
    )


def _described(plan: RunPlan, num_threads: int, **outcome: object) -> VariantResult:
    return VariantResult(
        num_threads=num_threads,
        options=plan.options,
        length_multiple=plan.length_multiple,
        max_batch_tokens=plan.max_batch_tokens,
        **outcome,  # type: ignore[arg-type]  # status, reason and what was found
    )
