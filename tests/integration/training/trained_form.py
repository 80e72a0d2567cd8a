"""A few steps of quantization-aware training, and the trained form run as a target runs it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from contract.tiny_plans import write_plans
from tiny_models import BERT, build

from exporter.optimize.probe import drift, embed_graph
from exporter.optimize.student import build_student
from exporter.optimize.training import Schedule, Training
from exporter.optimize.training_batches import make_batches
from exporter.source.corpus import load_calibration
from exporter.source.encoder import LoadedEncoder, load_encoder, pad_batch
from exporter.source.onnx_export import export_onnx
from exporter.source.resolve import resolve_encoder
from exporter.source.tokenizer import load_tokenizer
from targets.contract import (
    CompiledArtifact,
    CompileRequest,
    FloatArray,
    Hardware,
    OnnxArtifact,
    QdqScheme,
    Recipe,
    RunPlan,
    Target,
    TokenSequences,
)
from targets.quantization.graph import to_array
from targets.quantization.integers import weight_limit
from targets.quantization.plan import LayerPlan, QdqPlan
from targets.quantization.plans_file import load_changed, load_prepared, save_prepared
from targets.quantization.qdq import insert_qdq
from targets.registry import open_device

_WORDS = ("red", "green", "blue", "cat", "dog", "house", "tree", "river", "stone", "bird")
SCHEDULE = Schedule(num_steps=4, batch_tokens=256, learning_rate=0.25, check_every=4)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model, its graph, and texts: those that are learnt from and those that are not."""

    encoder: LoadedEncoder
    graph: OnnxArtifact
    texts: TokenSequences
    held_out: TokenSequences

    def inputs(self, texts: TokenSequences) -> tuple[object, ...]:
        import torch

        ids, mask = (torch.from_numpy(one) for one in pad_batch(texts, np.arange(len(texts))))
        return ids, mask, torch.zeros_like(ids)

    def embed(self, module: object, texts: TokenSequences) -> FloatArray:
        """Embed text by text: no row has anything to do with another."""
        import torch

        with torch.no_grad():
            rows = [module(*self.inputs(texts.select([i])))[1][0] for i in range(len(texts))]
        return np.stack([row.numpy() for row in rows])


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training started from and what it came to.

    Args:
        source: the model that was learnt from.
        before: plans file of the damaged form.
        after: plans file of the trained form.
        seen: the trained PyTorch model's rows of the held-out texts: what training saw.
        reference: FP32's rows of them.
    """

    source: Source
    before: Path
    after: Path
    seen: FloatArray
    reference: FloatArray

    def tolerance(self, share: float) -> float:
        """Return the drift that two right implementations of one form may have.

        A value on the border between two integers may fall either way, and moves more further
        down. What comes of that is of the kind of rounding itself, so it is told as a share of
        what int8 costs: a tenth where six layers amplify it, a hundredth where two do.
        """
        return share * drift(self.reference, self.seen)

    def compile(
        self, target: Target, recipe: Recipe, hardware: Hardware, plans: Path, folder: Path
    ) -> CompiledArtifact:
        """Let a target compile one of the forms."""
        folder.mkdir()
        return target.compile(
            CompileRequest(
                graph=self.source.graph,
                recipe=recipe,
                calibration=self.source.texts,
                plans=plans,
                hardware=hardware,
                output_dir=folder,
                num_threads=1,
                seed=0,
            )
        )

    def in_graph(self, plans: Path) -> FloatArray:
        """Embed the held-out texts with the Q/DQ graph of one form in ONNX Runtime."""
        prepared = load_prepared(plans)
        model, _ = load_changed(self.source.graph.path, prepared)
        quantized = insert_qdq(model, QdqPlan(layers=prepared.plans))
        return embed_graph(quantized, self.source.graph, self.source.held_out, 1)

    def run(self, plan: RunPlan) -> FloatArray:
        """Embed the held-out texts in the runner's own process, as the product does."""
        runner = open_device("local").start(plan, 1)
        try:
            return runner.embed(self.source.held_out)
        finally:
            runner.close()


def read_source(folder: Path, into: Path, lines: tuple[str, ...], num_held_out: int) -> Source:
    """Load a model from its folder, export it, and tokenize texts; the last are held out."""
    spec = resolve_encoder(str(folder))
    encoder = load_encoder(spec)
    tokens = load_tokenizer(spec).encode(lines)
    border = len(tokens) - num_held_out
    return Source(
        encoder=encoder,
        graph=export_onnx(encoder, into),
        texts=tokens.select(range(border)),
        held_out=tokens.select(range(border, len(tokens))),
    )


def tiny_source(folder: Path) -> Source:
    """A random two-layer BERT with texts of its vocabulary."""
    for name in ("model", "graph"):
        (folder / name).mkdir()
    lines = tuple(f"{_WORDS[i % 10]} {_WORDS[(i * 7 + 3) % 10]} number {i}" for i in range(120))
    return read_source(build(BERT, folder / "model"), folder / "graph", lines, 20)


def real_source(minilm_dir: Path, folder: Path) -> Source:
    """The real all-MiniLM-L6-v2 with a few built-in texts that are neither labels nor pages."""
    texts = load_calibration(None, num_samples=400, seed=0).texts
    lines = tuple(text for text in texts if 40 < len(text) < 160)[:44]
    return read_source(minilm_dir, folder, lines, 12)


def train(source: Source, scheme: QdqScheme, folder: Path, *, damage: int) -> Trained:
    """Quantize as the product does, plant damage, train some steps, and keep both forms.

    Args:
        source: what is learnt from.
        scheme: of the integers.
        folder: where the plans are written.
        damage: integers that weights are moved by at most, so that few steps have much to mend.
    """
    found = load_prepared(write_plans(folder / "plans.npz", source.graph, source.texts, scheme))
    prepared = replace(
        found, plans=tuple(_damaged(plan, seed, damage) for seed, plan in enumerate(found.plans))
    )
    model, _ = load_changed(source.graph.path, prepared)
    weights = {one.name: to_array(one) for one in model.graph.initializer}
    encoder = source.encoder
    student = build_student(
        encoder.module, encoder.transformer, prepared.plans, weights, prepared.shifts
    )
    training = Training(
        student, encoder.module, schedule=SCHEDULE, inputs=source.inputs, embed=source.embed
    )
    batches = make_batches(
        source.texts,
        num_steps=SCHEDULE.num_steps,
        batch_tokens=SCHEDULE.batch_tokens,
        max_length=64,
        vocabulary=np.zeros(0, np.int64),  # what is learnt is to show on these texts
        seed=SCHEDULE.seed,
    )
    plans = training.run(batches, source.held_out)
    before, after = folder / "before.npz", folder / "after.npz"
    save_prepared(prepared, before)
    save_prepared(replace(prepared, plans=plans), after)
    return Trained(
        source=source,
        before=before,
        after=after,
        seen=source.embed(student.module, source.held_out),
        reference=source.embed(encoder.module, source.held_out),
    )


def _damaged(plan: LayerPlan, seed: int, damage: int) -> LayerPlan:
    """Move integers at random, as no rounding would."""
    assert plan.weight_integers is not None
    limit = weight_limit(plan.reduce_range)
    integers = plan.weight_integers.astype(np.int16)
    moved = integers + np.random.default_rng(seed).integers(-damage, damage + 1, integers.shape)
    return replace(plan, weight_integers=np.clip(moved, -limit, limit).astype(np.int8))
