"""One training from plans to plans: learnt in PyTorch, compared in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from exporter.optimize.label_margins import (
    Centres,
    make_centres,
    only_seen,
    texts_of_centres,
)
from exporter.optimize.probe import drift, embed_graph
from exporter.optimize.training import Schedule
from exporter.optimize.training_batches import TrainingBatch, make_batches
from exporter.steps.int8_forms import held_out_indices
from exporter.steps.training_texts import TrainingTexts
from exporter.values import CurvePoint, LabelsSummary, TextLabels, TrainingSummary
from targets.contract import FloatArray, IntArray, OnnxArtifact, Progress, TokenSequences
from targets.errors import CalibrationError
from targets.quantization.graph import to_array
from targets.quantization.plan import LayerPlan, QdqPlan
from targets.quantization.plans_file import Prepared, load_changed
from targets.quantization.qdq import insert_qdq

if TYPE_CHECKING:
    from torch import Tensor, nn

    from exporter.source.encoder import LoadedEncoder

_MOST_HELD_OUT = 200
_LEAST_AGREEMENT = 0.999
"""Lowest cosine between the trained model in PyTorch and its graph, on any held-out text. A value
on the border between two integers may fall either way; more than that is another computation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Learnt:
    """What is left of a training: plans, looks, and both models' rows of the held-out texts."""

    plans: tuple[LayerPlan, ...]
    curve: tuple[CurvePoint, ...]
    num_steps: int
    rows: FloatArray
    reference: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentRun:
    """One training from plans to plans."""

    encoder: LoadedEncoder
    graph: OnnxArtifact
    prepared: Prepared
    schedule: Schedule
    num_threads: int

    def run(
        self,
        texts: TrainingTexts,
        checkpoint: Path,
        identity: str,
        progress: Progress,
    ) -> tuple[Prepared, TrainingSummary]:
        """Train, and compare with what it started from in the graph that will run.

        Args:
            texts: what is trained on; a tenth is held out.
            checkpoint: file that is written after every look, and gone on from where it exists.
            identity: hash of everything that the training depends on.
            progress: told the steps done.

        Raises:
            CalibrationError: a layer cannot be trained, or the graph computes something else.
            StepError, StorageError: see `Training.run` and `load_checkpoint`.
        """
        seen_at, held_at = held_out_indices(len(texts.tokens))
        held_at = held_at[:_MOST_HELD_OUT]
        seen, held_out = texts.tokens.select(seen_at), texts.tokens.select(held_at)
        labels = None if texts.labels is None else only_seen(texts.labels, seen_at)
        classes = None if labels is None else labels.of_text[seen_at]
        centres = None if labels is None else self._centres(labels, texts.tokens, seen_at)
        model, _ = load_changed(self.graph.path, self.prepared)
        # What training needs is gone before sessions are opened: both at once take 4 GB.
        batches = self._batches(seen, classes)
        learnt = self._learn(model, batches, centres, held_out, checkpoint, identity, progress)
        reference = learnt.reference
        untrained = self._in_graph(model, self.prepared.plans, held_out)
        before = drift(reference, untrained)
        rows = self._in_graph(model, learnt.plans, held_out)
        after, agreement = drift(reference, rows), _lowest_cosine(learnt.rows, rows)
        _require_agreement(agreement)
        summary = TrainingSummary(
            texts=texts.summary.name,
            num_texts=len(seen),
            num_held_out=len(held_out),
            num_steps=learnt.num_steps,
            batch_tokens=self.schedule.batch_tokens,
            curve=learnt.curve,
            drift_before=before,
            drift_after=after,
            agreement=agreement,
            used=after < before,
            labels=None
            if labels is None or centres is None
            else _labels_summary(centres, labels, (seen_at, held_at), (reference, untrained, rows)),
        )
        return replace(self.prepared, plans=learnt.plans), summary

    def _learn(
        self,
        model: onnx.ModelProto,
        batches: Sequence[TrainingBatch],
        centres: Centres | None,
        held_out: TokenSequences,
        checkpoint: Path,
        identity: str,
        progress: Progress,
    ) -> _Learnt:
        from exporter.optimize.student import build_student
        from exporter.optimize.training import Training
        from exporter.optimize.training_checkpoint import load_checkpoint, save_checkpoint
        from exporter.source.torch_module import attention

        weights = {one.name: to_array(one) for one in model.graph.initializer}
        encoder = self.encoder
        with attention(encoder.transformer, "sdpa"):
            student = build_student(
                encoder.module,
                encoder.transformer,
                self.prepared.plans,
                weights,
                self.prepared.shifts,
            )
            training = Training(
                student,
                encoder.module,
                schedule=self.schedule,
                inputs=self._inputs,
                embed=self._embed,
                centres=centres,
            )
            load_checkpoint(training, checkpoint, identity)
            plans = training.run(
                batches,
                held_out,
                after_look=lambda: save_checkpoint(training, checkpoint, identity),
                progress=progress,
            )
            return _Learnt(
                plans=plans,
                curve=tuple(training.state.curve),
                num_steps=training.state.step,
                rows=self._embed(student.module, held_out),
                reference=self._embed(encoder.module, held_out),
            )

    def _batches(self, seen: TokenSequences, classes: IntArray | None) -> list[TrainingBatch]:
        return make_batches(
            seen,
            num_steps=self.schedule.num_steps,
            batch_tokens=self.schedule.batch_tokens,
            max_length=self.encoder.spec.max_seq_length,
            vocabulary=self.encoder.ordinary_token_ids(),
            seed=self.schedule.seed,
            classes=classes,
        )

    def _centres(self, labels: TextLabels, tokens: TokenSequences, seen: IntArray) -> Centres:
        """Embed some texts of each class in FP32."""
        among = TextLabels(names=labels.names, of_text=labels.of_text[seen])
        chosen = seen[texts_of_centres(among, self.schedule.seed)]
        rows = self.encoder.embed(tokens.select(chosen))
        return make_centres(rows, labels.of_text[chosen], len(labels.names))

    def _in_graph(
        self, model: onnx.ModelProto, plans: Sequence[LayerPlan], texts: TokenSequences
    ) -> FloatArray:
        """Embed texts with the Q/DQ graph of plans."""
        quantized = insert_qdq(model, QdqPlan(layers=tuple(plans)))
        return embed_graph(quantized, self.graph, texts, self.num_threads)

    def _inputs(self, texts: TokenSequences) -> tuple[Tensor, ...]:
        return self._padded(texts, np.arange(len(texts)))

    def _padded(self, texts: TokenSequences, indices: IntArray) -> tuple[Tensor, ...]:
        import torch

        from exporter.source.encoder import pad_batch

        ids, mask = (torch.from_numpy(one) for one in pad_batch(texts, indices))
        types = (torch.zeros_like(ids),) if self.encoder.takes_token_type_ids else ()
        return (ids, mask, *types)

    def _embed(self, module: nn.Module, texts: TokenSequences) -> FloatArray:
        import torch

        from exporter.source.encoder import length_sorted_batches

        rows = np.empty((len(texts), self.encoder.spec.embedding_dim), np.float32)
        for indices in length_sorted_batches(texts.lengths, 2 * self.schedule.batch_tokens):
            with torch.no_grad():
                rows[indices] = module(*self._padded(texts, indices))[1].numpy()
        return rows


def _labels_summary(
    centres: Centres,
    labels: TextLabels,
    divided: tuple[IntArray, IntArray],
    rows: tuple[FloatArray, FloatArray, FloatArray],
) -> LabelsSummary | None:
    """Compare FP32, the form before training and the trained form, by held-out texts' classes."""
    seen, held_out = divided
    classes = labels.of_text[held_out]
    has_one = classes >= 0
    if not has_one.any():
        return None
    fp32, before, after = (centres.accuracy(one[has_one], classes[has_one]) for one in rows)
    return LabelsSummary(
        num_classes=len(labels.names),
        num_labelled=int((labels.of_text[seen] >= 0).sum()),
        num_held_out=int(has_one.sum()),
        accuracy_fp32=fp32,
        accuracy_before=before,
        accuracy_after=after,
    )


def _lowest_cosine(left: FloatArray, right: FloatArray) -> float:
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float((np.einsum("ij,ij->i", left, right) / norms).min())


def _require_agreement(lowest: float) -> None:
    if not lowest >= _LEAST_AGREEMENT:
        raise CalibrationError(
            "the trained model and its graph do not agree",
            why=f"the lowest cosine between them is {lowest:.5f}, asked {_LEAST_AGREEMENT}",
            hint="leave --qat out for this model, and report it: its layers compute something else",
        )
