"""The texts that several bundles are compared on, and bundles that cannot be compared."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from opened import opened

from exporter.config import Settings
from exporter.progress import SilentReporter
from exporter.source.corpus import load_evaluation
from exporter.source.splits import split_evaluation
from exporter.steps import common_texts
from exporter.steps.common_texts import common_evaluation, require_one_model
from exporter.steps.workspace import Workspace
from targets.contract import TokenSequences
from targets.errors import TextsError, UsageError


@pytest.fixture(autouse=True)
def _tokens(monkeypatch):
    def encode(texts):
        return TokenSequences.from_lists([[1, 2, 3] for _ in texts], 0)

    monkeypatch.setattr(common_texts, "load_tokenizer", lambda spec: SimpleNamespace(encode=encode))


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(f"text number {i}" for i in range(300)))
    return path


def split(path, choose: bool):
    return split_evaluation(load_evaluation(str(path)), seed=0, choose=choose)


def certified(path, *, choose: bool, name: str):
    """A bundle that was certified on a file: on its test split, or on all of it."""
    found = split(path, choose)
    return opened(
        name,
        test=found.test.sha256,
        dev=found.dev.sha256 if found.dev else None,
        eval=str(path),
        seed="0",
    )


def evaluated(bundles, **settings):
    work = Workspace(settings=Settings(**settings), cache=None, reporter=SilentReporter())
    return common_evaluation(work, bundles).texts


def test_bundles_of_one_set_are_compared_on_it(texts):
    both = [certified(texts, choose=True, name=name) for name in "ab"]
    assert evaluated(both).sha256 == split(texts, True).test.sha256
    forced = [certified(texts, choose=False, name=name) for name in "ab"]
    assert evaluated(forced).sha256 == split(texts, False).test.sha256


@pytest.mark.parametrize("turned", [False, True])
def test_what_chose_one_of_them_certifies_nobody(texts, turned):
    """One recipe was forced and certified on everything; the other's was chosen on a part."""
    both = [certified(texts, choose=True, name="a"), certified(texts, choose=False, name="b")]
    found = evaluated(both[::-1] if turned else both)
    assert found.sha256 == split(texts, True).test.sha256
    assert len(found.documents) < 300


def test_different_sets_are_named(texts, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("\n".join(f"another {i}" for i in range(300)))
    both = [certified(texts, choose=True, name="a"), certified(other, choose=True, name="b")]
    with pytest.raises(UsageError, match="certified on different evaluation sets") as caught:
        evaluated(both)
    assert "a: " in caught.value.why
    assert "b: " in caught.value.why
    assert "--eval" in caught.value.hint


def test_texts_that_changed_since_are_refused(texts):
    bundle = certified(texts, choose=True, name="a")
    texts.write_text(texts.read_text() + "\none more")
    with pytest.raises(UsageError, match="not here as they were"):
        evaluated([bundle])


def test_texts_that_are_gone_say_what_to_do(texts):
    bundle = certified(texts, choose=True, name="a")
    texts.unlink()
    with pytest.raises(
        TextsError, match="the texts that a was certified on cannot be read"
    ) as caught:
        evaluated([bundle])
    assert "--eval" in caught.value.hint


def test_a_named_set_is_taken_whole_whatever_certified(texts, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("\n".join(f"another {i}" for i in range(50)))
    bundles = [certified(texts, choose=True, name="a")]
    assert len(evaluated(bundles, eval=str(other)).documents) == 50
    assert evaluated(bundles, eval="builtin").name == "builtin"


def test_a_set_too_small_to_divide_was_never_divided(tmp_path):
    path = tmp_path / "few.txt"
    path.write_text("one\ntwo")
    bundle = certified(path, choose=False, name="a")
    assert len(evaluated([bundle]).documents) == 2


@pytest.mark.parametrize(("changes", "said"), [
    ({"weights_sha256": "9" * 64}, "weights"),
    ({"pooling": "cls", "normalize": False}, "pooling, normalization"),
    ({"max_seq_length": 128}, "longest input"),
    ({"default_prompt": "query: "}, "prompt"),
])  # fmt: skip
def test_bundles_of_different_models_are_refused(changes, said):
    require_one_model([opened("a"), opened("b")])
    with pytest.raises(UsageError, match="a and b are bundles of different models") as caught:
        require_one_model([opened("a"), opened("b", model=changes)])
    assert caught.value.why.endswith(f"differ in: {said}")
