"""Texts of the user's own that artifacts are timed on: what is really embedded in service."""

from __future__ import annotations

from exporter.source.layouts import read_texts, text_file
from exporter.source.sampling import Reservoir
from exporter.source.text_lines import existing_path
from exporter.values import TextSet, fingerprint_texts
from targets.errors import TextsError

MAX_TEXTS = 2000
"""A seeded sample of a larger file has its lengths; only lengths and few texts are used."""


def load_workload(source: str, *, field: str = "text", seed: int) -> TextSet:
    """Read the texts of a workload from a file or folder in any layout of plain texts.

    Repeated texts stay: they are part of what is embedded in service.

    Args:
        source: file or folder.
        field: JSON field or column that holds the text.
        seed: chooses the sample of a file with more than `MAX_TEXTS` texts.

    Raises:
        TextsError: if the source is missing, wrong or has no texts; names it.
    """
    path = text_file(existing_path(source))
    reservoir: Reservoir[str] = Reservoir(MAX_TEXTS, seed)
    for located in read_texts(path, field):
        reservoir.offer(f"{located.number} {located.text}", located.text)
    texts = reservoir.sample()
    if not texts:
        raise TextsError(
            f"{path} has no texts to time",
            why="it is empty or all its texts are blank",
            hint="give --workload a file with texts, or queries, documents or mixed",
        )
    sampled = len(texts) < reservoir.offered
    origin = f"{source} ({len(texts)} of {reservoir.offered} texts, seed {seed})"
    return TextSet(
        name=path.stem,
        origin=origin if sampled else source,
        texts=tuple(texts),
        sha256=fingerprint_texts(texts),
    )
