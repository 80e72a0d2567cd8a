"""Quantization-aware training of the static int8 form, kept where it is better than before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from exporter.deliver.cache import key_of
from exporter.deliver.codec import dump_json, load_json
from exporter.deliver.folders import remove_tree
from exporter.optimize.probe import drift, embed_graph
from exporter.optimize.training import Schedule
from exporter.optimize.training_batches import make_batches
from exporter.steps.contest import Contest, Outcome
from exporter.steps.execution import Stand
from exporter.steps.quantization import Quantization, hold_out
from exporter.steps.source import Source
from exporter.steps.texts import Texts
from exporter.steps.workspace import Workspace, code_fingerprint, tool_versions
from exporter.values import TrainingSummary
from targets.contract import (
    FloatArray,
    IntArray,
    OnnxArtifact,
    Progress,
    QdqScheme,
    Recipe,
    TokenSequences,
)
from targets.errors import CalibrationError, ConfigError, StepError
from targets.hardware.detect import usable_cores
from targets.hardware.precisions import is_backed
from targets.hashing import sha256_file
from targets.quantization.graph import to_array
from targets.quantization.plan import LayerPlan, QdqPlan
from targets.quantization.plans_file import Prepared, apply_copies, load_prepared, save_prepared
from targets.quantization.qdq import insert_qdq

if TYPE_CHECKING:
    from torch import Tensor, nn

    from exporter.source.encoder import LoadedEncoder

STAGE = "training"
_PLANS, _SUMMARY, _CHECKPOINT = "plans.npz", "training.json", "checkpoint.safetensors"
_UNFINISHED = "unfinished"
_TOOLS = ("torch", "transformers", "onnx", "onnxruntime", "numpy")
_MOST_HELD_OUT = 200
_LEAST_AGREEMENT = 0.999
"""Lowest cosine between the trained model in PyTorch and its graph, on any held-out text. A value
on the border between two integers may fall either way; more than that is another computation."""


def trained_if_asked(
    work: Workspace,
    source: Source,
    graph: OnnxArtifact,
    texts: Texts,
    stand: Stand,
    found: Quantization,
) -> Quantization:
    """Train under `--qat`, unless `auto` could not take the result on this device anyway.

    Among several targets, one that has nothing to train goes on without.

    Raises:
        ConfigError, CalibrationError, StepError, StorageError: see `with_training`.
    """
    settings = work.settings
    if not settings.qat:
        return found
    static = [one for one in found.recipes if _is_static(one)]
    place = f"{stand.target.spec.name} on {stand.device.name}"
    if static and settings.precision == "auto" and not is_backed(static[0], stand.hardware):
        work.reporter.note(f"{place}: not trained, nothing there accelerates static int8")
        return found
    if not found.plans and len(settings.target) > 1:
        work.reporter.note(f"{place}: not trained, it has no static int8 recipe")
        return found
    return with_training(work, source, graph, texts, found)


def with_training(
    work: Workspace, source: Source, graph: OnnxArtifact, texts: Texts, found: Quantization
) -> Quantization:
    """Train the static int8 form of a target, and add the result where it is better.

    Args:
        work: the run's surroundings.
        source: the model that is learnt from.
        graph: its FP32 graph.
        texts: with those of training.
        found: the target's recipes and plans.

    Raises:
        ConfigError: the target has no static int8 recipe on this device.
        CalibrationError: the model cannot be trained, or its graph computes something else.
        StepError: the loss is not a number.
        StorageError: a checkpoint is of another training.
    """
    base = next((one for one in found.recipes if _is_static(one)), None)
    if base is None or base.scheme is None or base.scheme not in found.plans:
        raise ConfigError(
            "there is nothing to train: no recipe rounds activations and weights beforehand",
            why="quantization-aware training needs the static int8 recipe, int8-static",
            hint="leave --qat out, or take --precision auto or int8-static",
        )
    if texts.training is None or texts.training_summary is None or found.summary is None:
        raise ConfigError("no texts to train on were prepared", hint="ask for --qat")
    folder = _trained(work, source, graph, texts, found.plans[base.scheme])
    summary = load_json(TrainingSummary, (folder / _SUMMARY).read_bytes())
    told = replace(found, summary=replace(found.summary, training=summary))
    name = f"{base.name}-qat"
    if not summary.used and work.settings.precision == name:
        raise StepError(
            f"{name} was asked for, and training does not help",
            why=f"drift {summary.drift_after:.2e} on held-out texts, "
            f"{summary.drift_before:.2e} without training",
            hint="train longer, on more texts, or take --precision auto",
        )
    if not summary.used:
        work.reporter.note(
            f"training does not help: drift {summary.drift_after:.2e} on held-out texts, "
            f"{summary.drift_before:.2e} without it; it is not used"
        )
        return told
    recipe = _recipe(base, base.scheme)
    assert recipe.scheme is not None  # just made
    at = found.recipes.index(base)
    return replace(
        told,
        recipes=(*found.recipes[:at], recipe, *found.recipes[at:]),
        plans={**found.plans, recipe.scheme: folder / _PLANS},
    )


def calls_for_training(contest: Contest, outcome: Outcome) -> bool:
    """Say whether the policy wants training after a tournament.

    It does where training is possible, was not asked for from the start, and no int8 recipe won.
    """
    settings, quantization = contest.work.settings, contest.quantization
    if settings.policy.on_failure != "qat" or settings.qat or not quantization.plans:
        return False
    backed = [
        one
        for one in quantization.recipes
        if _is_static(one) and is_backed(one, contest.stand.hardware)
    ]
    return (
        bool(backed) and settings.precision == "auto" and outcome.chosen.recipe.precision != "int8"
    )


def _is_static(recipe: Recipe) -> bool:
    return recipe.quantizer == "qdq" and recipe.scheme is not None


def _recipe(base: Recipe, scheme: QdqScheme) -> Recipe:
    return replace(
        base,
        name=f"{base.name}-qat",
        scheme=replace(scheme, trained=True),
        why="static int8 of every linear layer, its integers and biases trained on FP32's "
        "embeddings of unlabelled texts",
    )


# ----------------------------------------------------------------------------- the work


def _trained(
    work: Workspace, source: Source, graph: OnnxArtifact, texts: Texts, plans: Path
) -> Path:
    """Return the cache's folder with the trained plans and how they were found."""
    assert texts.training is not None and texts.training_summary is not None  # the caller's check
    settings, tokens, name = work.settings, texts.training, texts.training_summary.name
    schedule = Schedule(
        num_steps=settings.training_steps,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
    )
    parts = (
        graph.sha256,
        sha256_file(plans),
        tokens.sha256,
        dump_json(schedule).decode(),
        tool_versions(_TOOLS),
    )
    identity = key_of(code_fingerprint(), *parts)
    unfinished = work.cache.root / _UNFINISHED / identity

    def build(folder: Path, progress: Progress) -> None:
        unfinished.mkdir(parents=True, exist_ok=True)
        one = _Run(
            encoder=source.encoder,
            graph=graph,
            prepared=load_prepared(plans),
            schedule=schedule,
            num_threads=settings.threads or usable_cores(),
        )
        checkpoint = unfinished / _CHECKPOINT
        if checkpoint.exists():
            work.reporter.note("goes on with the training that was stopped")
        prepared, summary = one.run(tokens, name, checkpoint, identity, progress)
        save_prepared(prepared, folder / _PLANS)
        (folder / _SUMMARY).write_bytes(dump_json(summary))
        remove_tree(unfinished)

    return work.cached(STAGE, "train the int8 form on FP32's embeddings", parts, build)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One training from plans to plans."""

    encoder: LoadedEncoder
    graph: OnnxArtifact
    prepared: Prepared
    schedule: Schedule
    num_threads: int

    def run(
        self,
        tokens: TokenSequences,
        name: str,
        checkpoint: Path,
        identity: str,
        progress: Progress,
    ) -> tuple[Prepared, TrainingSummary]:
        """Train, and compare with what it started from in the graph that will run."""
        from exporter.optimize.student import build_student
        from exporter.optimize.training import Training
        from exporter.optimize.training_checkpoint import load_checkpoint, save_checkpoint
        from exporter.source.torch_module import attention

        seen, held_out = hold_out(tokens)
        held_out = held_out.select(range(min(len(held_out), _MOST_HELD_OUT)))
        model, _ = apply_copies(self.graph.path, self.prepared)
        weights = {one.name: to_array(one) for one in model.graph.initializer}
        encoder, plans = self.encoder, self.prepared.plans
        with attention(encoder.transformer, "sdpa"):
            student = build_student(encoder.module, encoder.transformer, plans, weights)
            training = Training(
                student,
                encoder.module,
                schedule=self.schedule,
                inputs=self._inputs,
                embed=self._embed,
            )
            load_checkpoint(training, checkpoint, identity)
            batches = make_batches(
                seen,
                num_steps=self.schedule.num_steps,
                batch_tokens=self.schedule.batch_tokens,
                max_length=encoder.spec.max_seq_length,
                seed=self.schedule.seed,
            )
            trained = training.run(
                batches,
                held_out,
                after_look=lambda: save_checkpoint(training, checkpoint, identity),
                progress=progress,
            )
            learnt = self._embed(student.module, held_out)
            reference = self._embed(encoder.module, held_out)
        before = drift(reference, self._in_graph(model, plans, held_out))
        rows = self._in_graph(model, trained, held_out)
        after, agreement = drift(reference, rows), _lowest_cosine(learnt, rows)
        _require_agreement(agreement)
        summary = TrainingSummary(
            texts=name,
            num_texts=len(seen),
            num_held_out=len(held_out),
            num_steps=training.state.step,
            batch_tokens=self.schedule.batch_tokens,
            curve=tuple(training.state.curve),
            drift_before=before,
            drift_after=after,
            agreement=agreement,
            used=after < before,
        )
        return replace(self.prepared, plans=trained), summary

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
