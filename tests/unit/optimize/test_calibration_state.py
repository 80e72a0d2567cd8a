"""The checkpoint of a calibration pass."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.optimize.calibration_state import CHECKPOINT_FILE, Checkpoint, PassState, Position
from targets.errors import StorageError
from targets.quantization.statistics import StreamingStatistics

MADE_OF = {"graph": "a", "tokenizer": "b", "corpus": "c"}
POSITION = Position(window=2, window_sha256="d", num_batches=3, num_texts=40, num_tokens=99)


def some_state(gram: bool = False) -> PassState:
    rng = np.random.default_rng(0)
    statistics = tuple(StreamingStatistics(size, gram) for size in (4, 8))
    for one, size in zip(statistics, (4, 8), strict=True):
        one.add(rng.normal(size=(30, size)).astype(np.float32))
    return PassState(position=POSITION, statistics=statistics)


def bits(state: PassState) -> list[dict[str, bytes]]:
    return [{k: v.tobytes() for k, v in one.state().items()} for one in state.statistics]


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def open_checkpoint(tmp_path, notes):
    def build(made_of=MADE_OF, every_s: float = 0.0) -> Checkpoint:
        return Checkpoint(tmp_path, made_of, every_s=every_s, note=notes.append)

    return build


def test_nothing_there_is_no_state_and_no_note(open_checkpoint, notes):
    assert open_checkpoint().load() is None
    assert notes == []


@pytest.mark.parametrize("gram", [False, True])
def test_a_state_comes_back_bit_for_bit(open_checkpoint, notes, tmp_path, gram):
    state = some_state(gram)
    open_checkpoint().save(state)
    found = open_checkpoint().load()
    assert found.position == POSITION
    assert bits(found) == bits(state)
    assert notes == []
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_FILE]


@pytest.mark.parametrize("kind", MADE_OF)
def test_another_origin_is_refused_by_name(open_checkpoint, notes, kind):
    open_checkpoint().save(some_state())
    assert open_checkpoint(MADE_OF | {kind: "other"}).load() is None
    (note,) = notes
    assert f"another {kind}" in note
    assert all(f"another {other}" not in note for other in MADE_OF if other != kind)


def test_what_the_other_pass_did_not_depend_on_counts_too(open_checkpoint, notes):
    open_checkpoint(MADE_OF | {"choice of settings": "e"}).save(some_state())
    assert open_checkpoint().load() is None
    assert "settings" in notes[0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: b"not a checkpoint",
        lambda data: data[:200] + bytes(64) + data[264:],
    ],
    ids=["truncated", "empty", "foreign", "overwritten"],
)
def test_a_damaged_file_is_refused_with_a_note(open_checkpoint, notes, damage):
    checkpoint = open_checkpoint()
    checkpoint.save(some_state())
    checkpoint.path.write_bytes(damage(checkpoint.path.read_bytes()))
    assert open_checkpoint().load() is None
    assert "damaged" in notes[0]


def test_a_file_without_one_of_its_arrays_is_refused(open_checkpoint, notes):
    checkpoint = open_checkpoint()
    checkpoint.save(some_state())
    with np.load(checkpoint.path) as stored:
        arrays = {name: stored[name] for name in stored.files if name != "1/sum"}
    np.savez(checkpoint.path, **arrays)
    assert open_checkpoint().load() is None
    assert len(notes) == 1


def test_it_is_not_written_before_its_time(open_checkpoint):
    patient, eager = open_checkpoint(every_s=3600.0), open_checkpoint()
    patient.save_if_due(some_state())
    assert not patient.path.exists()
    eager.save_if_due(some_state())
    assert eager.path.exists()


def test_writing_never_takes_most_of_the_time(open_checkpoint):
    eager = open_checkpoint()
    eager.save_if_due(some_state())
    first = eager.path.stat().st_mtime_ns
    eager.save_if_due(some_state())
    assert eager.path.stat().st_mtime_ns == first


def test_a_folder_that_is_gone_is_a_storage_error(tmp_path):
    checkpoint = Checkpoint(tmp_path / "gone", MADE_OF, note=print)
    with pytest.raises(StorageError, match="checkpoint"):
        checkpoint.save(some_state())


def test_removed_is_gone(open_checkpoint):
    checkpoint = open_checkpoint()
    checkpoint.save(some_state())
    checkpoint.remove()
    checkpoint.remove()
    assert not checkpoint.path.exists()
