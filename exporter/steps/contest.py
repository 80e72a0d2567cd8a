"""What all candidates of one target are measured with, and the measures that steps share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from exporter.judge import Policy, assess, mean_speedup, stability_from, summarize
from exporter.optimize.budget import SearchBudget
from exporter.optimize.goal import Goal
from exporter.optimize.rounds import Protocol
from exporter.optimize.workloads import (
    FINAL_TEXTS,
    MIX_TEXTS,
    MIXED,
    workload_of,
)
from exporter.steps.execution import Bench, Built, Stand
from exporter.steps.quantization import Quantization
from exporter.steps.schedule import Turns
from exporter.steps.texts import Texts, TokenizedEvaluation
from exporter.steps.workspace import Workspace
from exporter.values import (
    CandidateResult,
    Estimate,
    EvaluationEmbeddings,
    Fidelity,
    Latency,
    Stability,
    VariantResult,
)
from targets.contract import (
    ALONE,
    Batching,
    FloatArray,
    OnnxArtifact,
    SourceModel,
    TokenSequences,
    Workload,
)
from targets.lengths import spread_by_length

_WAYS: Mapping[str, Batching] = {
    "alone": ALONE,
    "batched": Batching(),
    # as loaders pad: to any length, where runtimes may take other kernels
    "padded": Batching(length_multiple=1, extra_padding=5),
    "shuffled": Batching(sort=False, max_batch=8),
}

_SHORT_TOKENS = 48
"""Longest text of stability under emulation, which takes 30 ms for a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the tournament came to: candidates with reasons, and what is there to certify.

    All three are run in the way that was chosen for the winner (`variants`).
    """

    candidates: tuple[CandidateResult, ...]
    chosen: Built
    baseline: Built
    best_float: Built
    variants: tuple[VariantResult, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """What all candidates of one target are measured with."""

    work: Workspace
    stand: Stand
    bench: Bench
    graph: OnnxArtifact
    texts: Texts
    quantization: Quantization
    policy: Policy
    turns: Turns = field(default_factory=Turns)
    source: SourceModel | None = None

    @property
    def choosing(self) -> TokenizedEvaluation:
        """The texts that choose: the development split, if there is one."""
        return self.texts.dev or self.texts.test

    @property
    def timed(self) -> tuple[str, ...]:
        """Names of the mixes that are timed."""
        return tuple(workload.name for workload in self.mixes(self.choosing, 1))

    @property
    def goal(self) -> Goal:
        """What the choice is for, as the settings say."""
        objective = self.work.settings.objective
        return Goal.of(objective, self.policy.min_speedup, self.timed)

    def budget(self) -> SearchBudget:
        """Return the search's budget, which begins to run now."""
        return SearchBudget(self.work.settings.search_budget_s, self.work.work_clock)

    def mixes(self, evaluation: TokenizedEvaluation, num_texts: int) -> tuple[Workload, ...]:
        """Return what is timed: of the evaluation's texts, or of the user's own."""
        own = self.texts.workload
        if own is not None:
            return workload_of(MIXED, own, own, num_texts)
        return mixes_of(evaluation, num_texts, self.work.settings.workload)

    def time(
        self,
        title: str,
        contenders: Sequence[Built],
        protocol: Protocol,
        num_texts: int = FINAL_TEXTS,
    ) -> dict[str, tuple[Latency, ...]]:
        """Time artifacts in turns on short mixes; speed-ups are over the first of them."""
        mixes = self.mixes(self.choosing, num_texts)
        series = self.bench.time(title, contenders, mixes, protocol)
        first = contenders[0].name
        return {
            name: tuple(summarize(one, name, first) for one in series)
            for name in series[0].samples_ms
        }

    def speedups(self, timed: Mapping[str, Sequence[Latency]]) -> dict[str, Estimate]:
        """Return the speed-ups on the mixes that decide, where they were taken."""
        mixes = self.goal.mixes
        found = {name: mean_speedup(latency, mixes) for name, latency in timed.items()}
        return {name: estimate for name, estimate in found.items() if estimate is not None}


def mixes_of(
    evaluation: TokenizedEvaluation, num_texts: int = MIX_TEXTS, choice: str = MIXED
) -> tuple[Workload, ...]:
    """Return the real mixes: queries one by one, documents in bulk."""
    requests = evaluation.queries if len(evaluation.queries) else evaluation.documents
    return workload_of(choice, requests, evaluation.documents, num_texts)


def stability_of(
    contest: Contest, built: Built, tokens: TokenSequences, num_texts: int
) -> Stability:
    """Embed the same texts alone, batched, padded and in another order, and compare.

    Another order means other batch mates, which is what dynamic quantization depends on. Long
    texts are left out where a text takes seconds: company and padding are the same.
    """
    if not contest.stand.device.measures_latency:
        tokens = _short(tokens, num_texts)
    sample = spread_by_length(tokens, num_texts)
    rows: Mapping[str, FloatArray] = contest.bench.embed_in_company(built, sample, _WAYS)
    return stability_from(rows["alone"], rows["batched"], rows["padded"], rows["shuffled"])


def _short(tokens: TokenSequences, fewest: int) -> TokenSequences:
    """Leave long texts out, but for the shortest `fewest` of all."""
    order = np.argsort(tokens.lengths, kind="stable")
    num_short = int((tokens.lengths <= _SHORT_TOKENS).sum())
    return tokens.select(np.sort(order[: max(num_short, fewest)]))


def fidelity_of(
    contest: Contest,
    built: Built,
    evaluation: TokenizedEvaluation,
    reference: EvaluationEmbeddings,
    stability_texts: int,
) -> Fidelity:
    """Embed an evaluation set on the device and compare it with FP32's embeddings."""
    embedded = contest.bench.embed(built, evaluation)
    return assess(
        evaluation.texts,
        reference,
        embedded,
        lengths=(evaluation.queries.lengths, evaluation.documents.lengths),
        k=contest.policy.k,
        stability=stability_of(contest, built, evaluation.documents, stability_texts),
        seed=contest.work.settings.seed,
    )
