"""Texts, their labels, their embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from targets.contract import FloatArray, IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSet:
    """Texts with where they came from. `sha256` covers the texts in order."""

    name: str
    origin: str
    texts: tuple[str, ...]
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TextLabels:
    """Which class each text belongs to.

    Args:
        names: of the classes, two or more.
        of_text: index of a text's class, -1 without one, shape [num_texts], int64.
    """

    names: tuple[str, ...]
    of_text: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgements:
    """Relevance labels as parallel arrays, sorted by query.

    Args:
        query: index of the query, shape [num_judgements], int64.
        document: index of the document, same shape.
        gain: relevance > 0, same shape, float32.
    """

    query: IntArray
    document: IntArray
    gain: FloatArray

    def __len__(self) -> int:
        return len(self.query)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPairs:
    """Similarity pairs: texts are indices into the evaluation set's `documents`."""

    first: IntArray
    second: IntArray
    score: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSet:
    """Texts that embeddings are judged on.

    Three kinds, told apart by what is there:
    - labelled retrieval: `queries`, `documents` and `judgements`;
    - similarity pairs: `documents` holds every distinct text, `queries` is empty, `pairs` is set;
    - plain texts: `documents` only; every text is a query against the others.

    Args:
        name: short name for reports, e.g. "builtin", "cranfield".
        origin: folder or file, or how the built-in set was made.
        split: "dev", "test" or "all".
        note: what a reader must know (shared index, dropped judgements, …); may be "".
        sha256: covers all texts, ids and labels.
    """

    name: str
    origin: str
    split: Literal["dev", "test", "all"]
    query_ids: tuple[str, ...]
    queries: tuple[str, ...]
    document_ids: tuple[str, ...]
    documents: tuple[str, ...]
    judgements: Judgements | None = None
    pairs: ScoredPairs | None = None
    note: str = ""
    sha256: str

    @property
    def kind(self) -> Literal["retrieval", "pairs", "texts"]:
        """Which of the three kinds this is."""
        if self.pairs is not None:
            return "pairs"
        return "retrieval" if self.queries else "texts"


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSplits:
    """A development split that chooses and a test split that certifies, proven disjoint.

    `dev` is None when the user forced one recipe: nothing is chosen, all of it certifies.
    """

    dev: EvaluationSet | None
    test: EvaluationSet
    shared_documents: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationEmbeddings:
    """Embeddings of one evaluation set by one model, rows in the set's order.

    Args:
        queries: shape [num_queries, dim], float32 (0 rows for pairs and plain texts).
        documents: shape [num_documents, dim], float32.
    """

    queries: FloatArray
    documents: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class TextsSummary:
    """A text set as the report names it."""

    name: str
    origin: str
    sha256: str
    num_texts: int
    num_queries: int = 0
    num_documents: int = 0
    num_truncated: int = 0
    median_tokens: float = 0.0
    max_tokens: int = 0
    note: str = ""


def fingerprint_texts(texts: Sequence[str]) -> str:
    """Return the SHA-256 of texts in order (length-prefixed, so borders count)."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
