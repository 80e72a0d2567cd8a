"""What is timed: fixed shapes, and real mixes of lengths, since fixed shapes mislead."""

from __future__ import annotations

from targets.contract import TokenSequences, Workload
from targets.lengths import spread_by_length

SHAPES: tuple[tuple[int, int], ...] = ((1, 16), (1, 32), (1, 128), (1, 256), (8, 128), (32, 128))
"""Batch size × sequence length of the full latency protocol."""

MIX_SINGLE = "mix-single"
MIX_BATCHED = "mix-batched"
QUERIES, DOCUMENTS, MIXED = "queries", "documents", "mixed"
EVALUATION_WORKLOADS = (QUERIES, DOCUMENTS, MIXED)
"""Workloads that are made of the evaluation's texts; every other name is a file."""

MIX_TEXTS = 48
"""Texts in the mixes that a report quotes: enough for a 90th percentile within two rounds."""

HEAT_TEXTS = 16
"""Texts in the mixes that all candidates race on."""

FINAL_TEXTS = 24
"""Texts in the mixes that the fastest race on, and ways of running them."""


def shape_workloads(max_seq_length: int) -> tuple[Workload, ...]:
    """Return the fixed shapes that fit the model."""
    return tuple(
        Workload(name=f"{batch}x{length}", kind="shape", batch_size=batch, sequence_length=length)
        for batch, length in SHAPES
        if length <= max_seq_length
    )


def mix_workloads(
    requests: TokenSequences, documents: TokenSequences, num_texts: int = MIX_TEXTS
) -> tuple[Workload, Workload]:
    """Return the two real mixes: single requests, and documents batched by length.

    Args:
        requests: tokens of what is embedded one by one in service (queries).
        documents: tokens of what is embedded in bulk (the index).
        num_texts: texts in each mix.
    """
    return (
        Workload(name=MIX_SINGLE, kind="single", tokens=spread_by_length(requests, num_texts)),
        Workload(name=MIX_BATCHED, kind="batched", tokens=spread_by_length(documents, num_texts)),
    )


def workload_of(
    choice: str,
    requests: TokenSequences,
    documents: TokenSequences,
    num_texts: int = MIX_TEXTS,
) -> tuple[Workload, ...]:
    """Return the mixes that a user's workload consists of.

    Args:
        choice: "queries" (single requests alone), "documents" (batches alone), anything
            else: both.
        requests: as `mix_workloads`.
        documents: as `mix_workloads`.
        num_texts: texts in each mix.
    """
    single, batched = mix_workloads(requests, documents, num_texts)
    only = {QUERIES: (single,), DOCUMENTS: (batched,)}
    return only.get(choice, (single, batched))
