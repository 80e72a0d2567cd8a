"""Which artifacts may serve one index: queries embedded by one, documents by another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from exporter.values.fidelity import Estimate
from exporter.values.texts import TextsSummary

Exchange = Literal["drop-in", "degraded", "re-index"]
"""What a pair is: as good as the index's own, noticeably worse, or of no use together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpaceMember:
    """One artifact whose embeddings were compared with those of all others.

    Args:
        name: "float32" for the reference, else target, device and recipe, unique in the matrix.
        space_id: identity of its embedding space; equal ids may be mixed in one index.
        recipe: name of the recipe; "float32" for the reference.
        artifact_sha256: of the artifact; of the source weights for the reference.
        bundle: folder or archive that it came from, as the user named it; "" for the reference.
        numerics: whose kernels embedded: the device's own, or a simulation here.
    """

    name: str
    space_id: str
    recipe: str
    artifact_sha256: str
    bundle: str
    numerics: Literal["device", "simulated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompatibilityCell:
    """Queries by one artifact against documents by another.

    Args:
        queries_by: name of the member that embeds queries.
        documents_by: name of the member that embeds documents.
        exchange: what the pair is.
        overlap_at_k: share of the top k that FP32 finds with its own documents.
        recall_at_k: hits on relevance labels; None where there are none.
        recall_difference: of that recall to FP32 on both sides, paired by query.
        reason: what decided.
    """

    queries_by: str
    documents_by: str
    exchange: Exchange
    overlap_at_k: Estimate
    recall_at_k: Estimate | None
    recall_difference: Estimate | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Compatibility:
    """The whole matrix, one cell for every ordered pair of members.

    Args:
        evaluation: the texts.
        k: neighbours that are compared.
        index: what searches, e.g. "flat", "hnsw32", "ivf256,pq48", "annoy100".
        store_precision: how the index keeps vectors: "float32", "int8" or "binary".
        members: the artifacts, the reference first.
        cells: row by row in the order of members: queries by the row, documents by the column.
    """

    evaluation: TextsSummary
    k: int
    index: str
    store_precision: str
    members: tuple[SpaceMember, ...]
    cells: tuple[CompatibilityCell, ...]
