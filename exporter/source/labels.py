"""Classes of training texts, read from a second field of the same file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from exporter.source.layouts import read_texts, text_file
from exporter.source.text_lines import existing_path, normalize_text
from exporter.values import TextLabels
from targets.errors import ConfigError, TextsError

_UNLABELLED = -1


def load_labels(source: str | None, texts: Sequence[str], *, field: str, label: str) -> TextLabels:
    """Find the label of each text.

    Texts without a label, with several, or with one that no other text has are left unlabelled:
    nothing can be told apart by them.

    Args:
        source: the file that the texts come from; None: the built-in ones, which have no labels.
        texts: what was taken of it.
        field: JSON field or column of the texts.
        label: that of the labels.

    Raises:
        ConfigError: the texts' layout has no fields.
        TextsError: the file is wrong, or fewer than two labels are left.
    """
    if source is None:
        raise ConfigError(
            f"--training-labels {label}: the built-in texts have no labels",
            hint="name a file with --training, or leave --training-labels out",
        )
    path = text_file(existing_path(source))
    if path.suffix.lower() == ".txt":
        raise ConfigError(
            f"--training-labels {label}: {path} holds texts only",
            why="a .txt file has one text per line and no fields",
            hint="give .jsonl, .csv, .tsv or .parquet, or leave --training-labels out",
        )
    by_text = _read(path, field, label)
    found = [by_text.get(normalize_text(text), "") for text in texts]
    counts = Counter(found)
    names = sorted({one for one in found if one and counts[one] > 1})
    if len(names) < 2:
        raise TextsError(
            f'{path}: the field "{label}" tells nothing apart',
            why=f"{len(names)} of its values belong to two texts or more; two are needed",
            hint="name the field of the labels, or leave --training-labels out",
        )
    number = {name: index for index, name in enumerate(names)}
    of_text = np.array([number.get(one, _UNLABELLED) for one in found], np.int64)
    return TextLabels(names=tuple(names), of_text=of_text)


def _read(path: Path, field: str, label: str) -> dict[str, str]:
    """Return normalized text → label, "" where its lines disagree."""
    labels = {one.number: one.text for one in read_texts(path, label)}
    found: dict[str, str] = {}
    for located in read_texts(path, field):
        text, own = normalize_text(located.text), labels.get(located.number, "")
        found[text] = own if found.get(text, own) == own else ""
    return found
