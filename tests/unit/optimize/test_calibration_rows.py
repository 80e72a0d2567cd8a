"""Rows of tokens out of a tensor, whatever its axes mean."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.optimize.calibration_batches import pad
from exporter.optimize.calibration_graph import Activation, _layout_of
from targets.errors import CalibrationError

BATCH = pad([np.array([1, 2, 3]), np.array([4])], 0)
CHANNELS = 2


def activation(layout) -> Activation:
    return Activation(name="x", layers=("dense",), num_channels=CHANNELS, layout=layout)


def numbered(*leading: int) -> np.ndarray:
    """Every row holds its own number."""
    numbers = np.arange(np.prod(leading), dtype=np.float32)
    return np.repeat(numbers, CHANNELS).reshape(*leading, CHANNELS)


@pytest.mark.parametrize(
    ("layout", "leading", "kept"),
    [
        ("texts, tokens", (2, 3), [0, 1, 2, 3]),
        ("texts × tokens", (6,), [0, 1, 2, 3]),
        ("tokens, texts", (3, 2), [0, 1, 2, 4]),
        ("texts, tokens", (2, 3, 2), [0, 1, 2, 3, 4, 5, 6, 7]),
        ("none", (7,), [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_padding_has_no_rows(layout, leading, kept):
    rows = activation(layout).rows(numbered(*leading), BATCH)
    assert rows.shape == (len(kept), CHANNELS)
    assert rows[:, 0].tolist() == kept


def test_without_padding_nothing_is_copied():
    full = pad([np.array([1, 2, 3]), np.array([4, 5, 6])], 0)
    value = numbered(2, 3)
    assert np.shares_memory(activation("texts, tokens").rows(value, full), value)


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((2, 3, 8), "texts, tokens"),
        ((2, 3, 4, 8), "texts, tokens"),
        ((3, 2, 8), "tokens, texts"),
        ((6, 8), "texts × tokens"),
        ((512, 8), "none"),
        ((1, 3, 8), "none"),
    ],
)
def test_axes_are_told_by_a_probe_of_two_texts_of_three_tokens(shape, layout):
    assert _layout_of(np.zeros(shape), "x", ("dense",)) == layout


def test_unknown_axes_are_refused_by_name():
    with pytest.raises(CalibrationError, match="dense"):
        _layout_of(np.zeros((2, 12, 3, 8)), "x", ("dense",))
