"""Nearest neighbours by cosine, and how many of FP32's own a candidate still finds.

Ties. Duplicated documents have the same score, so which of them makes the last places of
a top-k list is chance. A neighbour that the candidate returns therefore counts as kept
when FP32's own score of it is no lower than FP32's k-th best score less `TIE_TOLERANCE`;
but those tied with the k-th best fill no more places than they have in FP32's own list,
so that copies of one document cannot stand in for better ones that were lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from exporter.judge.drift import Float64Array, unit_rows
from targets.contract import FloatArray, IntArray
from targets.errors import StepError

# An FP32 graph agrees with its own PyTorch model to about 2e-7: below 1e-6 the order of
# two FP32 scores says nothing.
TIE_TOLERANCE = 1e-6
_MAX_SEARCH_THREADS = 4
# With fewer documents than this many times k, a random order finds half of the top k.
_MIN_DOCUMENTS_PER_NEIGHBOUR = 2


def supports_overlap(num_documents: int, k: int, *, exclude_self: bool) -> bool:
    """Say whether there are enough documents for overlap@k to mean anything."""
    return num_documents - exclude_self >= _MIN_DOCUMENTS_PER_NEIGHBOUR * k


def nearest(
    queries: FloatArray | Float64Array,
    documents: FloatArray | Float64Array,
    k: int,
    *,
    exclude_self: bool = False,
) -> IntArray:
    """Find the k documents of highest cosine for every query, best first.

    Args:
        queries: shape [num_queries, dim].
        documents: shape [num_documents, dim].
        k: neighbours per query.
        exclude_self: queries are the documents; a document is not its own neighbour.

    Returns:
        document indices, shape [num_queries, k], int64.

    Raises:
        StepError: if there are fewer than k documents to find.
        NonFiniteError: if a row has NaN, infinity or zero norm.
    """
    if len(documents) - exclude_self < k:
        raise StepError(
            f"top-{k} neighbours cannot be found among {len(documents)} documents",
            hint="use more documents or a smaller k",
        )
    found = _search(unit_rows(queries), unit_rows(documents), k + exclude_self)
    return drop_self(found) if exclude_self else found


def overlap_at_k(
    reference_queries: FloatArray,
    reference_documents: FloatArray,
    candidate_queries: FloatArray,
    candidate_documents: FloatArray,
    k: int,
    *,
    exclude_self: bool = False,
) -> Float64Array:
    """Measure which share of FP32's own top k the candidate finds, per query.

    Args:
        reference_queries: FP32 embeddings, shape [num_queries, dim].
        reference_documents: FP32 embeddings, shape [num_documents, dim].
        candidate_queries: the candidate's queries, same rows.
        candidate_documents: the candidate's documents, same rows; may be another
            target's than the queries.
        k: neighbours per query.
        exclude_self: queries are the documents; a document is not its own neighbour.

    Returns:
        shape [num_queries], in [0, 1].

    Raises:
        StepError: if there are fewer than k documents to find.
        NonFiniteError: if a row has NaN, infinity or zero norm.
    """
    queries = unit_rows(reference_queries, "reference queries")
    documents = unit_rows(reference_documents, "reference documents")
    own = nearest(queries, documents, k, exclude_self=exclude_self)
    theirs = nearest(candidate_queries, candidate_documents, k, exclude_self=exclude_self)
    return share_kept(queries, documents, own, theirs)


def share_kept(
    queries: Float64Array, documents: Float64Array, own: IntArray, theirs: IntArray
) -> Float64Array:
    """Measure which share of FP32's own neighbours another list holds, per query.

    Args:
        queries: FP32's, rows of length one, shape [num_queries, dim].
        documents: FP32's, rows of length one, shape [num_documents, dim].
        own: FP32's own neighbours, shape [num_queries, k].
        theirs: the other list, same shape; -1 where an index found nothing.

    Returns:
        shape [num_queries], in [0, 1].
    """
    found = np.where(theirs < 0, -np.inf, _scores(queries, documents, theirs))
    return _share_kept(_scores(queries, documents, own), found)


def _share_kept(own: Float64Array, theirs: Float64Array) -> Float64Array:
    """Count kept places from FP32's scores of both lists, shape [num_queries, k] each."""
    kth_best = own.min(axis=1, keepdims=True)
    sure = own > kth_best + TIE_TOLERANCE
    found_sure = theirs > kth_best + TIE_TOLERANCE
    found_tied = ~found_sure & (theirs >= kth_best - TIE_TOLERANCE)
    places_for_tied = (~sure).sum(axis=1)
    kept = found_sure.sum(axis=1) + np.minimum(found_tied.sum(axis=1), places_for_tied)
    share: Float64Array = kept / own.shape[1]
    return share


def _scores(queries: Float64Array, documents: Float64Array, found: IntArray) -> Float64Array:
    # Column by column: gathering [num_queries, k, dim] at once would take k times the memory.
    columns = [np.einsum("qd,qd->q", queries, documents[column]) for column in found.T]
    return np.stack(columns, axis=1)


def drop_self(found: IntArray) -> IntArray:
    """Take each text out of its own list, shape [num_texts, k + 1] → [num_texts, k]."""
    is_self = found == np.arange(len(found))[:, None]
    # Among many exact duplicates a text may not find itself: then the last place goes.
    is_self[~is_self.any(axis=1), -1] = True
    others: IntArray = found[~is_self].reshape(len(found), -1)
    return others


def _search(queries: Float64Array, documents: Float64Array, k: int) -> IntArray:
    import faiss

    index = faiss.IndexFlatIP(documents.shape[1])
    with _few_threads():
        index.add(np.ascontiguousarray(documents, np.float32))
        _, found = index.search(np.ascontiguousarray(queries, np.float32), k)
    indices: NDArray[np.int64] = np.asarray(found, np.int64)
    return indices


@contextmanager
def _few_threads() -> Iterator[None]:
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(min(before, _MAX_SEARCH_THREADS))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
