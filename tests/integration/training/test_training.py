"""Quantization-aware training on a small random BERT: learnt, kept, refused, gone on with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
from contract.tiny_plans import calibrated_table
from tiny_models import BERT, build

from exporter.optimize.label_margins import Centres, make_centres
from exporter.optimize.probe import drift, embed_graph
from exporter.optimize.student import Student, build_student
from exporter.optimize.training import MARGIN_WEIGHT, Schedule, Training
from exporter.optimize.training_batches import TrainingBatch, make_batches
from exporter.optimize.training_checkpoint import load_checkpoint, save_checkpoint
from exporter.source.encoder import LoadedEncoder, load_encoder, pad_batch
from exporter.source.onnx_export import export_onnx
from exporter.source.resolve import resolve_encoder
from exporter.source.tokenizer import load_tokenizer
from targets.contract import FloatArray, OnnxArtifact, TokenSequences
from targets.errors import CalibrationError, StepError, StorageError
from targets.quantization.graph import to_array
from targets.quantization.layers import read_layers
from targets.quantization.plan import LayerPlan, QdqPlan
from targets.quantization.prepare import Method, Preparation
from targets.quantization.qdq import insert_qdq

pytestmark = pytest.mark.slow

SCHEDULE = Schedule(num_steps=32, batch_tokens=192, learning_rate=0.25, check_every=4, patience=9)
DAMAGE = 12
"""Integers that the planted damage may move weights by: a small random model loses little else."""
WORDS = ("red", "green", "blue", "cat", "dog", "house", "tree", "river", "stone", "bird")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, its graph, the int8 forms of its layers, and texts."""

    encoder: LoadedEncoder
    graph: OnnxArtifact
    model: onnx.ModelProto
    plans: tuple[LayerPlan, ...]
    texts: TokenSequences
    held_out: TokenSequences

    @property
    def weights(self) -> dict[str, np.ndarray]:
        return {one.name: to_array(one) for one in self.model.graph.initializer}

    def student(self) -> Student:
        return build_student(
            self.encoder.module, self.encoder.transformer, self.plans, self.weights
        )

    def inputs(self, texts: TokenSequences) -> tuple[object, ...]:
        import torch

        ids, mask = (torch.from_numpy(one) for one in pad_batch(texts, np.arange(len(texts))))
        return ids, mask, torch.zeros_like(ids)

    def embed(self, module: Callable[..., tuple], texts: TokenSequences) -> FloatArray:
        import torch

        with torch.no_grad():
            return module(*self.inputs(texts))[1].numpy()

    def training(self, schedule: Schedule = SCHEDULE, **given: Centres) -> Training:
        return Training(
            self.student(),
            self.encoder.module,
            schedule=schedule,
            inputs=self.inputs,
            embed=self.embed,
            **given,
        )

    def batches(self, schedule: Schedule = SCHEDULE) -> list[TrainingBatch]:
        return make_batches(
            self.texts,
            num_steps=schedule.num_steps,
            batch_tokens=schedule.batch_tokens,
            max_length=64,
            vocabulary=self.encoder.ordinary_token_ids(),
            seed=schedule.seed,
        )


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    spec = resolve_encoder(str(build(BERT, tmp_path_factory.mktemp("tiny"))))
    encoder = load_encoder(spec)
    graph = export_onnx(encoder, tmp_path_factory.mktemp("graph"))
    lines = [f"{WORDS[i % 10]} {WORDS[(i * 7 + 3) % 10]} number {i}" for i in range(120)]
    tokens = load_tokenizer(spec).encode(tuple(lines))
    model = onnx.load(graph.path)
    layers = read_layers(model)
    seen = tokens.select(range(100))
    plans = Preparation(model, layers, calibrated_table(graph, seen)).plans(
        Method(), reduce_range=lambda _: True
    )
    return Case(
        encoder=encoder,
        graph=graph,
        model=model,
        plans=tuple(damaged(plan, seed) for seed, plan in enumerate(plans)),
        texts=seen,
        held_out=tokens.select(range(100, 120)),
    )


def damaged(plan: LayerPlan, seed: int) -> LayerPlan:
    """Move integers at random, as no rounding would."""
    integers = plan.weight_integers.astype(np.int16)
    moved = integers + np.random.default_rng(seed).integers(-DAMAGE, DAMAGE + 1, integers.shape)
    return replace(plan, weight_integers=np.clip(moved, -63, 63).astype(np.int8))


def in_graph(case: Case, plans: tuple[LayerPlan, ...]) -> FloatArray:
    """Embed the held-out texts with the Q/DQ graph of plans, in ONNX Runtime."""
    return embed_graph(insert_qdq(case.model, QdqPlan(layers=plans)), case.graph, case.held_out, 1)


@pytest.fixture(scope="module")
def trained(case: Case) -> tuple[Training, tuple[LayerPlan, ...]]:
    training = case.training()
    return training, training.run(case.batches(), case.held_out)


def test_the_student_starts_as_the_graph_that_runs(case):
    """Agreement with another implementation, ONNX Runtime, before anything is learnt."""
    student, theirs = case.student(), in_graph(case, case.plans)
    ours = case.embed(student.module, case.held_out)
    lost = drift(case.embed(case.encoder.module, case.held_out), ours)
    assert drift(theirs, ours) < 0.01 * lost
    for before, after in zip(case.plans, student.trained(), strict=True):
        assert np.array_equal(before.weight_integers, after.weight_integers)


def test_training_comes_closer_to_fp32_and_the_graph_sees_it(case, trained):
    training, plans = trained
    curve = training.state.curve
    assert [point.step for point in curve] == list(range(0, SCHEDULE.num_steps + 1, 4))
    best = min(point.drift for point in curve)
    assert best < 0.5 * curve[0].drift
    reference = case.embed(case.encoder.module, case.held_out)
    before, after = (drift(reference, in_graph(case, one)) for one in (case.plans, plans))
    assert after < 0.5 * before
    assert after == pytest.approx(best, rel=0.05)


def test_only_integers_and_biases_change(case, trained):
    _, plans = trained
    moved = 0
    for before, after in zip(case.plans, plans, strict=True):
        same = replace(after, weight_integers=before.weight_integers, bias=before.bias)
        for name in ("activation", "integers", "symmetric", "reduce_range", "layer"):
            assert getattr(same, name) == getattr(before, name)
        assert np.array_equal(after.weight_scale, before.weight_scale)
        assert np.array_equal(after.divisor, before.divisor)
        assert np.abs(after.weight_integers).max() <= 63
        moved += int((after.weight_integers != before.weight_integers).sum())
    assert moved > 0


def test_the_source_is_left_as_it_was(case, trained):
    again = load_encoder(case.encoder.spec)
    for one, other in zip(case.encoder.module.parameters(), again.module.parameters(), strict=True):
        assert np.array_equal(one.detach().numpy(), other.detach().numpy())


def test_margins_between_classes_are_part_of_the_loss(case):
    """Centres that FP32 is right about and the student is not: the step's loss says so."""
    texts, number = case.texts, len(case.texts)
    rows = case.embed(case.encoder.module, texts)
    student = case.embed(case.student().module, texts)
    axis = (rows - student).mean(axis=0)
    classes = (rows @ axis > np.median(rows @ axis)).astype(np.int64)
    centres = make_centres(rows, classes, 2)
    batch = TrainingBatch(tokens=texts, classes=classes)
    nobody = TrainingBatch(tokens=texts, classes=np.full(number, -1, np.int64))
    losses = {}
    for name, seen in (("classes", batch), ("nobody's", nobody)):
        training = case.training(centres=centres)
        training.run([seen], case.held_out)
        losses[name] = training.state.curve[-1].loss
    lost = float(centres.lost_margin(*(unit(one) for one in (student, rows)), as_tensor(classes)))
    assert lost > 0.0
    assert losses["classes"] - losses["nobody's"] == pytest.approx(MARGIN_WEIGHT * lost, rel=0.02)


def unit(rows: FloatArray) -> object:
    from torch import from_numpy
    from torch.nn.functional import normalize

    return normalize(from_numpy(rows), dim=1)


def as_tensor(values: np.ndarray) -> object:
    import torch

    return torch.from_numpy(values)


class StoppedError(Exception):
    pass


def stops_at(step: int, training: Training, write: Callable[[], None]) -> Callable[[], None]:
    """Write a checkpoint at every look, and end the run at one of them."""

    def after_look() -> None:
        write()
        if training.state.step == step:
            raise StoppedError

    return after_look


def test_going_on_after_a_kill_gives_the_same_bytes(case, trained, tmp_path):
    path, whole = tmp_path / "checkpoint.safetensors", trained[1]
    killed = case.training()
    write = stops_at(8, killed, lambda: save_checkpoint(killed, path, "one"))
    with pytest.raises(StoppedError):
        killed.run(case.batches(), case.held_out, after_look=write)
    going_on = case.training()
    assert load_checkpoint(going_on, path, "one")
    assert going_on.state.step == 8
    plans = going_on.run(case.batches(), case.held_out)
    assert going_on.state.curve == trained[0].state.curve
    for one, other in zip(whole, plans, strict=True):
        assert np.array_equal(one.weight_integers, other.weight_integers)
        assert np.array_equal(one.bias, other.bias)
    fresh = case.training()
    others = fresh.run(case.batches(replace(SCHEDULE, seed=1)), case.held_out)
    assert any(
        not np.array_equal(one.weight_integers, other.weight_integers)
        for one, other in zip(whole, others, strict=True)
    )


def test_the_heap_is_given_back_between_looks(case, monkeypatch):
    """Batches of many shapes leave holes: between two looks they came to gigabytes."""
    trims: list[int] = []
    schedule = replace(SCHEDULE, num_steps=12, check_every=12)
    training = case.training(schedule)
    monkeypatch.setattr(
        "exporter.optimize.training.trim_heap", lambda: trims.append(training.state.step)
    )
    training.run(case.batches(schedule), case.held_out)
    assert trims == [5, 10]


def test_a_checkpoint_of_another_training_is_refused(case, tmp_path):
    path, training = tmp_path / "checkpoint.safetensors", case.training()
    assert not load_checkpoint(training, path, "one")
    training.run(case.batches()[:1], case.held_out)
    save_checkpoint(training, path, "one")
    with pytest.raises(StorageError, match="another training"):
        load_checkpoint(case.training(), path, "two")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(StorageError, match="not a checkpoint"):
        load_checkpoint(case.training(), path, "one")
    assert list(tmp_path.iterdir()) == [path]


def test_a_loss_that_is_no_number_ends_clearly(case):
    schedule = replace(SCHEDULE, learning_rate=float("inf"))
    with pytest.raises(StepError, match="the loss is nan") as caught:
        case.training(schedule).run(case.batches(schedule), case.held_out)
    assert "--learning-rate" in caught.value.hint


def test_training_that_does_not_help_ends_early_and_keeps_what_was_best(case):
    schedule = replace(SCHEDULE, learning_rate=50.0, num_steps=40, check_every=1, patience=3)
    training = case.training(schedule)
    plans = training.run(case.batches(schedule), case.held_out)
    curve = training.state.curve
    assert len(curve) < 40
    assert min(point.drift for point in curve[-3:]) >= min(point.drift for point in curve)
    if curve[0].drift == min(point.drift for point in curve):
        for before, after in zip(case.plans, plans, strict=True):
            assert np.array_equal(before.weight_integers, after.weight_integers)


def test_a_layer_that_the_model_runs_twice_is_refused(case):
    twice = (*case.plans, case.plans[0])
    with pytest.raises(CalibrationError, match="cannot be trained") as caught:
        build_student(case.encoder.module, case.encoder.transformer, twice, case.weights)
    assert "several times" in caught.value.why


def test_a_layer_that_is_no_linear_module_is_refused(case):
    elsewhere = replace(case.plans[0].layer, path="embeddings.LayerNorm")
    plans = (replace(case.plans[0], layer=elsewhere),)
    with pytest.raises(
        CalibrationError, match=r"embeddings\.LayerNorm cannot be trained"
    ) as caught:
        build_student(case.encoder.module, case.encoder.transformer, plans, case.weights)
    assert "LayerNorm" in caught.value.why


def test_a_norm_that_the_graph_moves_is_moved_in_the_student(case):
    output = case.plans[0].layer.activation
    shift = np.linspace(-2, 2, 32).astype(np.float32)
    assert output.startswith("embeddings.LayerNorm/")
    given = (case.encoder.module, case.encoder.transformer, case.plans, case.weights)
    for name, student in (
        ("moved", build_student(*given, {output: shift})),
        ("left", build_student(*given)),
    ):
        moved = student.module.get_submodule(_path_of(case, "embeddings.LayerNorm"))
        own = case.encoder.transformer.get_submodule("embeddings.LayerNorm")
        away = (own.bias - moved.bias).detach().numpy()
        np.testing.assert_allclose(away, shift if name == "moved" else 0 * shift, atol=1e-6)


def _path_of(case: Case, inside: str) -> str:
    transformer = case.encoder.transformer.get_submodule(inside)
    return next(name for name, one in case.encoder.module.named_modules() if one is transformer)


@pytest.mark.parametrize("path", ["embeddings.word_embeddings", "nowhere.LayerNorm"])
def test_a_moved_norm_that_the_model_lacks_is_refused(case, path):
    shift = {f"{path}/LayerNormalization_output_0": np.ones(32, np.float32)}
    with pytest.raises(CalibrationError, match=f"{path} cannot be trained") as caught:
        build_student(
            case.encoder.module, case.encoder.transformer, case.plans, case.weights, shift
        )
    assert "moves its output" in caught.value.why


def test_a_plan_without_integers_is_refused(case):
    plans = (replace(case.plans[0], weight_integers=None),)
    with pytest.raises(CalibrationError, match="cannot be trained"):
        build_student(case.encoder.module, case.encoder.transformer, plans, case.weights)
