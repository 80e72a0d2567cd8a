"""int8 by NNCF: scales from calibration texts, or weights alone.

Chosen by measurement on all-MiniLM-L6-v2 (`docs/openvino.md`): SmoothQuant stays as NNCF sets it
for transformers (without it the mean cosine falls from .9975 to .9940). Ranges are the smallest
and largest value seen instead of a mean over batches: no less close on average, closer in the
tail, and independent of how texts are grouped. Bias correction is left out: it changes nothing
measurable here and takes a quarter of the time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from targets.contract import IntArray, Progress, TokenSequences
from targets.errors import CompileError
from targets.lengths import spread_by_length
from targets.openvino.ir import first_line
from targets.openvino.sdk import import_nncf, quiet

Batch = dict[str, IntArray]

MAX_BATCH_TOKENS = 2048
"""Tokens of one calibration batch; bounds the memory for activations."""

CALIBRATION_TEXTS = 64
"""As many texts are read, of all lengths: more do not bring the result closer, and NNCF takes 50 ms
for each (docs/openvino.md)."""

_PASSES = 2
"""NNCF reads the texts twice: for SmoothQuant's channel maxima, then for the ranges."""


def quantize(
    model: Any,  # noqa: ANN401 - openvino is untyped
    batches: Sequence[Batch],
    kept_float: list[str],
    progress: Progress,
) -> Any:  # noqa: ANN401
    """Quantize linear layers and attention to int8, activations and weights.

    Args:
        model: an `openvino.Model`; it is not changed.
        batches: calibration inputs.
        kept_float: names of nodes that stay in float.
        progress: called after each batch of each pass.

    Raises:
        CompileError: NNCF refuses the graph or fails.
        NotInstalledError: NNCF is missing.
    """
    nncf = import_nncf()
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    ranges = nncf.AdvancedQuantizationParameters(
        activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX,
        disable_bias_correction=True,
        batchwise_statistics=False,
    )
    with quiet(), _refusals(nncf):
        quantized = nncf.quantize(
            model,
            nncf.Dataset(_Counted(batches, progress)),
            subset_size=len(batches),
            model_type=nncf.ModelType.TRANSFORMER,
            ignored_scope=nncf.IgnoredScope(names=kept_float),
            advanced_parameters=ranges,
        )
    progress(_PASSES * len(batches), _PASSES * len(batches))
    return quantized


def compress_weights(model: Any, kept_float: list[str]) -> Any:  # noqa: ANN401
    """Store the weights of linear layers and embedding tables in int8 with zero points.

    Args:
        model: an `openvino.Model`.
        kept_float: names of nodes whose weights stay as they are.

    Raises:
        CompileError: NNCF refuses the graph or fails.
        NotInstalledError: NNCF is missing.
    """
    nncf = import_nncf()
    with quiet(), _refusals(nncf):
        return nncf.compress_weights(
            model,
            mode=nncf.CompressWeightsMode.INT8_ASYM,
            ignored_scope=nncf.IgnoredScope(names=kept_float),
        )


@contextmanager
def _refusals(nncf: Any) -> Iterator[None]:  # noqa: ANN401
    """Turn what NNCF and OpenVINO raise into one error; NNCF's own classes share no base."""
    refusals: list[type[Exception]] = [RuntimeError, ValueError]
    refusals += [kind for kind in vars(nncf.errors).values() if isinstance(kind, type)]
    try:
        yield
    except tuple(refusals) as error:
        raise CompileError("NNCF cannot quantize the graph", why=first_line(error)) from error


def calibration_batches(tokens: TokenSequences, input_names: Sequence[str]) -> list[Batch]:
    """Group texts of equal length, so that no padding gets into the statistics.

    Args:
        tokens: calibration texts; empty ones are left out, and many are thinned out.
        input_names: the graph's inputs.

    Returns:
        Inputs of at most `MAX_BATCH_TOKENS` tokens, int64 [texts, length], shortest first.

    Raises:
        CompileError: there is no text, or an input is not one that encoders take.
    """
    strangers = set(input_names) - {"input_ids", "attention_mask", "token_type_ids"}
    if strangers:
        raise CompileError(
            f"the graph takes {sorted(strangers)}, which calibration cannot feed",
            hint="export the encoder with input_ids, attention_mask and token_type_ids only",
        )
    batches = [_feed(group, input_names) for group in _equal_lengths(_few(tokens))]
    if not batches:
        raise CompileError("there are no calibration texts", hint="int8 needs some to set scales")
    return batches


def _few(tokens: TokenSequences) -> TokenSequences:
    told = tokens.select(np.flatnonzero(tokens.lengths > 0))
    return spread_by_length(told, CALIBRATION_TEXTS)


def _equal_lengths(tokens: TokenSequences) -> Iterator[list[NDArray[np.int32]]]:
    lengths = tokens.lengths
    for length in np.unique(lengths[lengths > 0]):
        texts = [tokens[int(index)] for index in np.flatnonzero(lengths == length)]
        size = max(1, MAX_BATCH_TOKENS // int(length))
        for start in range(0, len(texts), size):
            yield texts[start : start + size]


def _feed(texts: list[NDArray[np.int32]], input_names: Sequence[str]) -> Batch:
    ids = np.stack(texts).astype(np.int64)
    values = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": np.zeros_like(ids),
    }
    return {name: values[name] for name in input_names}


class _Counted:
    """Batches that report how many of all passes have been read."""

    def __init__(self, batches: Sequence[Batch], progress: Progress) -> None:
        self._batches = batches
        self._progress = progress
        self._done = 0

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        total = _PASSES * len(self)
        for batch in self._batches:
            yield batch
            self._done = min(self._done + 1, total)
            self._progress(self._done, total)
