"""A smaller evaluation for devices that need seconds for a text.

Queries are drawn at random, their relevant documents come along, and other documents fill up the
index. Neighbours among fewer documents are easier to keep, so the set says what it is; FP32 is
compared on the same texts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from exporter.steps.texts import TokenizedEvaluation
from exporter.values import (
    EvaluationEmbeddings,
    EvaluationSet,
    Judgements,
    fingerprint_texts,
)
from targets.contract import IntArray

NUM_QUERIES = 220
NUM_DOCUMENTS = 160
"""Together 380 texts: 220 queries are enough for an overlap of .97 to be told from .95, 368 texts
for a first percentile (both by the bound on what was not seen, `judge.intervals`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """A subset with the rows that it takes of the whole.

    Args:
        evaluation: the smaller set.
        queries: their indices in the whole set, ascending.
        documents: as `queries`.
    """

    evaluation: TokenizedEvaluation
    queries: IntArray
    documents: IntArray

    def rows_of(self, whole: EvaluationEmbeddings) -> EvaluationEmbeddings:
        """Take the embeddings of the subset out of those of the whole set."""
        return EvaluationEmbeddings(
            queries=whole.queries[self.queries], documents=whole.documents[self.documents]
        )


def reduce_evaluation(
    whole: TokenizedEvaluation,
    *,
    num_queries: int = NUM_QUERIES,
    num_documents: int = NUM_DOCUMENTS,
    seed: int = 0,
) -> Reduced:
    """Draw a subset; a set that is small enough is taken whole.

    Similarity pairs are left out: scores need both texts of a pair.

    Args:
        whole: the evaluation set.
        num_queries: queries at most; of a set without queries, as many more documents.
        num_documents: documents at most, but for relevant ones.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    if not len(whole.queries):
        num_documents += num_queries
    queries = _draw(rng, len(whole.queries), num_queries)
    relevant = _relevant_to(whole.texts.judgements, queries)
    documents = _draw(rng, len(whole.documents), num_documents, first=relevant)
    texts = _subset(whole.texts, queries, documents)
    evaluation = TokenizedEvaluation(
        texts=texts,
        queries=whole.queries.select(queries),
        documents=whole.documents.select(documents),
    )
    return Reduced(evaluation=evaluation, queries=queries, documents=documents)


def _draw(
    rng: np.random.Generator, population: int, size: int, first: IntArray | None = None
) -> IntArray:
    """Draw without replacement, `first` before all others; ascending indices."""
    taken = np.zeros(0, np.int64) if first is None else first[:size]
    others = np.setdiff1d(np.arange(population), taken)
    number = min(max(size - len(taken), 0), len(others))
    drawn = rng.choice(others, number, replace=False)
    return np.sort(np.concatenate([taken, drawn])).astype(np.int64)


def _relevant_to(judgements: Judgements | None, queries: IntArray) -> IntArray:
    if judgements is None:
        return np.zeros(0, np.int64)
    return np.unique(judgements.document[np.isin(judgements.query, queries)])


def _subset(texts: EvaluationSet, queries: IntArray, documents: IntArray) -> EvaluationSet:
    if len(queries) == len(texts.queries) and len(documents) == len(texts.documents):
        return texts
    query_texts = tuple(texts.queries[i] for i in queries)
    document_texts = tuple(texts.documents[i] for i in documents)
    said = f"{len(queries)} queries and {len(documents)} documents drawn from it"
    return replace(
        texts,
        name=f"part of {texts.name}",
        query_ids=tuple(texts.query_ids[i] for i in queries),
        queries=query_texts,
        document_ids=tuple(texts.document_ids[i] for i in documents),
        documents=document_texts,
        judgements=_kept(texts.judgements, queries, documents),
        pairs=None,
        note="; ".join(part for part in (texts.note, said) if part),
        sha256=fingerprint_texts((*query_texts, *document_texts)),
    )


def _kept(
    judgements: Judgements | None, queries: IntArray, documents: IntArray
) -> Judgements | None:
    """Keep the labels whose query and document were both drawn, with their new indices."""
    if judgements is None:
        return None
    keep = np.isin(judgements.query, queries) & np.isin(judgements.document, documents)
    if not keep.any():
        return None
    return Judgements(
        query=np.searchsorted(queries, judgements.query[keep]).astype(np.int64),
        document=np.searchsorted(documents, judgements.document[keep]).astype(np.int64),
        gain=judgements.gain[keep],
    )
