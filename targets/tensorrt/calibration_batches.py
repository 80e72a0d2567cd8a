"""Calibration texts as the batches that TensorRT 10 calibrates on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from targets.contract import TokenSequences
from targets.errors import CalibrationError
from targets.tensorrt.build_plan import BuildPlan, Shape

Batch = Mapping[str, NDArray[np.int64]]


def batches_of(tokens: TokenSequences, plan: BuildPlan) -> Iterator[Batch]:
    """Yield texts as batches of exactly the shape that TensorRT calibrates at.

    Texts are cut at that length, shorter ones padded; texts that fill no whole batch are left out.

    Args:
        tokens: calibration texts.
        plan: its last profile, which takes every length, is the calibration profile.
    """
    rows, length = calibration_shape(plan)
    for first in range(0, len(tokens) - rows + 1, rows):
        texts = [tokens[first + row][:length] for row in range(rows)]
        ids = np.full((rows, length), tokens.pad_token_id, np.int64)
        mask = np.zeros((rows, length), np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)], mask[row, : len(text)] = text, 1
        known = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(ids),
        }
        yield {name: known[name] for name in plan.inputs}


def require_texts(tokens: TokenSequences, plan: BuildPlan) -> None:
    """Refuse texts that fill no batch.

    Raises:
        CalibrationError: says how many one batch takes.
    """
    rows, _ = calibration_shape(plan)
    if len(tokens) < rows:
        raise CalibrationError(
            f"{len(tokens)} calibration texts fill no batch of {rows}",
            hint="give more texts with --calibration or --num-samples",
        )


def calibration_shape(plan: BuildPlan) -> Shape:
    """Return the shape [batch, sequence] that a plan is calibrated at: the typical one."""
    return plan.profiles[-1].typical
