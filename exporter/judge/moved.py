"""The texts that moved most, and which of their nearest documents came and went.

The same ties as in `exporter.judge.neighbours`: documents that FP32 itself cannot tell from
its k-th best stand in for each other, so a copy in the place of a copy is no change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exporter.judge.drift import BoolArray, Float64Array
from exporter.judge.neighbours import TIE_TOLERANCE, supports_overlap
from exporter.values import EvaluationEmbeddings, EvaluationSet, Neighbour, WorstText
from targets.contract import FloatArray, IntArray

NUM_WORST = 10
_WORST_TEXT_CHARACTERS = 200
_NEIGHBOUR_CHARACTERS = 120


def worst_texts(
    evaluation: EvaluationSet,
    reference: EvaluationEmbeddings,
    candidate: EvaluationEmbeddings,
    row_cosines: Float64Array,
    num_tokens: IntArray,
    k: int,
) -> tuple[WorstText, ...]:
    """Name the texts of the lowest cosine, queries and documents together, worst first.

    The neighbours of a document are the other documents.

    Args:
        evaluation: the texts.
        reference: FP32 embeddings, rows in the set's order.
        candidate: the candidate's, same rows.
        row_cosines: of queries, then documents, shape [num_texts].
        num_tokens: same order and shape.
        k: neighbours per text.
    """
    texts = (*evaluation.queries, *evaluation.documents)
    rows = [int(row) for row in np.argsort(row_cosines, kind="stable")[:NUM_WORST]]
    moves = _moves(evaluation, reference, candidate, rows, k)
    return tuple(
        WorstText(
            text=texts[row][:_WORST_TEXT_CHARACTERS],
            cosine=float(row_cosines[row]),
            num_tokens=int(num_tokens[row]),
            kept=move.kept if move else None,
            lost=move.lost if move else (),
            gained=move.gained if move else (),
        )
        for row, move in zip(rows, moves, strict=True)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Move:
    kept: float
    lost: tuple[Neighbour, ...]
    gained: tuple[Neighbour, ...]


def _moves(
    evaluation: EvaluationSet,
    reference: EvaluationEmbeddings,
    candidate: EvaluationEmbeddings,
    rows: list[int],
    k: int,
) -> list[_Move | None]:
    norms = [np.linalg.norm(side.documents, axis=1) for side in (reference, candidate)]
    moves: list[_Move | None] = []
    for row in rows:
        itself = row - len(evaluation.queries) if row >= len(evaluation.queries) else None
        if not supports_overlap(len(evaluation.documents), k, exclude_self=itself is not None):
            moves.append(None)
            continue
        own = _scores(reference, norms[0], row, itself)
        theirs = _scores(candidate, norms[1], row, itself)
        moves.append(_move(evaluation.documents, own, theirs, k))
    return moves


def _scores(
    side: EvaluationEmbeddings, norms: FloatArray, row: int, itself: int | None
) -> Float64Array:
    """Return the cosine of one text with every document, lowest for itself."""
    text = side.queries[row] if itself is None else side.documents[itself]
    scores: Float64Array = np.asarray(side.documents @ text, np.float64)
    scores /= norms * np.linalg.norm(text)
    if itself is not None:
        scores[itself] = -np.inf
    return scores


def _move(documents: tuple[str, ...], own: Float64Array, theirs: Float64Array, k: int) -> _Move:
    before, after = _by_rank(own), _by_rank(theirs)
    ranks = [_ranks(order) for order in (before, after)]
    gone = [int(one) for one in before[:k] if ranks[1][one] > k]
    come = [int(one) for one in after[:k] if ranks[0][one] > k]
    kth_best = own[before[k - 1]]
    gone, come = _without_ties(gone, come, np.abs(own - kth_best) <= TIE_TOLERANCE)

    def named(found: list[int]) -> tuple[Neighbour, ...]:
        return tuple(
            Neighbour(
                text=documents[one][:_NEIGHBOUR_CHARACTERS],
                reference_rank=int(ranks[0][one]),
                candidate_rank=int(ranks[1][one]),
            )
            for one in found
        )

    return _Move(kept=1.0 - len(gone) / k, lost=named(gone), gained=named(come))


def _by_rank(scores: Float64Array) -> IntArray:
    order: IntArray = np.argsort(-scores, kind="stable").astype(np.int64)
    return order


def _ranks(order: IntArray) -> IntArray:
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(1, len(order) + 1)
    return ranks


def _without_ties(
    gone: list[int], come: list[int], is_tied: BoolArray
) -> tuple[list[int], list[int]]:
    """Take out as many ties as stand in for each other, the last of each list first."""
    num_exchanged = min(sum(bool(is_tied[one]) for one in found) for found in (gone, come))
    return _less(gone, is_tied, num_exchanged), _less(come, is_tied, num_exchanged)


def _less(found: list[int], is_tied: BoolArray, count: int) -> list[int]:
    tied = [one for one in found if is_tied[one]]
    exchanged = set(tied[len(tied) - count :])
    return [one for one in found if one not in exchanged]
