"""Normalization and sampling hold for any texts, orders and chunks."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import example, given, settings
from hypothesis import strategies as st

from exporter.source.corpus import load_calibration
from exporter.source.sampling import Reservoir, seeded_rank
from exporter.source.text_lines import normalize_text

# No control characters: a line end or NUL inside a text is another test's matter.
WORDS = st.text(st.characters(exclude_categories=("C", "Zl", "Zp")), min_size=1, max_size=12)


def sample(keys: list[str], size: int, seed: int) -> list[str]:
    reservoir: Reservoir[str] = Reservoir(size, seed)
    for key in keys:
        reservoir.offer(key, key)
    return reservoir.sample()


# Folding can leave marks in an order that is no longer canonical.
@example("\u1fac\u0300")
@example("\u08f1\u1fac\u0300\u212b")
@given(st.text())
def test_normalizing_twice_changes_nothing(text: str) -> None:
    once = normalize_text(text)
    assert normalize_text(once) == once


@given(st.lists(WORDS, min_size=1), st.sampled_from([" ", "\t", "\n", "\u00a0", "  "]))
def test_whitespace_between_words_does_not_matter(words: list[str], gap: str) -> None:
    assert normalize_text(f" {gap.join(words)}{gap}") == normalize_text(" ".join(words))


@given(st.text())
def test_ascii_shortcut_agrees_with_the_long_way(text: str) -> None:
    ascii_only = text.encode("ascii", "ignore").decode()
    # A character that vanishes under normalization makes the text take the long way.
    assert normalize_text(ascii_only) == normalize_text("\u3000" + ascii_only)


@given(
    st.lists(st.integers(0, 60).map(str), max_size=200), st.integers(1, 40), st.integers(0, 2**32)
)
def test_sample_is_the_distinct_keys_of_lowest_rank(keys: list[str], size: int, seed: int) -> None:
    distinct = list(dict.fromkeys(keys))
    lowest = sorted(distinct, key=lambda key: seeded_rank(seed, "sample", key))[:size]
    assert sample(keys, size, seed) == [key for key in distinct if key in lowest]


@given(
    st.lists(st.integers(0, 60).map(str), max_size=100),
    st.integers(1, 40),
    st.integers(0, 99),
    st.randoms(use_true_random=False),
)
def test_choice_does_not_hang_on_the_order(
    keys: list[str], size: int, seed: int, shuffler: random.Random
) -> None:
    other = list(keys)
    shuffler.shuffle(other)
    assert set(sample(keys, size, seed)) == set(sample(other, size, seed))


@settings(max_examples=20, deadline=None)
@given(
    st.lists(WORDS.filter(str.strip), min_size=1, max_size=60),
    st.integers(1, 30),
    st.integers(1, 50),
)
def test_sample_does_not_hang_on_layout_or_chunks(
    texts: list[str], size: int, rows_per_group: int
) -> None:
    size = min(size, len({normalize_text(text) for text in texts}))
    with tempfile.TemporaryDirectory() as folder:
        lines, table = Path(folder, "t.txt"), Path(folder, "t.parquet")
        lines.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        pq.write_table(pa.table({"text": texts}), table, row_group_size=rows_per_group)
        one, other = (load_calibration(str(p), num_samples=size, seed=1) for p in (lines, table))
    assert one.texts == other.texts
    assert one.sha256 == other.sha256


def test_every_text_has_the_same_chance() -> None:
    keys = [str(i) for i in range(40)]
    taken = [0] * 40
    for seed in range(2000):
        for key in sample(keys, 10, seed):
            taken[int(key)] += 1
    # 500 expected of each, standard deviation 19.4: five of them.
    assert all(abs(count - 500) < 97 for count in taken)
