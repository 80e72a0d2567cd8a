"""Measuring all contenders alike: same tokens, same clock, same rounds, same reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np

from benchmarks.contenders import Contender
from exporter.judge import assess
from exporter.optimize.rounds import Protocol, time_interleaved
from exporter.optimize.workloads import MIX_SINGLE, shape_workloads
from exporter.progress import Reporter
from exporter.steps.contest import mixes_of
from exporter.steps.texts import TokenizedEvaluation
from exporter.values import EvaluationEmbeddings, Fidelity, TimedSeries
from targets.contract import Device, FloatArray, Runner, TokenSequences, Workload

COLD = f"{MIX_SINGLE}-cold"
"""Single requests of mixed lengths, each length new to a process that has just started."""


def workloads_of(evaluation: TokenizedEvaluation, max_seq_length: int) -> tuple[Workload, ...]:
    """Return the fixed shapes and the two real mixes."""
    return (*shape_workloads(max_seq_length), *mixes_of(evaluation))


def time_warm(
    runners: Mapping[str, Runner],
    workloads: Sequence[Workload],
    protocol: Protocol,
    reporter: Reporter,
) -> tuple[TimedSeries, ...]:
    """Time all contenders in interleaved rounds."""
    with reporter.step(f"time {len(runners)} artifacts in turns") as progress:
        return time_interleaved(runners, workloads, protocol, progress)


def time_cold(
    contenders: Sequence[Contender],
    device: Device,
    num_threads: int,
    mix: Workload,
    repeats: int,
    reporter: Reporter,
) -> TimedSeries:
    """Time the first pass over the mix of single requests in fresh processes.

    Args:
        contenders: who takes part.
        device: where.
        num_threads: CPU threads.
        mix: the mix of single requests.
        repeats: processes per contender; the turns rotate.
        reporter: shown progress.

    Returns:
        Samples of shape [repeats, texts of the mix].
    """
    taken: dict[str, list[FloatArray]] = {contender.name: [] for contender in contenders}
    with reporter.step("time first requests in fresh processes") as progress:
        for turn in range(repeats):
            for place in range(len(contenders)):
                contender = contenders[(turn + place) % len(contenders)]
                with closing(contender.start(device, num_threads)) as runner:
                    taken[contender.name].append(runner.time(mix, 1))
                progress(turn * len(contenders) + place + 1, repeats * len(contenders))
    samples_ms = {name: np.stack(rows).astype(np.float64) for name, rows in taken.items()}
    return TimedSeries(workload=COLD, texts_per_sample=1, samples_ms=samples_ms)


def fidelities_of(
    runners: Mapping[str, Runner],
    evaluation: TokenizedEvaluation,
    reference: EvaluationEmbeddings,
    seed: int,
    reporter: Reporter,
) -> Mapping[str, Fidelity]:
    """Embed the evaluation set with every contender and compare with PyTorch's FP32."""
    lengths = (evaluation.queries.lengths, evaluation.documents.lengths)
    found = {}
    for name, runner in runners.items():
        embedded = _embed(name, runner, evaluation, reporter)
        found[name] = assess(evaluation.texts, reference, embedded, lengths=lengths, seed=seed)
    return found


def _embed(
    name: str, runner: Runner, evaluation: TokenizedEvaluation, reporter: Reporter
) -> EvaluationEmbeddings:
    def embed(tokens: TokenSequences) -> FloatArray:
        with reporter.step(f"embed {len(tokens)} texts with {name}") as progress:
            return runner.embed(tokens, progress=progress)

    return EvaluationEmbeddings(
        queries=embed(evaluation.queries), documents=embed(evaluation.documents)
    )


def first_texts(evaluation: TokenizedEvaluation, num_texts: int | None) -> TokenizedEvaluation:
    """Cut an evaluation set down to its first queries and documents, for a quick look.

    Labels are left out: they may point at documents that are gone.
    """
    if num_texts is None:
        return evaluation
    texts = evaluation.texts
    queries, documents = texts.queries[:num_texts], texts.documents[:num_texts]
    return TokenizedEvaluation(
        texts=replace(
            texts,
            query_ids=texts.query_ids[:num_texts],
            queries=queries,
            document_ids=texts.document_ids[:num_texts],
            documents=documents,
            judgements=None,
            pairs=None,
            note=f"the first {num_texts} only",
        ),
        queries=evaluation.queries.select(range(len(queries))),
        documents=evaluation.documents.select(range(len(documents))),
    )
