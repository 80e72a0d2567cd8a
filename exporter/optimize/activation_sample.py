"""What a few calibration texts show of activations, looked at as often as needed.

A calibration table keeps no values. Two things need some: where the first token of a text lies,
and the mean error of rounding, which is not zero where most values of a channel lie within one
step of each other (behind GELU). Two thousand tokens say both as well as all texts do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from exporter.optimize.calibration_batches import Batch, Window, make_batches
from exporter.optimize.calibration_graph import Activation, open_activations
from targets.contract import FloatArray, OnnxArtifact, TokenSequences
from targets.lengths import spread_by_length
from targets.quantization.centring import NormSample
from targets.quantization.integers import activation_parameters
from targets.quantization.plan import LayerPlan
from targets.quantization.statistics import StreamingStatistics

_TOKENS, _FEWEST_TEXTS = 2048, 8
_BATCH_TOKENS = 512
_FLOAT = np.dtype(np.float32)
Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """How the planned graph's activations differ from those of the float graph.

    Args:
        copies: activation → how often each channel is there, see `splitting`.
        shifts: activation → what is subtracted, see `centring`.
    """

    copies: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    shifts: Mapping[str, Vector] = field(default_factory=dict)

    def of(self, name: str, rows: FloatArray) -> FloatArray:
        """Return rows of an activation as the planned graph has them."""
        if name in self.copies:
            rows = np.repeat(rows, self.copies[name], axis=1)
        return rows - self.shifts[name] if name in self.shifts else rows


class ActivationSample:
    """Some texts of a corpus, and the float graph that they run through.

    Args:
        graph: the FP32 graph.
        tokens: texts to take some of, of all lengths.
        num_threads: of the session.
    """

    def __init__(self, graph: OnnxArtifact, tokens: TokenSequences, num_threads: int) -> None:
        mean = max(float(tokens.lengths.mean()), 1.0)
        few = spread_by_length(tokens, max(_FEWEST_TEXTS, int(_TOKENS / mean)))
        texts = tuple(np.asarray(few[index], np.int64) for index in range(len(few)))
        window = Window(
            texts=tuple(text for text in texts if text.size), num_read=len(texts), sha256=""
        )
        self._session = open_activations(graph, num_threads)
        self._batches = tuple(make_batches(window, tokens.pad_token_id, _BATCH_TOKENS))

    def of_norms(self, middles: Mapping[str, Vector]) -> dict[str, NormSample]:
        """Look at the outputs of LayerNorms.

        Args:
            middles: output → middle of its channels, shape [channels].
        """
        statistics = {name: StreamingStatistics(None) for name in middles}
        first: dict[str, list[FloatArray]] = {name: [] for name in middles}
        for activation, value, batch in self._values():
            name = activation.name
            if name in middles:
                statistics[name].add(activation.rows(value, batch) - middles[name])
                first[name].append(activation.rows(value, _first_tokens(batch)))
        return {
            name: NormSample(
                middle=middles[name],
                first=np.concatenate(first[name]).mean(axis=0, dtype=np.float64),
                centred=statistics[name].freeze(),
            )
            for name in middles
        }

    def rounding_errors(
        self, plans: Sequence[LayerPlan], changes: Changes
    ) -> dict[str, NDArray[np.float64]]:
        """Return the mean error that rounding makes in the inputs of layers.

        Args:
            plans: of the layers; those that read one activation round it alike.
            changes: of the graph that they are made for.

        Returns:
            Activation → mean over tokens, behind its divisors, shape [channels].
        """
        rounding = {plan.layer.activation: plan for plan in plans}
        sums: dict[str, NDArray[np.float64]] = {}
        num_rows: dict[str, int] = {}
        for activation, value, batch in self._values():
            name = activation.name
            if name not in rounding:
                continue
            rows = changes.of(name, activation.rows(value, batch))
            error = _rounding_error(rounding[name], rows).sum(axis=0, dtype=np.float64)
            sums[name] = sums.get(name, 0.0) + error
            num_rows[name] = num_rows.get(name, 0) + len(rows)
        return {name: total / num_rows[name] for name, total in sums.items()}

    def _values(self) -> Iterator[tuple[Activation, FloatArray, Batch]]:
        for batch in self._batches:
            values = self._session.run(batch)
            for activation, value in zip(self._session.activations, values, strict=True):
                yield activation, value, batch


def _first_tokens(batch: Batch) -> Batch:
    """Return a batch in which only the first token of each text is one."""
    is_first = np.zeros_like(batch.is_token)
    is_first[:, 0] = True  # batches are padded on the right
    return Batch(ids=batch.ids, is_token=is_first)


def _rounding_error(plan: LayerPlan, rows: FloatArray) -> FloatArray:
    parameters = activation_parameters(
        plan.activation, plan.integers, symmetric=plan.symmetric, dtype=_FLOAT
    )
    scale, lowest = float(parameters.scale), np.iinfo(parameters.zero_point.dtype).min
    zero_point = int(parameters.zero_point)
    steps = rows / scale if plan.divisor is None else rows / (plan.divisor * scale)
    rounded = np.clip(np.rint(steps), lowest - zero_point, lowest + 255 - zero_point)
    return np.asarray((rounded - steps) * scale, np.float32)
