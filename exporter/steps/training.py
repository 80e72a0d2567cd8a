"""Quantization-aware training of the static int8 form, kept where it is better than before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.deliver.cache import key_of
from exporter.deliver.codec import dump_json, load_json
from exporter.deliver.folders import remove_tree
from exporter.optimize.training import Schedule
from exporter.steps.contest import Contest, Outcome
from exporter.steps.execution import Stand
from exporter.steps.quantization import Quantization
from exporter.steps.source import Source
from exporter.steps.student_run import StudentRun
from exporter.steps.texts import Texts
from exporter.steps.workspace import Workspace, code_fingerprint, tool_versions
from exporter.values import TrainingSummary
from targets.contract import (
    OnnxArtifact,
    Progress,
    QdqScheme,
    Recipe,
)
from targets.errors import ConfigError, StepError
from targets.hardware.detect import usable_cores
from targets.hardware.precisions import is_backed
from targets.hashing import sha256_file
from targets.quantization.plans_file import load_prepared, save_prepared

if TYPE_CHECKING:
    pass

STAGE = "training"
_PLANS, _SUMMARY, _CHECKPOINT = "plans.npz", "training.json", "checkpoint.safetensors"
_UNFINISHED = "unfinished"
_TOOLS = ("torch", "transformers", "onnx", "onnxruntime", "numpy")


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
    if texts.training is None or found.summary is None:
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
    assert texts.training is not None  # the caller's check
    settings, training = work.settings, texts.training
    schedule = Schedule(
        num_steps=settings.training_steps,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
    )
    parts = (
        graph.sha256,
        sha256_file(plans),
        training.sha256,
        dump_json(schedule).decode(),
        tool_versions(_TOOLS),
    )
    identity = key_of(code_fingerprint(), *parts)
    unfinished = work.cache.root / _UNFINISHED / identity

    def build(folder: Path, progress: Progress) -> None:
        unfinished.mkdir(parents=True, exist_ok=True)
        one = StudentRun(
            encoder=source.encoder,
            graph=graph,
            prepared=load_prepared(plans),
            schedule=schedule,
            num_threads=settings.threads or usable_cores(),
        )
        checkpoint = unfinished / _CHECKPOINT
        if checkpoint.exists():
            work.reporter.note("goes on with the training that was stopped")
        prepared, summary = one.run(training, checkpoint, identity, progress)
        save_prepared(prepared, folder / _PLANS)
        (folder / _SUMMARY).write_bytes(dump_json(summary))
        remove_tree(unfinished)

    return work.cached(STAGE, "train the int8 form on FP32's embeddings", parts, build)
