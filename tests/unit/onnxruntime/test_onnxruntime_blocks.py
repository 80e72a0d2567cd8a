"""Block weights: integers, scales and how they are packed."""

from __future__ import annotations

import numpy as np
import pytest

from targets.onnxruntime.blocks import BLOCK_SIZES, _packed, round_blocks


def restored(weight: np.ndarray, bits: int) -> np.ndarray:
    """What the operator makes of the integers: (integer - 2^(bits-1)) * scale."""
    integers, steps = round_blocks(weight, bits)
    floats = (integers.astype(np.float32) - 2 ** (bits - 1)) * steps[..., None]
    return floats.reshape(len(weight), -1)[:, : weight.shape[1]]


def random_weight(rows: int = 6, columns: int = 128, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


@pytest.mark.parametrize(("bits", "most"), [(8, 0.007), (4, 0.11)])
def test_weights_come_back_within_the_width_s_error(bits, most):
    weight = random_weight()
    error = np.linalg.norm(restored(weight, bits) - weight) / np.linalg.norm(weight)
    assert error < most
    assert error > most / 4, "fewer steps than this cannot be so close: is it quantized?"


def test_searching_the_range_beats_taking_the_extremes():
    weight = random_weight(rows=64)
    blocks = weight.reshape(64, -1, BLOCK_SIZES[4])
    at = np.abs(blocks).argmax(axis=-1)[..., None]
    steps = np.take_along_axis(blocks, at, axis=-1) / -8
    plain = np.clip(np.rint(blocks / steps), -8, 7) * steps
    plain_error = np.square(plain.reshape(weight.shape) - weight).sum()
    assert np.square(restored(weight, 4) - weight).sum() < 0.97 * plain_error


def test_a_loud_block_leaves_the_others_alone():
    weight = random_weight()
    louder = weight.copy()
    size = BLOCK_SIZES[4]
    louder[:, :size] *= 1000
    np.testing.assert_array_equal(restored(louder, 4)[:, size:], restored(weight, 4)[:, size:])


@pytest.mark.parametrize("columns", [1, 33, 100])
def test_the_last_block_is_filled_with_zeros(columns):
    integers, steps = round_blocks(random_weight(columns=columns), 4)
    size = BLOCK_SIZES[4]
    assert integers.shape == (6, -(-columns // size), size)
    assert steps.shape == integers.shape[:2]
    assert (integers.reshape(6, -1)[:, columns:] == 8).all()


def test_blocks_of_zeros_and_tiny_values_have_a_usable_scale():
    weight = np.zeros((2, 64), np.float32)
    weight[1] = 1e-42
    integers, steps = round_blocks(weight, 4)
    assert np.isfinite(steps).all() and (np.abs(steps) > 1e-38).all()
    assert (integers == 8).all()


def test_the_first_of_two_four_bit_integers_is_the_lower_half():
    integers = np.array([[[1, 15, 8, 0]]], np.uint8)
    assert _packed(integers, 4).tolist() == [[[0xF1, 0x08]]]
    assert _packed(integers, 8) is integers
