"""What every training step sees: frames stay, tokens are replaced, classes go with whole texts."""

from __future__ import annotations

import numpy as np
import pytest

from exporter.optimize.training_batches import TrainingBatch, frame_of, make_batches
from targets.contract import TokenSequences

FIRST, LAST, PAD = 1, 2, 0
OWN, OTHERS = range(10, 60), np.arange(100, 200)
TEXTS = [[FIRST, 10 + i % 50, 11 + (i * 3) % 40, LAST] for i in range(50)]


def batches(**changed: object) -> list[TrainingBatch]:
    settings = {
        "num_steps": 200,
        "batch_tokens": 64,
        "max_length": 128,
        "vocabulary": OTHERS,
        "seed": 0,
        **changed,
    }
    return make_batches(TokenSequences.from_lists(TEXTS, PAD), **settings)


def texts_of(found: list[TrainingBatch]) -> list[list[int]]:
    return [
        [int(one) for one in batch.tokens[at]] for batch in found for at in range(len(batch.tokens))
    ]


def test_the_frame_is_what_all_texts_share():
    frame = frame_of(TokenSequences.from_lists(TEXTS, PAD))
    assert (frame.front, frame.back) == (1, 1)


def test_tokens_are_replaced_and_frames_stay():
    found = texts_of(batches())
    for text in found:
        assert text[0] == FIRST and text[-1] == LAST
        assert all(one in OWN or one in OTHERS for one in text[1:-1])
    long = [text for text in found if len(text) > 30]
    shares = np.array([np.mean([one in OTHERS for one in text[1:-1]]) for text in long])
    untouched, whole = (shares == 0).mean(), (shares == 1).mean()
    assert 0.15 < untouched < 0.35 and 0.15 < whole < 0.35
    assert 0.35 < np.mean((shares > 0) & (shares < 1)) < 0.65


def test_without_a_vocabulary_texts_keep_their_tokens():
    found = texts_of(batches(vocabulary=np.zeros(0, np.int64)))
    assert all(one in OWN for text in found for one in text[1:-1])


def test_some_steps_join_texts_and_none_exceeds_the_limit():
    lengths = [len(text) for text in texts_of(batches())]
    assert max(lengths) > 64 and min(lengths) == 4
    assert max(len(text) for text in texts_of(batches(max_length=40))) <= 40


def test_classes_go_with_texts_that_are_left_as_they_are():
    of_text = np.arange(50) % 7
    found = batches(classes=of_text)
    known = {tuple(text): of_text[at] for at, text in enumerate(TEXTS)}
    labelled = 0
    for batch in found:
        for at, one in enumerate(batch.classes):
            text = tuple(int(token) for token in batch.tokens[at])
            if one >= 0:
                assert known[text] == one
                labelled += 1
            else:
                assert text not in known or len(text) > 4
    assert labelled > 100
    assert all((batch.classes == -1).all() for batch in batches())


def test_the_seed_decides():
    first, again, other = (texts_of(batches(seed=seed)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


@pytest.mark.parametrize("num_steps", [0, 3])
def test_there_is_one_batch_for_each_step(num_steps):
    assert len(batches(num_steps=num_steps)) == num_steps
