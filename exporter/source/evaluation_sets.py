"""Building evaluation sets: labels in order, a hash over everything, and selections."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from exporter.values import EvaluationSet, Judgements, ScoredPairs, fingerprint_texts
from targets.contract import FloatArray, IntArray

Split = Literal["dev", "test", "all"]

_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSources:
    """What a source of evaluation texts offers, before it is split.

    Args:
        all_or_test: everything, or the test split where the source ships its own splits.
        dev: the development split that the source ships; its documents are the same index.
        own_documents: True where every query has documents of its own and the collection
            was made for us, so that the documents may be divided with the queries.
    """

    all_or_test: EvaluationSet
    dev: EvaluationSet | None = None
    own_documents: bool = False


def make_evaluation_set(
    *,
    name: str,
    origin: str,
    split: Split = "all",
    query_ids: Sequence[str] = (),
    queries: Sequence[str] = (),
    document_ids: Sequence[str],
    documents: Sequence[str],
    judgements: Judgements | None = None,
    pairs: ScoredPairs | None = None,
    note: str = "",
) -> EvaluationSet:
    """Build an evaluation set with the hash over its texts, ids and labels."""
    digest = hashlib.sha256()
    for texts in (query_ids, queries, document_ids, documents):
        digest.update(bytes.fromhex(fingerprint_texts(texts)))
    if judgements is not None:
        labels = _label_bytes(judgements.query, judgements.document, judgements.gain)
        digest.update(b"judgements" + labels)
    if pairs is not None:
        digest.update(b"pairs" + _label_bytes(pairs.first, pairs.second, pairs.score))
    return EvaluationSet(
        name=name,
        origin=origin,
        split=split,
        query_ids=tuple(query_ids),
        queries=tuple(queries),
        document_ids=tuple(document_ids),
        documents=tuple(documents),
        judgements=judgements,
        pairs=pairs,
        note=note,
        sha256=digest.hexdigest(),
    )


def _label_bytes(left: IntArray, right: IntArray, value: FloatArray) -> bytes:
    indices = left.astype("<i8").tobytes() + right.astype("<i8").tobytes()
    return indices + value.astype("<f4").tobytes()


def make_judgements(triples: Iterable[tuple[int, int, float]]) -> Judgements:
    """Build judgements from (query index, document index, gain), sorted by query, document."""
    rows = sorted(triples)
    return Judgements(
        query=np.array([row[0] for row in rows], np.int64),
        document=np.array([row[1] for row in rows], np.int64),
        gain=np.array([row[2] for row in rows], np.float32),
    )


def label_value(value: object) -> float | None:
    """Return a number that float32 can hold; None for anything else, NaN and infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= _FLOAT32_MAX else None


def join_notes(*notes: str) -> str:
    """Put remarks that are not empty behind each other."""
    return "; ".join(note for note in notes if note)


def select_retrieval(
    source: EvaluationSet,
    *,
    queries: Sequence[int],
    documents: Sequence[int],
    split: Split,
    note: str,
) -> EvaluationSet:
    """Return a retrieval set of some queries over some documents (indices, in that order).

    Judgements whose query or document is not selected are left out.
    """
    judgements = source.judgements
    if judgements is None:
        raise ValueError("a set without judgements cannot be selected by queries")
    query_place = _places(queries, len(source.queries))
    document_place = _places(documents, len(source.documents))
    new_query = query_place[judgements.query]
    new_document = document_place[judgements.document]
    kept = np.flatnonzero((new_query >= 0) & (new_document >= 0))
    order = kept[np.lexsort((new_document[kept], new_query[kept]))]
    return make_evaluation_set(
        name=source.name,
        origin=source.origin,
        split=split,
        query_ids=[source.query_ids[i] for i in queries],
        queries=[source.queries[i] for i in queries],
        document_ids=[source.document_ids[i] for i in documents],
        documents=[source.documents[i] for i in documents],
        judgements=Judgements(
            query=new_query[order], document=new_document[order], gain=judgements.gain[order]
        ),
        note=note,
    )


def select_pairs(
    source: EvaluationSet, *, pairs: Sequence[int], split: Split, note: str
) -> EvaluationSet:
    """Return a pairs set of some pairs and the texts that they need."""
    scored = source.pairs
    if scored is None:
        raise ValueError("a set without pairs cannot be selected by pairs")
    chosen = np.asarray(pairs, np.int64)
    first, second = scored.first[chosen], scored.second[chosen]
    documents = np.unique(np.concatenate([first, second]))
    return make_evaluation_set(
        name=source.name,
        origin=source.origin,
        split=split,
        document_ids=[source.document_ids[i] for i in documents],
        documents=[source.documents[i] for i in documents],
        pairs=ScoredPairs(
            first=np.searchsorted(documents, first).astype(np.int64),
            second=np.searchsorted(documents, second).astype(np.int64),
            score=scored.score[chosen],
        ),
        note=note,
    )


def select_texts(
    source: EvaluationSet, *, documents: Sequence[int], split: Split, note: str
) -> EvaluationSet:
    """Return a plain-text set of some texts."""
    return make_evaluation_set(
        name=source.name,
        origin=source.origin,
        split=split,
        document_ids=[source.document_ids[i] for i in documents],
        documents=[source.documents[i] for i in documents],
        note=note,
    )


def _places(selected: Sequence[int], size: int) -> IntArray:
    """Return where each of `size` items lies in the selection, -1 where it is not in it."""
    places = np.full(size, -1, np.int64)
    places[np.asarray(selected, np.int64)] = np.arange(len(selected))
    return places
