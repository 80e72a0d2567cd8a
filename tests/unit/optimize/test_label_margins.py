"""Centres of classes, checked by hand and against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.optimize.label_margins import make_centres, only_seen, texts_of_centres
from exporter.values import TextLabels

LABELS = TextLabels(names=("a", "b", "c"), of_text=np.array([0, 0, 1, -1, 1, 2, 0]))


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def rows() -> np.ndarray:
    return unit(np.random.default_rng(0).normal(size=(40, 8)))


def test_centres_are_mean_directions():
    rows = np.array([[2.0, 0.0], [0.0, 5.0], [0.0, -1.0]], np.float32)
    centres = make_centres(rows, np.array([0, 0, 1]), 2)
    assert centres.rows == pytest.approx(np.array([[0.5**0.5, 0.5**0.5], [0.0, -1.0]]))


def test_accuracy_counts_texts_nearest_to_their_own_centre():
    centres = make_centres(np.eye(2, dtype=np.float32), np.array([0, 1]), 2)
    rows = np.array([[1.0, 0.1], [0.1, 1.0], [0.9, 0.2]], np.float32)
    assert centres.accuracy(rows, np.array([0, 1, 1])) == pytest.approx(2 / 3)
    assert centres.accuracy(rows, np.array([0, 1, 0])) == 1.0


def test_lost_margins_are_those_that_fp32_has_and_the_student_has_not(rows):
    import torch

    classes = np.arange(40) % 4
    centres = make_centres(rows, classes, 4)
    student = unit(rows + 0.2 * np.random.default_rng(1).normal(size=rows.shape))
    given = classes.copy()
    given[:10] = -1

    def margins(embeddings: np.ndarray) -> np.ndarray:
        similar = embeddings @ centres.rows.T
        own = similar[np.arange(40), classes]
        similar[np.arange(40), classes] = -np.inf
        return own - similar.max(axis=1)

    lost = np.clip(margins(rows) - margins(student), 0, None)[10:].sum() / 40
    found = centres.lost_margin(*(torch.from_numpy(one) for one in (student, rows, given)))
    assert float(found) == pytest.approx(lost, rel=1e-4)
    assert lost > 0.0


def test_nothing_is_lost_by_what_fp32_gives_or_without_labels(rows):
    import torch

    centres = make_centres(rows, np.arange(40) % 4, 4)
    same = torch.from_numpy(rows)
    none = torch.full((40,), -1)
    assert float(centres.lost_margin(same, same, torch.arange(40) % 4)) == 0.0
    assert float(centres.lost_margin(-same, same, none)) == 0.0
    assert float(centres.lost_margin(-same, same, torch.arange(40) % 4)) > 0.0


def test_classes_that_are_never_seen_are_left_out():
    found = only_seen(LABELS, np.array([0, 2, 3, 4]))
    assert found is not None and found.names == ("a", "b")
    assert list(found.of_text) == [0, 0, 1, -1, 1, -1, 0]
    assert only_seen(LABELS, np.array([0, 1, 3])) is None


def test_each_class_has_its_texts_for_the_centre():
    labels = TextLabels(names=("a", "b"), of_text=np.array([0] * 50 + [1] * 3 + [-1] * 5))
    chosen = texts_of_centres(labels, seed=0)
    assert (labels.of_text[chosen] == 0).sum() == 20
    assert (labels.of_text[chosen] == 1).sum() == 3
    assert list(chosen) == sorted(set(chosen))
    assert list(chosen) != list(texts_of_centres(labels, seed=1))
