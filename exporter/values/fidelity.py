"""How far embeddings moved from those of the FP32 model."""

from __future__ import annotations

from dataclasses import dataclass

from targets.contract import Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure with its confidence interval and what it was taken from."""

    value: float
    interval: Interval
    num_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A document near a text by one of two models; ranks start at 1, the nearest."""

    text: str
    reference_rank: int
    candidate_rank: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstText:
    """One of the texts that moved most, and what that did to its nearest documents.

    `kept`: share of FP32's own k nearest that are still there; None where there are too few
    documents for that to mean anything. `lost` are nearest no more, in FP32's order; `gained`
    are in their places, in the candidate's order. Ties of FP32 count for each other.
    """

    text: str
    cosine: float
    num_tokens: int
    kept: float | None = None
    lost: tuple[Neighbour, ...] = ()
    gained: tuple[Neighbour, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """Lowest cosine between embeddings of the same text in different company.

    `alone_vs_batched`: alone against length-sorted batches; `padded`: with extra padding
    against without; `shuffled`: in another order with other batch mates.
    """

    alone_vs_batched: float
    padded: float
    shuffled: float
    num_texts: int

    @property
    def minimum(self) -> float:
        """The worst of the three."""
        return min(self.alone_vs_batched, self.padded, self.shuffled)


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthSlice:
    """Fidelity of the texts whose token count lies in [low, high).

    `overlap_at_k` and the recalls are of the queries in it; None where there are none, or no
    labels for them.
    """

    low: int
    high: int
    num_texts: int
    mean_cosine: float
    min_cosine: float
    overlap_at_k: float | None
    reference_recall: float | None = None
    recall: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelMetric:
    """A metric on relevance labels or scored pairs, FP32 beside the candidate.

    `difference` is candidate minus reference with its paired-bootstrap interval.
    """

    name: str
    reference: float
    candidate: float
    difference: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How far a candidate's embeddings are from the FP32 model's."""

    evaluation: str
    split: str
    num_texts: int
    num_queries: int
    k: int
    mean_cosine: Estimate
    p1_cosine: Estimate
    min_cosine: float
    overlap_at_k: Estimate | None
    labels: tuple[LabelMetric, ...]
    stability: Stability | None
    slices: tuple[LengthSlice, ...]
    worst: tuple[WorstText, ...]
    histogram_edges: tuple[float, ...] = ()
    histogram_counts: tuple[int, ...] = ()
