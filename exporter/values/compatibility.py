"""Which artifacts may serve one index: queries embedded by one, documents by another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from exporter.values.fidelity import Estimate
from exporter.values.texts import TextsSummary

Exchange = Literal["drop-in", "degraded", "re-index"]
"""What a pair is: as good as FP32 on both sides, noticeably worse, or of no use together."""

Survival = Literal["yes", "degraded", "no"]
"""Whether an index survives an upgrade: every pair is drop-in, or one needs a re-index."""

_WORTH_SAYING = 0.01
"""Noise of documents costs a little more neighbours than the same noise of queries, in every pair:
directions that differ by less than a hundredth are the same to whoever decides."""


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
class MissingMember:
    """An artifact that could not be compared, and why; it never looks like a pass."""

    name: str
    bundle: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompatibilityCell:
    """Queries by one artifact against documents by another.

    Args:
        queries_by: name of the member that embeds queries.
        documents_by: name of the member that embeds documents.
        exchange: what the pair is; nothing is called drop-in or re-index that is not proven.
        decided: False where the sample leaves the figure on both sides of a border.
        kept: share that the pair keeps of what FP32 on both sides finds in the same index;
            what decides. The same as `overlap_at_k` where the index is exact.
        overlap_at_k: share of the top k that FP32 finds by exact search.
        recall_at_k: hits on relevance labels; None where there are none.
        recall_difference: of that recall to FP32 on both sides in the same index, paired by query.
        mirror_difference: this overlap less that of the pair with exchanged parts, paired by
            query; None on the diagonal.
        reason: what decided.
    """

    queries_by: str
    documents_by: str
    exchange: Exchange
    decided: bool
    kept: Estimate
    overlap_at_k: Estimate
    recall_at_k: Estimate | None
    recall_difference: Estimate | None
    mirror_difference: Estimate | None
    reason: str

    @property
    def is_asymmetric(self) -> bool:
        """Whether it matters who embeds the queries and who the documents."""
        difference = self.mirror_difference
        if difference is None or abs(difference.value) < _WORTH_SAYING:
            return False
        return not difference.interval.low <= 0.0 <= difference.interval.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Compatibility:
    """The whole matrix, one cell for every ordered pair of members.

    Args:
        evaluation: the texts.
        k: neighbours that are compared.
        index: what searches, e.g. "flat", "hnsw16", "ivf32,pq48", "annoy100".
        store_precision: how the index keeps vectors: "float32", "int8" or "binary".
        min_drop_in: least share kept, by the lower end of the interval, of a drop-in pair.
        min_degraded: a pair whose interval lies below this needs a re-index.
        members: the artifacts, the reference first.
        cells: row by row in the order of members: queries by the row, documents by the column.
        missing: artifacts that should be here and could not be compared.
    """

    evaluation: TextsSummary
    k: int
    index: str
    store_precision: str
    min_drop_in: float
    min_degraded: float
    members: tuple[SpaceMember, ...]
    cells: tuple[CompatibilityCell, ...]
    missing: tuple[MissingMember, ...]

    def cell(self, queries_by: str, documents_by: str) -> CompatibilityCell:
        """Return the cell of two members by name.

        Raises:
            KeyError: one of them is no member.
        """
        for cell in self.cells:
            if (cell.queries_by, cell.documents_by) == (queries_by, documents_by):
                return cell
        raise KeyError((queries_by, documents_by))


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgrade:
    """Whether an index survives when new artifacts embed its queries.

    Args:
        survives: of the worst pair.
        decided: False where the sample decides no more than that.
        queries_by: the new artifacts.
        documents_by: the old ones, one of which made the index.
        worst: the pair that decided; None where nothing could be compared.
        reason: in one sentence.
    """

    survives: Survival
    decided: bool
    queries_by: tuple[str, ...]
    documents_by: tuple[str, ...]
    worst: CompatibilityCell | None
    reason: str
