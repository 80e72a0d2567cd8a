"""Who may share an index: queries by one artifact against documents by another, all pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from exporter.judge.drift import Float64Array, require_same_shape, unit_rows
from exporter.judge.exchange import ExchangePolicy, exchange_of
from exporter.judge.index import Index
from exporter.judge.intervals import (
    allow_for_unseen,
    mean_estimates,
    percentile_interval,
    resample_counts,
)
from exporter.judge.labels import score_ranking
from exporter.judge.neighbours import nearest, share_kept, supports_overlap
from exporter.values import (
    Compatibility,
    CompatibilityCell,
    Estimate,
    EvaluationEmbeddings,
    EvaluationSet,
    Judgements,
    MissingMember,
    SpaceMember,
    TextsSummary,
)
from targets.contract import FloatArray, IntArray
from targets.errors import ConfigError, StepError


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """A member with its embeddings, rows in the evaluation set's order."""

    member: SpaceMember
    embeddings: EvaluationEmbeddings


def compare_members(
    evaluation: EvaluationSet,
    embedded: Sequence[Embedded],
    *,
    summary: TextsSummary,
    policy: ExchangePolicy,
    index: Index,
    missing: Sequence[MissingMember] = (),
    seed: int = 0,
) -> Compatibility:
    """Search every member's documents with every member's queries.

    The truth is exact search in float32 with FP32 on both sides. In sets without queries every
    document is a query against the others. What decides is the share that a pair keeps of what
    FP32 on both sides finds in the same index, so that the losses of an approximate index or of
    rounded vectors are not laid on the pair.

    Args:
        evaluation: the texts and their labels.
        embedded: FP32 first.
        summary: the texts as the report names them.
        policy: the borders.
        index: what searches.
        missing: artifacts that should be here and could not be embedded.
        seed: of every resampling.

    Raises:
        ConfigError: there are too few documents for k.
        ShapeMismatchError, NonFiniteError: embeddings that cannot be compared.
        StepError: the index finds nothing of FP32's.
    """
    rankings = _rankings(evaluation, embedded, index, policy.k)
    found = _Found.of(evaluation, embedded[0].embeddings, rankings, policy.k)
    dim = embedded[0].embeddings.documents.shape[1]
    return Compatibility(
        evaluation=summary,
        k=policy.k,
        index=index.name(len(evaluation.documents), dim),
        store_precision=index.store_precision,
        min_drop_in=policy.min_drop_in,
        min_degraded=policy.min_degraded,
        members=tuple(one.member for one in embedded),
        cells=_cells([one.member for one in embedded], found, policy, seed),
        missing=tuple(missing),
    )


# ------------------------------------------------------------------------------ searching


def _rankings(
    evaluation: EvaluationSet, embedded: Sequence[Embedded], index: Index, k: int
) -> list[list[IntArray]]:
    """Return the neighbours for queries by i (outer) against documents by j (inner)."""
    among_themselves = not evaluation.queries
    num_documents = len(evaluation.documents)
    if not supports_overlap(num_documents, k, exclude_self=among_themselves):
        raise ConfigError(
            f"k = {k} is too large for {evaluation.name}, which has {num_documents} documents",
            why="among fewer than twice as many a random order finds half of the top k",
            hint="take a smaller --k, or an evaluation set with more documents",
        )
    reference = embedded[0].embeddings
    for one in embedded[1:]:
        for part in ("queries", "documents"):
            rows: FloatArray = getattr(one.embeddings, part)
            require_same_shape(f"{one.member.name} {part}", getattr(reference, part), rows)
    asked = [_asked(one.embeddings, among_themselves) for one in embedded]
    columns = []
    for one in embedded:
        search = index.build(one.embeddings.documents, k, exclude_self=among_themselves)
        columns.append([search(queries) for queries in asked])
    return [list(row) for row in zip(*columns, strict=True)]


def _asked(embeddings: EvaluationEmbeddings, among_themselves: bool) -> FloatArray:
    return embeddings.documents if among_themselves else embeddings.queries


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What each pair found, per query.

    Args:
        overlap: shape [num_queries, num_members, num_members].
        recall: shape [num_judged, num_members, num_members]; None without labels.
    """

    overlap: Float64Array
    recall: Float64Array | None

    @classmethod
    def of(
        cls,
        evaluation: EvaluationSet,
        reference: EvaluationEmbeddings,
        rankings: Sequence[Sequence[IntArray]],
        k: int,
    ) -> _Found:
        among_themselves = not evaluation.queries
        queries = unit_rows(_asked(reference, among_themselves), "FP32 queries")
        documents = unit_rows(reference.documents, "FP32 documents")
        own = nearest(queries, documents, k, exclude_self=among_themselves)
        overlap = [[share_kept(queries, documents, own, one) for one in row] for row in rankings]
        labels = evaluation.judgements
        recall = None
        if labels:
            recall = _stacked(
                [[_recall(one, labels, len(documents)) for one in r] for r in rankings]
            )
        return cls(overlap=_stacked(overlap), recall=recall)


def _stacked(rows: Sequence[Sequence[Float64Array]]) -> Float64Array:
    return np.moveaxis(np.array(rows), 2, 0)


def _recall(ranking: IntArray, labels: Judgements, num_documents: int) -> Float64Array:
    """Return recall per judged query; what an index did not find is a document nobody judged."""
    return score_ranking(np.where(ranking < 0, num_documents, ranking), labels).recall


# ------------------------------------------------------------------------------- figures


def _cells(
    members: Sequence[SpaceMember], found: _Found, policy: ExchangePolicy, seed: int
) -> tuple[CompatibilityCell, ...]:
    pairs = [(i, j) for i in range(len(members)) for j in range(len(members))]
    figures = _Figures.of(found, seed)
    return tuple(_cell(members[i], members[j], i, j, figures, policy) for i, j in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figures:
    """Means of all pairs with what the same resamples made of them.

    Args:
        overlap: shape [num_members, num_members].
        resampled: overlap of every resample, shape [num_resamples, num_members, num_members].
        recall: estimates of recall and of its difference to FP32's, by pair; empty without labels.
    """

    num_queries: int
    overlap: Float64Array
    resampled: Float64Array
    recall: dict[tuple[int, int], tuple[Estimate, Estimate]]

    @classmethod
    def of(cls, found: _Found, seed: int) -> _Figures:
        num_queries, size = found.overlap.shape[:2]
        flat = found.overlap.reshape(num_queries, -1)
        chunks = [counts @ flat for counts in resample_counts(num_queries, seed)]
        resampled = np.concatenate(chunks) / num_queries
        overlap: Float64Array = found.overlap.mean(axis=0)
        if not (resampled[:, 0] > 0.0).all():
            raise StepError(
                "the index finds nothing of what FP32 finds by exact search",
                why=f"overlap with FP32 on both sides is {overlap[0, 0]:.3f}",
                hint="take another --index or --store-precision",
            )
        return cls(
            num_queries=num_queries,
            overlap=overlap,
            resampled=resampled.reshape(-1, size, size),
            recall=_recall_estimates(found.recall, seed),
        )

    def overlap_of(self, i: int, j: int) -> Estimate:
        return self._bounded(float(self.overlap[i, j]), self.resampled[:, i, j])

    def kept(self, i: int, j: int) -> Estimate:
        """Return the ratio to FP32 on both sides, which one resample shares with the pair."""
        ratio = self.resampled[:, i, j] / self.resampled[:, 0, 0]
        return self._bounded(float(self.overlap[i, j] / self.overlap[0, 0]), ratio)

    def mirror_difference(self, i: int, j: int) -> Estimate | None:
        if i == j:
            return None
        difference = self.resampled[:, i, j] - self.resampled[:, j, i]
        value = float(self.overlap[i, j] - self.overlap[j, i])
        return self._estimate(value, difference)

    def _bounded(self, value: float, resampled: Float64Array) -> Estimate:
        return allow_for_unseen(self._estimate(value, resampled), worst=0.0, best=max(1.0, value))

    def _estimate(self, value: float, resampled: Float64Array) -> Estimate:
        interval = percentile_interval(resampled, self.num_queries)
        return Estimate(value=value, interval=interval, num_samples=self.num_queries)


def _recall_estimates(
    recall: Float64Array | None, seed: int
) -> dict[tuple[int, int], tuple[Estimate, Estimate]]:
    if recall is None:
        return {}
    size = recall.shape[1]
    flat = recall.reshape(len(recall), -1)
    estimates = mean_estimates(np.concatenate([flat, flat - flat[:, :1]], axis=1), seed)
    pairs = [(i, j) for i in range(size) for j in range(size)]
    both = zip(estimates[: size * size], estimates[size * size :], strict=True)
    return dict(zip(pairs, both, strict=True))


def _cell(
    queries_by: SpaceMember,
    documents_by: SpaceMember,
    i: int,
    j: int,
    figures: _Figures,
    policy: ExchangePolicy,
) -> CompatibilityCell:
    kept = figures.kept(i, j)
    exchange, decided, reason = exchange_of(kept, policy)
    if i == j == 0:
        exchange, decided, reason = "drop-in", True, "what the others are compared with"
    elif queries_by.space_id == documents_by.space_id and exchange != "drop-in":
        reason += "; their ids are equal all the same: the id was not measured on these texts"
    recall, difference = figures.recall.get((i, j), (None, None))
    return CompatibilityCell(
        queries_by=queries_by.name,
        documents_by=documents_by.name,
        exchange=exchange,
        decided=decided,
        kept=kept,
        overlap_at_k=figures.overlap_of(i, j),
        recall_at_k=recall,
        recall_difference=difference,
        mirror_difference=figures.mirror_difference(i, j),
        reason=reason,
    )
