"""Indexes as stores build them: exact where they claim it, repeatable, with clear refusals."""

from __future__ import annotations

import numpy as np
import pytest
from judge_sets import clustered, noisy

from exporter.judge import index as index_module
from exporter.judge.index import INDEX_KINDS, Index
from targets.errors import ConfigError, NonFiniteError, NotInstalledError

K = 10
DOCUMENTS = clustered(600, seed=1, dim=64)
QUERIES = noisy(DOCUMENTS[:80], 0.4)


def exact(queries, documents, k=K, exclude_self=False):
    """Neighbours by cosine, one query at a time, in float64."""
    found = []
    for number, query in enumerate(queries.astype(np.float64)):
        rows = documents.astype(np.float64)
        scores = rows @ query / np.linalg.norm(rows, axis=1)
        if exclude_self:
            scores[number] = -np.inf
        found.append(np.argsort(-scores, kind="stable")[:k])
    return np.array(found)


def share_found(found, expected) -> float:
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(found, expected, strict=True)]))


def searched(index: Index, exclude_self=False):
    queries = DOCUMENTS if exclude_self else QUERIES
    return index.build(DOCUMENTS, K, exclude_self=exclude_self)(queries)


def require(kind: str) -> None:
    if kind == "annoy":
        pytest.importorskip("annoy", reason="pip install 'embedding-exporter[annoy]'")


# ------------------------------------------------------------------------------- searching


@pytest.mark.parametrize("exclude_self", [False, True])
def test_flat_is_exact(exclude_self):
    queries = DOCUMENTS if exclude_self else QUERIES
    found = searched(Index(), exclude_self)
    np.testing.assert_array_equal(found, exact(queries, DOCUMENTS, exclude_self=exclude_self))


@pytest.mark.parametrize(("kind", "least", "most"), [
    ("hnsw", 0.97, 1.0),
    ("ivfpq", 0.40, 0.97),
    ("annoy", 0.90, 1.0),
])  # fmt: skip
def test_approximate_indexes_find_most_and_say_the_same_twice(kind, least, most):
    require(kind)
    found = searched(Index(kind=kind, seed=3))
    assert found.shape == (len(QUERIES), K)
    assert least <= share_found(found, exact(QUERIES, DOCUMENTS)) <= most
    np.testing.assert_array_equal(found, searched(Index(kind=kind, seed=3)))


@pytest.mark.parametrize("kind", INDEX_KINDS)
def test_no_text_is_its_own_neighbour(kind):
    require(kind)
    found = searched(Index(kind=kind), exclude_self=True)
    assert found.shape == (len(DOCUMENTS), K)
    assert not (found == np.arange(len(DOCUMENTS))[:, None]).any()


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_threads_are_given_back(kind):
    import faiss

    before = faiss.omp_get_max_threads()
    searched(Index(kind=kind))
    assert faiss.omp_get_max_threads() == before


def test_an_index_that_finds_too_few_says_so_with_minus_one(monkeypatch):
    """One list of many is looked into, and it holds fewer than k documents."""
    monkeypatch.setattr(index_module, "_IVF_PROBES", 1)
    found = index_module.Index(kind="ivfpq").build(DOCUMENTS, 200)(QUERIES)
    assert (found == -1).any()


# ------------------------------------------------------------------------- stored precision


def test_eight_bits_are_rounded_on_each_dimension_s_own_scale():
    """By hand: 255 steps between least and greatest value, queries stay float."""
    rows = DOCUMENTS / np.linalg.norm(DOCUMENTS, axis=1, keepdims=True)
    low, high = rows.min(axis=0), rows.max(axis=0)
    codes = np.clip(np.floor((rows - low) / (high - low) * 255), 0, 255)
    rounded = low + (codes + 0.5) / 255 * (high - low)
    scores = QUERIES.astype(np.float64) @ rounded.T
    expected = np.argsort(-scores, axis=1)[:, :K]
    assert share_found(searched(Index(store_precision="int8")), expected) > 0.995
    assert share_found(expected, exact(QUERIES, DOCUMENTS)) > 0.97


def test_binary_is_the_order_of_hamming_distances():
    found = searched(Index(store_precision="binary"))
    bits, asked = DOCUMENTS >= 0, QUERIES >= 0
    distance = (asked[:, None, :] != bits[None, :, :]).sum(axis=2)
    of_found = np.take_along_axis(distance, found, axis=1)
    np.testing.assert_array_equal(np.sort(of_found, axis=1), np.sort(distance, axis=1)[:, :K])


@pytest.mark.parametrize("kind", ["hnsw", "annoy"])
def test_approximate_indexes_keep_eight_bits_as_the_exact_one_does(kind):
    require(kind)
    found = searched(Index(kind=kind, store_precision="int8"))
    assert share_found(found, searched(Index(store_precision="int8"))) > 0.9


@pytest.mark.parametrize("kind", ["hnsw", "annoy"])
def test_approximate_indexes_of_signs_find_small_hamming_distances(kind):
    """Ties are many, so distances are compared and not documents."""
    require(kind)
    bits, asked = DOCUMENTS >= 0, QUERIES >= 0
    distance = (asked[:, None, :] != bits[None, :, :]).sum(axis=2)

    def mean_distance(found) -> float:
        return float(np.take_along_axis(distance, found, axis=1).mean())

    exact_signs = mean_distance(np.argsort(distance, axis=1)[:, :K])
    of_floats = mean_distance(exact(QUERIES, DOCUMENTS))
    of_signs = mean_distance(searched(Index(kind=kind, store_precision="binary")))
    assert exact_signs <= of_signs < (exact_signs + of_floats) / 2


def test_fewer_bits_find_less():
    truth = exact(QUERIES, DOCUMENTS)
    shares = [share_found(searched(Index(store_precision=p)), truth) for p in
              ("float32", "int8", "binary")]  # fmt: skip
    assert shares[0] == 1.0
    assert shares[0] > shares[1] > shares[2] + 0.1


# --------------------------------------------------------------------------------- names


@pytest.mark.parametrize(("kind", "name"), [
    ("flat", "flat"), ("hnsw", "hnsw16"), ("ivfpq", "ivf32,pq48"), ("annoy", "annoy100"),
])  # fmt: skip
def test_names_carry_the_parameters(kind, name):
    assert Index(kind=kind).name(1050, 384) == name


def test_codes_divide_any_dimension():
    for dim in (7, 31, 100, 384, 768):
        codes = int(Index(kind="ivfpq").name(1000, dim).rpartition("pq")[2])
        assert dim % codes == 0


# ------------------------------------------------------------------------------ bad input


def test_unknown_words_name_the_nearest():
    with pytest.raises(ConfigError, match="--index hsnw is not known") as caught:
        Index(kind="hsnw")  # type: ignore[arg-type]
    assert "did you mean 'hnsw'" in caught.value.hint
    with pytest.raises(ConfigError, match="--store-precision int7"):
        Index(store_precision="int7")  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["int8", "binary"])
def test_product_codes_are_a_precision_of_their_own(precision):
    with pytest.raises(ConfigError, match="ivfpq does not go with"):
        Index(kind="ivfpq", store_precision=precision)


def test_too_few_documents_are_said():
    with pytest.raises(ConfigError, match="10 neighbours cannot be found among 5"):
        Index(kind="hnsw").build(DOCUMENTS[:5], K)
    with pytest.raises(ConfigError, match="ivfpq needs 256 documents, there are 200"):
        Index(kind="ivfpq").build(DOCUMENTS[:200], K)


def test_rows_that_are_no_embeddings_are_named():
    broken = DOCUMENTS.copy()
    broken[3] = np.nan
    with pytest.raises(NonFiniteError, match="row 3"):
        Index(kind="hnsw").build(broken, K)


def test_a_missing_annoy_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "annoy", None)
    with pytest.raises(NotInstalledError, match="needs the package annoy") as caught:
        Index(kind="annoy").build(DOCUMENTS, K)
    assert "embedding-exporter[annoy]" in caught.value.hint
