"""Which ranges attention's operands get in int8: compared on held-out texts, like the layers'."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from exporter.optimize.probe import drift, embed_graph
from exporter.values import MethodScore
from targets.contract import CALIBRATORS, Calibrator, FloatArray, OnnxArtifact, TokenSequences
from targets.quantization.attention import AttentionPlan, plan_attention, read_attention
from targets.quantization.layers import EncoderLayers
from targets.quantization.plan import LayerPlan, QdqPlan
from targets.quantization.qdq import insert_qdq
from targets.quantization.table import CalibrationTable


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionTrial:
    """Tries ranges of attention, all planned layers in int8 as well.

    Args:
        graph: the FP32 graph, for its inputs.
        model: the graph that the layers' plans fit, its weights in memory.
        layers: of the graph.
        table: with the statistics of query, key and value.
        held_out: texts that no statistic was taken from.
        reference: their embeddings in FP32.
        num_threads: of the session.
    """

    graph: OnnxArtifact
    model: onnx.ModelProto
    layers: EncoderLayers
    table: CalibrationTable
    held_out: TokenSequences
    reference: FloatArray
    num_threads: int

    def choose(
        self, plans: Sequence[LayerPlan], calibrator: Calibrator
    ) -> tuple[tuple[AttentionPlan, ...], tuple[MethodScore, ...]]:
        """Return the ranges that keep most, and what was compared, best first.

        Args:
            plans: int8 forms of the linear layers.
            calibrator: "auto" tries all.
        """
        blocks = read_attention(self.model, self.layers)
        names = CALIBRATORS if calibrator == "auto" else (calibrator,)
        tried: dict[Calibrator, tuple[AttentionPlan, ...]] = {
            name: plan_attention(blocks, self.table, name) for name in names if name != "auto"
        }
        return best_of(tried, lambda attention: self._drift(plans, attention))

    def _drift(self, plans: Sequence[LayerPlan], attention: tuple[AttentionPlan, ...]) -> float:
        whole = insert_qdq(self.model, QdqPlan(layers=tuple(plans), attention=attention))
        rows = embed_graph(whole, self.graph, self.held_out, self.num_threads)
        return drift(self.reference, rows)


def best_of(
    tried: Mapping[Calibrator, tuple[AttentionPlan, ...]],
    score: Callable[[tuple[AttentionPlan, ...]], float],
) -> tuple[tuple[AttentionPlan, ...], tuple[MethodScore, ...]]:
    """Return the plans of least drift, and every calibrator's drift, best first."""
    found = sorted(((score(plans), name) for name, plans in tried.items()), key=lambda one: one[0])
    chosen = found[0][1]
    scores = tuple(
        MethodScore(method=name, drift=value, chosen=name == chosen) for value, name in found
    )
    return tried[chosen], scores
