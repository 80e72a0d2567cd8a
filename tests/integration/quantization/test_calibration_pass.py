"""The streamed calibration pass on real graphs, against statistics of all values kept."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
import pytest
from calibration_child import SETTINGS, corpus, many_texts
from calibration_reference import assert_describes, onnx_values, torch_values
from contract.tiny_graph import PAD_ID, TinyGraph, make_tokens, make_weights, write_tiny_graph
from onnx import TensorProto, helper, numpy_helper

from exporter.optimize.calibrate import Corpus, PassSettings, calibrate
from exporter.optimize.calibration_batches import make_batches, read_windows
from exporter.optimize.calibration_graph import open_activations
from exporter.optimize.calibration_state import CHECKPOINT_FILE
from targets.contract import OnnxArtifact, TokenSequences
from targets.errors import CalibrationError
from targets.hashing import sha256_file
from targets.quantization.statistics import StreamingStatistics
from targets.quantization.table import CalibrationTable

TESTS = Path(__file__).parents[2]
SMALL = PassSettings(gram=True, max_batch_tokens=96, window_texts=16, num_threads=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyGraph:
    return write_tiny_graph(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def notes() -> list[str]:
    return []


def corpus_of(texts, sha256: str = "corpus") -> Corpus:
    return Corpus(texts=texts, pad_token_id=PAD_ID, tokenizer_sha256="tokenizer", sha256=sha256)


# ------------------------------------------------------------------------ true statistics


def test_statistics_are_those_of_every_text_alone(tiny):
    tokens = make_tokens(60)
    table = calibrate(tiny.artifact, corpus_of(tokens), SMALL)
    values = onnx_values(tiny.artifact.path, list(table.tensors), tokens)
    assert len(values) == 8  # q, k and v share one; four tensors in each of two layers
    for name, found in table.tensors.items():
        assert_describes(found, values[name], tolerance=1e-5, gram=True)
    assert (table.num_texts, table.num_tokens) == (60, int(tokens.lengths.sum()))
    assert table.graph_sha256 == tiny.artifact.sha256
    assert (table.tokenizer_sha256, table.corpus_sha256) == ("tokenizer", "corpus")


def test_padding_that_is_not_masked_would_be_seen(tiny):
    """The negative twin: the same batches with their padding give other statistics."""
    tokens = make_tokens(60)
    session = open_activations(tiny.artifact, 1)
    masked = [StreamingStatistics(one.num_channels) for one in session.activations]
    unmasked = [StreamingStatistics(one.num_channels) for one in session.activations]
    for window in read_windows(tokens, 64, 16):
        for batch in make_batches(window, PAD_ID, 96):
            for one, value, kept, all_rows in zip(
                session.activations, session.run(batch), masked, unmasked, strict=True
            ):
                kept.add(one.rows(value, batch))
                all_rows.add(replace(one, layout="none").rows(value, batch))
    values = onnx_values(tiny.artifact.path, [one.name for one in session.activations], tokens)
    for one, kept, all_rows in zip(session.activations, masked, unmasked, strict=True):
        assert_describes(kept.freeze(), values[one.name], tolerance=1e-5, gram=False)
        with pytest.raises(AssertionError):
            assert_describes(all_rows.freeze(), values[one.name], tolerance=1e-5, gram=False)
        assert not np.allclose(
            all_rows.freeze().channel_mean, kept.freeze().channel_mean, atol=1e-4
        )


def test_the_order_of_texts_in_a_window_does_not_matter(tiny):
    tokens = make_tokens(60)
    settings = replace(SMALL, window_texts=64)
    table = calibrate(tiny.artifact, corpus_of(tokens), settings)
    turned = calibrate(tiny.artifact, corpus_of(tokens.select(range(59, -1, -1))), settings)
    for name, found in table.tensors.items():
        other = turned.tensors[name]
        near = {"rtol": 0, "atol": 1e-5 * found.absmax}
        np.testing.assert_allclose(other.channel_absmax, found.channel_absmax, **near)
        np.testing.assert_allclose(other.channel_mean, found.channel_mean, **near)
        np.testing.assert_allclose(other.gram, found.gram, rtol=0, atol=1e-5 * found.gram.max())
        assert other.count == found.count


def test_second_moments_only_when_asked(tiny):
    table = calibrate(tiny.artifact, corpus_of(make_tokens()), replace(SMALL, gram=False))
    assert all(found.gram is None for found in table.tensors.values())


def test_weights_in_a_second_file_give_the_same_table(tiny, tmp_path):
    path = tmp_path / "model.onnx"
    model = onnx.load(tiny.artifact.path)
    onnx.save(
        model, path, save_as_external_data=True, location="model.onnx_data", size_threshold=256
    )
    assert (tmp_path / "model.onnx_data").stat().st_size > path.stat().st_size
    before = {file.name: sha256_file(file) for file in tmp_path.iterdir()}
    outside = calibrate(replace(tiny.artifact, path=path), corpus_of(make_tokens()), SMALL)
    assert outside.sha256 == calibrate(tiny.artifact, corpus_of(make_tokens()), SMALL).sha256
    assert {file.name: sha256_file(file) for file in tmp_path.iterdir()} == before


def test_a_large_model_gets_smaller_batches(tiny, monkeypatch):
    """Activations are bounded in bytes; batches of two texts give the same statistics."""
    wide = calibrate(tiny.artifact, corpus_of(make_tokens()), SMALL)
    monkeypatch.setattr("exporter.optimize.calibrate._MAX_ACTIVATION_BYTES", 40 * 4 * 8 * 32)
    narrow = calibrate(tiny.artifact, corpus_of(make_tokens()), SMALL)
    for name, found in wide.tensors.items():
        np.testing.assert_allclose(narrow.tensors[name].channel_mean, found.channel_mean, atol=1e-5)


# ------------------------------------------------------------------------- any length


def test_a_generator_of_unknown_length_is_read_as_it_goes(tiny):
    taken, ahead = [], []

    def stream():
        for text in islice(many_texts(400), 400):
            taken.append(1)
            yield text

    def progress(done: int, total: int | None = None) -> None:
        assert total is None
        ahead.append(len(taken) - done)

    table = calibrate(tiny.artifact, corpus_of(stream()), SMALL, progress=progress)
    assert table.num_texts == 400
    # A window, and the batch that is counted while the next window's first one runs.
    assert max(ahead) <= 2 * SMALL.window_texts


def run_child(graph: Path, checkpoints: str, num_texts: int) -> subprocess.Popen[str]:
    program = str(Path(__file__).with_name("calibration_child.py"))
    return subprocess.Popen(
        [sys.executable, program, str(graph), checkpoints, str(num_texts)],
        cwd=TESTS.parent,
        env={"PYTHONPATH": f"{TESTS.parent}:{TESTS}"},  # sums depend on the number of threads
        stdout=subprocess.PIPE,
        text=True,
    )


def test_memory_does_not_grow_with_the_texts(tmp_path):
    peaks = {}
    for num_texts in (200, 4000):
        with run_child(tmp_path, "-", num_texts) as child:
            peaks[num_texts] = int(child.communicate()[0].splitlines()[-1])
        assert child.returncode == 0
    assert peaks[4000] < 1.1 * peaks[200]


# ------------------------------------------------------------------------ going on again


@pytest.mark.parametrize("batches_before_death", [3, 40])
def test_a_killed_pass_goes_on_to_the_same_bits(batches_before_death, tmp_path, notes):
    graph, checkpoints = tmp_path / "graph", tmp_path / "checkpoints"
    graph.mkdir()
    checkpoints.mkdir()
    with run_child(graph, str(checkpoints), 2000) as child:
        for _ in range(batches_before_death):
            assert child.stdout.readline().startswith("at ")
        child.kill()
    assert child.returncode == -9
    assert (checkpoints / CHECKPOINT_FILE).is_file()

    done: list[int] = []
    artifact = write_tiny_graph(graph).artifact
    resumed = calibrate(
        artifact,
        corpus(2000),
        SETTINGS,
        checkpoint_dir=checkpoints,
        progress=lambda n, _=None: done.append(n),
        note=notes.append,
    )
    fresh_done: list[int] = []
    fresh = calibrate(
        artifact, corpus(2000), SETTINGS, progress=lambda n, _=None: fresh_done.append(n)
    )
    assert len(done) < len(fresh_done)
    assert done[-1] == fresh_done[-1] == 2000
    assert resumed.sha256 == fresh.sha256
    assert notes == []
    assert list(checkpoints.iterdir()) == []


class StoppedError(Exception):
    """Stands for a crash in the middle of a pass."""


@pytest.fixture
def half_done(tiny, tmp_path, monkeypatch) -> Path:
    """A folder with the checkpoint of a pass over `make_tokens(60)` that stopped on its way."""

    monkeypatch.setattr("exporter.optimize.calibration_state._LEAST_INTERVALS_PER_WRITE", 0)

    def stop(done: int, total: int | None = None) -> None:
        if done >= 40:
            raise StoppedError

    with pytest.raises(StoppedError):
        calibrate(
            tiny.artifact,
            corpus_of(make_tokens(60)),
            SMALL,
            checkpoint_dir=tmp_path,
            checkpoint_every_s=0.0,
            progress=stop,
        )
    assert (tmp_path / CHECKPOINT_FILE).is_file()
    return tmp_path


Rerun = Callable[..., tuple[CalibrationTable, list[int]]]


@pytest.fixture
def rerun(tiny, half_done, notes) -> Rerun:
    def run(corpus: Corpus, **changes) -> tuple[CalibrationTable, list[int]]:
        done: list[int] = []
        table = calibrate(
            changes.get("artifact", tiny.artifact),
            corpus,
            changes.get("settings", SMALL),
            checkpoint_dir=half_done,
            progress=lambda n, _=None: done.append(n),
            note=notes.append,
        )
        return table, done

    return run


def test_a_checkpoint_is_gone_on_with(tiny, rerun, notes):
    table, done = rerun(corpus_of(make_tokens(60)))
    assert done[0] > 40
    assert table.sha256 == calibrate(tiny.artifact, corpus_of(make_tokens(60)), SMALL).sha256
    assert notes == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sha256": "other"}, "another corpus"),
        ({"tokenizer_sha256": "other"}, "another tokenizer"),
    ],
)
def test_a_checkpoint_of_other_texts_is_refused(tiny, rerun, notes, changes, said):
    asked = replace(corpus_of(make_tokens(60)), **changes)
    table, done = rerun(asked)
    assert done[0] < 40
    assert said in notes[0]
    assert table.sha256 == calibrate(tiny.artifact, asked, SMALL).sha256


def test_a_checkpoint_of_another_graph_is_refused(rerun, notes, tmp_path_factory):
    other = write_tiny_graph(tmp_path_factory.mktemp("other"), seed=1).artifact
    table, done = rerun(corpus_of(make_tokens(60)), artifact=other)
    assert done[0] < 40
    assert "another graph" in notes[0]
    assert table.graph_sha256 == other.sha256


def test_a_checkpoint_without_second_moments_is_no_start_for_one_with(rerun, notes):
    table, _ = rerun(corpus_of(make_tokens(60)), settings=replace(SMALL, gram=False))
    assert "settings" in notes[0]
    assert all(found.gram is None for found in table.tensors.values())


@pytest.mark.parametrize("num_texts", [60, 10])
def test_texts_that_changed_under_their_name_start_anew(tiny, rerun, notes, num_texts):
    changed = corpus_of(make_tokens(num_texts, seed=8))
    table, done = rerun(changed)
    assert done[0] < 40
    assert "not those of its checkpoint" in notes[0]
    assert table.sha256 == calibrate(tiny.artifact, changed, SMALL).sha256


def test_a_generator_that_changed_is_an_error_once(rerun, half_done):
    with pytest.raises(CalibrationError, match="not those of its checkpoint"):
        rerun(corpus_of(iter(make_tokens(60, seed=8))))
    assert not (half_done / CHECKPOINT_FILE).exists()
    assert rerun(corpus_of(iter(make_tokens(60, seed=8))))[0].num_texts == 60


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("texts", [[], [[], []]])
def test_no_texts_are_an_error(tiny, texts):
    with pytest.raises(CalibrationError, match="no calibration text"):
        calibrate(tiny.artifact, corpus_of(texts), SMALL)


def rewritten(tiny: TinyGraph, folder: Path, changes: dict[str, np.ndarray]) -> OnnxArtifact:
    """The tiny graph with other weights."""
    model = onnx.load(tiny.artifact.path)
    for tensor in model.graph.initializer:
        if tensor.name in changes:
            tensor.CopyFrom(numpy_helper.from_array(changes[tensor.name], tensor.name))
    path = folder / "model.onnx"
    onnx.save(model, path)
    return replace(tiny.artifact, path=path, sha256=sha256_file(path))


@pytest.mark.parametrize("num_texts", [1, 24])
def test_a_value_that_is_not_finite_names_tensor_and_layer(tiny, tmp_path, num_texts):
    name = "encoder.layer.1.intermediate.dense.bias"
    bias = make_weights(0)[name].copy()
    bias[3] = np.nan
    with pytest.raises(CalibrationError) as caught:
        graph = rewritten(tiny, tmp_path, {name: bias})
        calibrate(graph, corpus_of(make_tokens(num_texts)), SMALL)
    message = str(caught.value)
    assert "encoder.layer.1.output.dense" in message
    assert "encoder.layer.1.intermediate/Gelu_output" in message
    assert "channel 3" in message


def test_a_constant_tensor_is_fine_and_noted(tiny, tmp_path, notes):
    names = [f"encoder.layer.1.intermediate.dense.{part}" for part in ("weight", "bias")]
    zeros = {name: np.zeros_like(make_weights(0)[name]) for name in names}
    graph = rewritten(tiny, tmp_path, zeros)
    table = calibrate(graph, corpus_of(make_tokens()), SMALL, note=notes.append)
    assert table.tensors["encoder.layer.1.intermediate/Gelu_output"].absmax == 0
    assert notes == ["the input of encoder.layer.1.output.dense is 0 in every text"]


def test_a_graph_without_linear_layers_is_an_error(tiny, tmp_path):
    table = numpy_helper.from_array(np.ones((64, 8), np.float32), "table")
    axes = ["batch_size", "sequence_length"]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, axes)
    out = helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*axes, 8])
    lookup = helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"], name="look")
    graph = helper.make_graph([lookup], "bag", [ids], [out], [table])
    path = tmp_path / "model.onnx"
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path
    )
    with pytest.raises(CalibrationError, match="no linear layer"):
        calibrate(replace(tiny.artifact, path=path), corpus_of(make_tokens()), SMALL)


def test_a_graph_that_does_not_load_is_an_error(tiny, tmp_path):
    model = onnx.load(tiny.artifact.path)
    next(node for node in model.graph.node if node.op_type == "Gelu").op_type = "Nonsense"
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    with pytest.raises(CalibrationError, match="cannot load"):
        calibrate(replace(tiny.artifact, path=path), corpus_of(make_tokens()), SMALL)


def test_ids_outside_the_vocabulary_are_an_error(tiny):
    with pytest.raises(CalibrationError, match="ids 1 to 5000"):
        calibrate(tiny.artifact, corpus_of([[1, 5000]]), SMALL)


def test_a_text_longer_than_the_graph_takes_is_an_error(tiny):
    with pytest.raises(CalibrationError, match=r"text 2 .*65"):
        calibrate(tiny.artifact, corpus_of([[1], [1] * 65]), SMALL)


# ------------------------------------------------------------------------ the real model


@pytest.mark.model
@pytest.mark.slow
def test_minilm_statistics_are_those_that_pytorch_s_layers_read(minilm_dir, tmp_path):
    graph, tokens = export_minilm(minilm_dir, tmp_path)
    table = calibrate(graph, corpus_of(tokens), PassSettings(gram=True))
    readers = {one.name: one.layers[0] for one in open_activations(graph, None).activations}
    assert set(readers) == set(table.tensors)
    assert len(readers) == 24
    values = torch_values(minilm_dir, readers, tokens)
    for name, found in table.tensors.items():
        assert_describes(found, values[name], tolerance=1e-4, gram=True)


def export_minilm(folder: Path, into: Path) -> tuple[OnnxArtifact, TokenSequences]:
    """The real model's graph and about 60 of the built-in texts."""
    from exporter.source.corpus import load_calibration
    from exporter.source.encoder import load_encoder
    from exporter.source.onnx_export import export_onnx
    from exporter.source.resolve import resolve_encoder
    from exporter.source.tokenizer import load_tokenizer

    spec = resolve_encoder(str(folder))
    texts: Sequence[str] = load_calibration(None, num_samples=60, seed=0).texts
    return export_onnx(load_encoder(spec), into), load_tokenizer(spec).encode(texts)
