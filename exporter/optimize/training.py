"""Quantization-aware training without labels: the student learns to embed as FP32 does.

The loss is what the artifact is judged by, against the source model on the same texts: the cosine
of the embeddings (1 - mean), the squared error of token states relative to their size (every token
teaches, not every text only), and the squared error of the matrix of similarities between the texts
of a batch (Tung and Mori 2019), which neighbours are found by. Where texts have labels, lost
margins between their classes count too (`label_margins`). Adam with a cosine schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.optimize.label_margins import Centres
from exporter.optimize.memory import trim_heap
from exporter.optimize.probe import drift
from exporter.optimize.student import Student
from exporter.optimize.training_batches import TrainingBatch
from exporter.values import CurvePoint
from targets.contract import FloatArray, TokenSequences
from targets.errors import StepError
from targets.quantization.plan import LayerPlan

if TYPE_CHECKING:
    from torch import Tensor, nn

STATES_WEIGHT, SIMILARITY_WEIGHT = 1.0, 0.1
"""Of the two losses beside the cosine."""
MARGIN_WEIGHT = 0.1
"""Of lost margins: a hundredth of similarity is to a text what a thousandth of drift is."""
_BIAS_RATE = 1.0 / 40
"""Learning rate of biases for one of weights, which are in units of their step."""
_TRIM_EVERY = 5
"""Steps after which the heap's holes are given back: a hundred steps left 3 GB of them."""
_BETAS = (0.9, 0.99)
_WARM_UP_STEPS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long is trained, and how.

    Args:
        num_steps: batches at most.
        batch_tokens: tokens of a batch.
        learning_rate: the highest, in steps of a weight for each update.
        check_every: training steps between two looks at the held-out texts.
        patience: looks without a better one after which training ends.
        seed: of the order of texts.
    """

    num_steps: int = 600
    batch_tokens: int = 512
    learning_rate: float = 0.006
    check_every: int = 50
    patience: int = 6
    seed: int = 0


@dataclass(slots=True, kw_only=True)
class TrainingState:
    """Where a training stands: everything that the next step depends on.

    Args:
        step: training steps done.
        curve: looks at the held-out texts so far.
        losses: since the last look.
        best: name of a parameter → its value at the best look so far.
        stale: looks since then.
    """

    step: int = 0
    curve: list[CurvePoint] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    best: dict[str, FloatArray] = field(default_factory=dict)
    stale: int = 0


class Training:
    """Trains a student; can be left and gone on with between any two steps.

    Args:
        student: what is trained.
        teacher: the source's module, in evaluation mode.
        schedule: how.
        inputs: pads texts to a batch: the modules' inputs, ids and mask first.
        embed: embeds texts with either module, shape [num_texts, embedding_dim], float32.
        centres: of the texts' classes; None: they have none.
    """

    def __init__(
        self,
        student: Student,
        teacher: nn.Module,
        *,
        schedule: Schedule,
        inputs: Callable[[TokenSequences], tuple[Tensor, ...]],
        embed: Callable[[nn.Module, TokenSequences], FloatArray],
        centres: Centres | None = None,
    ) -> None:
        self.student = student
        self.schedule = schedule
        self.state = TrainingState()
        self._teacher = teacher
        self._inputs = inputs
        self._embed = embed
        self._centres = centres
        self.optimizer = _optimizer(student, schedule)

    def run(
        self,
        batches: Sequence[TrainingBatch],
        held_out: TokenSequences,
        *,
        after_look: Callable[[], None] = lambda: None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> tuple[LayerPlan, ...]:
        """Train to the end, or until the held-out texts gain nothing more.

        Args:
            batches: of every step, from the first one on; see `training_batches.make_batches`.
            held_out: texts that are not trained on.
            after_look: called after every look, for instance to write a checkpoint.
            progress: called with the steps done and their number.

        Returns:
            The plans of the best look.

        Raises:
            StepError: the loss is not a number.
        """
        reference = self._embed(self._teacher, held_out)
        if not self.state.curve:
            self._look(held_out, reference)
            after_look()
        while self.state.step < len(batches) and self.state.stale < self.schedule.patience:
            self._step(batches[self.state.step])
            done = self.state.step
            if done % _TRIM_EVERY == 0:
                trim_heap()
            if done % self.schedule.check_every == 0 or done == len(batches):
                self._look(held_out, reference)
                after_look()
            progress(done, len(batches))
        self._restore_best()
        return self.student.trained()

    def _step(self, batch: TrainingBatch) -> None:
        import torch

        rate = self._rate(self.state.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        inputs = self._inputs(batch.tokens)
        with torch.no_grad():
            wanted = self._teacher(*inputs)
        found = self.student.module(*inputs)
        loss = distillation_loss(found, wanted, inputs[1])
        if self._centres is not None:
            loss = loss + MARGIN_WEIGHT * self._lost_margin(found[1], wanted[1], batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise StepError(
                f"training step {self.state.step + 1}: the loss is {value}",
                why=f"the learning rate is {self.schedule.learning_rate:g} steps of a weight",
                hint="train with a lower --learning-rate; nothing of this training is used",
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.student.keep_in_range()
        self.state.losses.append(value)
        self.state.step += 1

    def _lost_margin(self, found: Tensor, wanted: Tensor, batch: TrainingBatch) -> Tensor:
        import torch
        from torch.nn.functional import normalize

        assert self._centres is not None  # the caller's check
        mine, theirs = normalize(found, dim=1), normalize(wanted, dim=1)
        return self._centres.lost_margin(mine, theirs, torch.from_numpy(batch.classes))

    def _rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / _WARM_UP_STEPS)
        falling = 0.5 * (1.0 + math.cos(math.pi * step / self.schedule.num_steps))
        return self.schedule.learning_rate * warm * falling

    def _look(self, held_out: TokenSequences, reference: FloatArray) -> None:
        state = self.state
        found = drift(reference, self._embed(self.student.module, held_out))
        mean = float(np.mean(state.losses)) if state.losses else 0.0
        is_best = all(found < point.drift for point in state.curve)
        state.curve.append(CurvePoint(step=state.step, loss=mean, drift=found))
        state.losses.clear()
        state.stale = 0 if is_best else state.stale + 1
        if is_best:
            named = self.student.parameters()
            state.best = {name: one.detach().numpy().copy() for name, one in named}

    def _restore_best(self) -> None:
        import torch

        with torch.no_grad():
            for name, parameter in self.student.parameters():
                parameter.copy_(torch.from_numpy(self.state.best[name]))


def distillation_loss(
    found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor], mask: Tensor
) -> Tensor:
    """Return how far the student is from FP32 on one batch.

    Args:
        found: token states [batch_size, sequence_length, hidden] and embeddings
            [batch_size, embedding_dim] of the student.
        wanted: the same of the source.
        mask: int64 [batch_size, sequence_length], 0 where there is a pad.
    """
    from torch.nn.functional import cosine_similarity, normalize

    real = mask.bool()
    states, aims = found[0][real], wanted[0][real]
    mine, theirs = (normalize(one[1], dim=1) for one in (found, wanted))
    cosine = 1.0 - cosine_similarity(found[1], wanted[1]).mean()
    error = (states - aims).square().mean() / aims.square().mean()
    similar = (mine @ mine.T - theirs @ theirs.T).square().mean()
    return cosine + STATES_WEIGHT * error + SIMILARITY_WEIGHT * similar


def _optimizer(student: Student, schedule: Schedule) -> Any:  # noqa: ANN401 - torch is untyped
    import torch

    weights: list[Tensor] = []
    biases: list[Tensor] = []
    for name, parameter in student.parameters():
        (biases if name.endswith(".bias") else weights).append(parameter)
    groups = [{"params": weights, "share": 1.0}, {"params": biases, "share": _BIAS_RATE}]
    return torch.optim.Adam(groups, lr=schedule.learning_rate, betas=_BETAS)
