"""Indexes as vector stores build them, so that recall is that of the search users run.

Everything runs on one thread with fixed seeds: the same vectors give the same answers.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from exporter.judge.drift import Float64Array, unit_rows
from exporter.judge.neighbours import drop_self, nearest
from targets.contract import FloatArray, IntArray
from targets.errors import ConfigError, NotInstalledError

IndexKind = Literal["flat", "hnsw", "ivfpq", "annoy"]
StorePrecision = Literal["float32", "int8", "binary"]
INDEX_KINDS: tuple[IndexKind, ...] = get_args(IndexKind)
STORE_PRECISIONS: tuple[StorePrecision, ...] = get_args(StorePrecision)

# Qdrant's defaults (m, ef_construct and, unless told otherwise, ef at search).
_HNSW_LINKS = 16
_HNSW_EF = 100
_IVF_PROBES = 8
_PQ_BITS = 8
_PQ_DIMENSIONS_PER_BYTE = 8
_ANNOY_TREES = 100

Search = Callable[[FloatArray], IntArray]
"""Queries [num_queries, dim] → document indices [num_queries, k], -1 where nothing was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """What searches, and how it keeps vectors.

    Args:
        kind: exact ("flat") or approximate.
        store_precision: of stored vectors. int8: each dimension on its own scale, queries stay
            float. binary: signs only, of queries too, so that cosines order as Hamming distances.
        seed: of trees and clusters.

    Raises:
        ConfigError: an unknown word, or a precision that the index does not keep.
    """

    kind: IndexKind = "flat"
    store_precision: StorePrecision = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        _require_known("--index", self.kind, INDEX_KINDS)
        _require_known("--store-precision", self.store_precision, STORE_PRECISIONS)
        if self.kind == "ivfpq" and self.store_precision != "float32":
            raise ConfigError(
                f"--index ivfpq does not go with --store-precision {self.store_precision}",
                why="product quantization is itself how the index keeps vectors",
                hint="leave --store-precision out, or take --index flat or hnsw",
            )

    def name(self, num_documents: int, dim: int) -> str:
        """Return the index with its parameters, e.g. "hnsw16", "ivf32,pq48"."""
        if self.kind == "hnsw":
            return f"hnsw{_HNSW_LINKS}"
        if self.kind == "ivfpq":
            return f"ivf{_num_lists(num_documents)},pq{_num_codes(dim)}"
        return f"annoy{_ANNOY_TREES}" if self.kind == "annoy" else "flat"

    def build(self, documents: FloatArray, k: int, *, exclude_self: bool = False) -> Search:
        """Index documents for the k of highest cosine.

        Args:
            documents: shape [num_documents, dim].
            k: neighbours per query.
            exclude_self: queries are the documents; a document is not its own neighbour.

        Raises:
            ConfigError: there are too few documents for k, or for clusters of codes.
            NotInstalledError: annoy is missing.
            NonFiniteError: a row has NaN, infinity or zero norm.
        """
        _require_documents(self.kind, len(documents), k + exclude_self)
        if self.kind == "flat" and self.store_precision == "float32":
            return lambda queries: nearest(queries, documents, k, exclude_self=exclude_self)
        find = _BUILDERS[self.kind](self._stored(unit_rows(documents)), self.seed)

        def search(queries: FloatArray) -> IntArray:
            found = find(self._asked(unit_rows(queries)), k + exclude_self)
            return drop_self(found) if exclude_self else found

        return search

    def _stored(self, rows: Float64Array) -> FloatArray:
        if self.store_precision == "binary":
            return _signs(rows)
        plain = rows.astype(np.float32)
        return _eight_bits(plain) if self.store_precision == "int8" else plain

    def _asked(self, rows: Float64Array) -> FloatArray:
        return _signs(rows) if self.store_precision == "binary" else rows.astype(np.float32)


def _signs(rows: Float64Array) -> FloatArray:
    signs = np.where(rows < 0.0, -1.0, 1.0) / math.sqrt(rows.shape[1])
    return signs.astype(np.float32)


def _eight_bits(rows: FloatArray) -> FloatArray:
    """Round to 256 steps between each dimension's least and greatest value in the store."""
    import faiss

    quantizer = faiss.ScalarQuantizer(rows.shape[1], faiss.ScalarQuantizer.QT_8bit)
    with _one_thread():
        quantizer.train(rows)
        decoded: FloatArray = quantizer.decode(quantizer.compute_codes(rows))
    return decoded


# -------------------------------------------------------------------------------- builders

_Find = Callable[[FloatArray, int], IntArray]


def _flat(rows: FloatArray, _: int) -> _Find:
    import faiss

    return _searching(faiss.IndexFlatIP(rows.shape[1]), rows)


def _hnsw(rows: FloatArray, _: int) -> _Find:
    import faiss

    index = faiss.IndexHNSWFlat(rows.shape[1], _HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = index.hnsw.efSearch = _HNSW_EF
    return _searching(index, rows)


def _ivfpq(rows: FloatArray, seed: int) -> _Find:
    import faiss

    num_documents, dim = rows.shape
    codes, lists = _num_codes(dim), _num_lists(num_documents)
    coarse = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFPQ(coarse, dim, lists, codes, _PQ_BITS, faiss.METRIC_INNER_PRODUCT)
    for clusters in (index.cp, index.pq.cp):
        clusters.seed = seed
        clusters.min_points_per_centroid = 1  # few documents are said in the report, not on stderr
    index.nprobe = min(_IVF_PROBES, lists)
    with _one_thread():
        index.train(rows)
    return _searching(index, rows)


def _annoy(rows: FloatArray, seed: int) -> _Find:
    annoy = _import_annoy()
    index = annoy.AnnoyIndex(rows.shape[1], "angular")
    index.set_seed(seed)
    for number, row in enumerate(rows):
        index.add_item(number, row)
    index.build(_ANNOY_TREES, n_jobs=1)

    def find(queries: FloatArray, k: int) -> IntArray:
        found = np.full((len(queries), k), -1, np.int64)
        for place, query in zip(found, queries, strict=True):
            neighbours = index.get_nns_by_vector(query, k)
            place[: len(neighbours)] = neighbours
        return found

    return find


_BUILDERS: dict[IndexKind, Callable[[FloatArray, int], _Find]] = {
    "flat": _flat,
    "hnsw": _hnsw,
    "ivfpq": _ivfpq,
    "annoy": _annoy,
}


def _searching(index: Any, rows: FloatArray) -> _Find:  # noqa: ANN401  # faiss has no types
    with _one_thread():
        index.add(np.ascontiguousarray(rows))

    def find(queries: FloatArray, k: int) -> IntArray:
        with _one_thread():
            _, found = index.search(np.ascontiguousarray(queries), k)
        indices: IntArray = np.asarray(found, np.int64)
        return indices

    return find


def _import_annoy() -> Any:  # noqa: ANN401  # annoy has no types
    try:
        import annoy
    except ImportError as error:
        raise NotInstalledError(
            "--index annoy needs the package annoy",
            why=str(error),
            hint="pip install 'embedding-exporter[annoy]' (it is built from source)",
        ) from error
    return annoy


@contextmanager
def _one_thread() -> Iterator[None]:
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


# -------------------------------------------------------------------------------- sizes


def _num_lists(num_documents: int) -> int:
    return max(1, round(math.sqrt(num_documents)))


def _num_codes(dim: int) -> int:
    """Return the most codes of at least eight dimensions each that divide a vector evenly."""
    most = max(1, dim // _PQ_DIMENSIONS_PER_BYTE)
    return next(codes for codes in range(most, 0, -1) if dim % codes == 0)


def _require_documents(kind: IndexKind, num_documents: int, k: int) -> None:
    if num_documents < k:
        raise ConfigError(
            f"{k} neighbours cannot be found among {num_documents} documents",
            hint="take a smaller k, or an evaluation set with more documents",
        )
    if kind == "ivfpq" and num_documents < 2**_PQ_BITS:
        raise ConfigError(
            f"--index ivfpq needs {2**_PQ_BITS} documents, there are {num_documents}",
            why=f"each code is one of {2**_PQ_BITS} centroids",
            hint="take an evaluation set with more documents, or --index hnsw",
        )


def _require_known(flag: str, given: str, known: Sequence[str]) -> None:
    if given not in known:
        close = difflib.get_close_matches(given, known, n=1)
        raise ConfigError(
            f"{flag} {given} is not known",
            why=f"it takes {', '.join(known)}",
            hint=f"did you mean {close[0]!r}?" if close else "",
        )
