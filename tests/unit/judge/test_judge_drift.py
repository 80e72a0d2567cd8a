from __future__ import annotations

import numpy as np
import pytest
from judge_sets import clustered, noisy

from exporter.judge.drift import (
    HISTOGRAM_EDGES,
    ShapeMismatchError,
    cosine_drift,
    cosines,
    drift_histogram,
    stability_from,
)
from targets.errors import ExitCode, NonFiniteError, StepError


def test_drift_of_known_angles():
    reference = np.array([[1, 0], [1, 0], [1, 0], [1, 0]], np.float32)
    candidate = np.array([[2, 0], [1, 1], [0, 3], [-1, 0]], np.float32)
    drift = cosine_drift(reference, candidate)
    assert drift.dtype == np.float32
    np.testing.assert_allclose(drift, [0, 1 - np.sqrt(0.5), 1, 2], atol=1e-7)


def test_small_drift_survives_because_it_is_taken_in_float64():
    rows = clustered(200, dim=384)
    moved = noisy(rows, 1e-3)
    exact = 1 - np.einsum(
        "ij,ij->i",
        *(
            r / np.linalg.norm(r, axis=1, keepdims=True)
            for r in (rows.astype(np.longdouble), moved.astype(np.longdouble))
        ),
    )
    np.testing.assert_allclose(cosine_drift(rows, moved), exact.astype(float), rtol=1e-5)


def test_huge_and_tiny_rows_neither_overflow_nor_vanish():
    rows = np.array([[3e30, 4e30], [3e-30, 4e-30]], np.float32)
    np.testing.assert_allclose(cosines(rows, np.array([[3, 4], [3, 4]], np.float32)), 1.0)


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (12,)])
def test_shapes_that_differ_are_refused(shape):
    with pytest.raises(ShapeMismatchError) as caught:
        cosine_drift(np.ones((4, 4), np.float32), np.ones(shape, np.float32))
    assert caught.value.exit_code is ExitCode.STEP_FAILED
    assert "(4, 4)" in str(caught.value)


@pytest.mark.parametrize(
    ("bad", "why"),
    [(np.nan, "NaN or infinity"), (np.inf, "NaN or infinity"), (0.0, "norm is zero")],
)
def test_a_degenerate_row_is_named(bad, why):
    candidate = np.ones((5, 3), np.float32)
    candidate[3] = bad
    with pytest.raises(NonFiniteError, match=r"candidate: row 3 .*1 of 5 rows") as caught:
        cosine_drift(np.ones((5, 3), np.float32), candidate)
    assert why in caught.value.why


def test_one_nan_inside_a_row_is_enough():
    candidate = np.ones((2, 3), np.float32)
    candidate[1, 2] = np.nan
    with pytest.raises(NonFiniteError, match="row 1"):
        cosine_drift(np.ones((2, 3), np.float32), candidate)


def test_histogram_counts_every_text_once():
    row_cosines = np.array([1.0, 1 - 1e-5, 1 - 5e-3, 0.5, -1.0])
    counts = drift_histogram(row_cosines)
    assert sum(counts) == 5
    assert len(counts) == len(HISTOGRAM_EDGES) - 1
    assert counts[0] == 1
    assert counts[-1] == 1
    assert list(HISTOGRAM_EDGES) == sorted(HISTOGRAM_EDGES)


def test_stability_names_the_company_that_moves_a_text():
    rows = clustered(20)
    padded = rows.copy()
    padded[4] = -padded[4]
    found = stability_from(rows, rows, padded, rows)
    assert found.alone_vs_batched == pytest.approx(1.0)
    assert found.padded == pytest.approx(-1.0)
    assert found.minimum == found.padded
    assert found.num_texts == 20


def test_stability_of_no_texts_is_refused():
    empty = np.zeros((0, 4), np.float32)
    with pytest.raises(StepError, match="no texts"):
        stability_from(empty, empty, empty, empty)


def test_stability_refuses_rows_of_other_texts():
    with pytest.raises(ShapeMismatchError, match="shuffled"):
        stability_from(*[clustered(6)] * 3, clustered(5))
