"""Calibration and evaluation texts: where they come from and which of them are taken."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from exporter.source.beir import is_beir_folder, load_beir
from exporter.source.builtin import builtin_evaluation
from exporter.source.builtin_texts import builtin_texts_file
from exporter.source.evaluation_sets import EvaluationSources, join_notes, make_evaluation_set
from exporter.source.layouts import LocatedText, read_texts, text_file
from exporter.source.pairs import PAIRS_FILE, holds_pairs, load_pairs
from exporter.source.sampling import Reservoir
from exporter.source.text_lines import existing_path, normalize_text, place, shown
from exporter.values import EvaluationSet, TextSet, fingerprint_texts
from targets.contract import Progress, no_progress
from targets.errors import TextsError

__all__ = [
    "MIN_CALIBRATION_TEXTS",
    "EvaluationSources",
    "load_calibration",
    "load_evaluation",
    "normalize_text",
]

MIN_CALIBRATION_TEXTS = 100
"""With fewer texts the tail of the cosine drift was measured to be bad
(all-MiniLM-L6-v2, NNCF int8)."""

_PROGRESS_EVERY = 4096


def load_calibration(
    source: str | None,
    *,
    field: str = "text",
    num_samples: int,
    seed: int,
    exclude: Collection[str] = (),
    progress: Progress = no_progress,
) -> TextSet:
    """Sample calibration texts from a file, a BEIR folder or the built-in texts.

    Streams: memory grows with `num_samples`, not with the file. Blank texts and texts whose
    normalized form came before are left out; which texts are chosen depends on the seed and
    the texts alone, and they keep the file's order.

    Args:
        source: file or folder; None: the built-in texts.
        field: JSON field or column that holds the text.
        num_samples: texts to take at most; all where there are fewer.
        seed: chooses the sample.
        exclude: normalized texts that must not be used (the evaluation texts). The built-in
            texts leave them out; in a user's file they are an error.
        progress: told how many texts were read.

    Raises:
        TextsError: if the source is missing or wrong, has too few texts, or shares a text
            with `exclude`; names file and line.
    """
    if num_samples < 1:
        raise TextsError(
            f"{num_samples} calibration texts were asked for",
            hint=f"take --num-samples of {MIN_CALIBRATION_TEXTS} or more",
        )
    reservoir: Reservoir[str] = Reservoir(num_samples, seed)
    exclude = frozenset(exclude)
    if source is None:
        _offer_builtin(reservoir, exclude, progress)
        return _text_set(reservoir, "builtin", "built-in calibration texts", num_samples, seed)
    given = existing_path(source)
    path = text_file(given)
    _offer_all(reservoir, path, field, exclude, progress)
    name = given.resolve().name if given.is_dir() else path.stem
    return _text_set(reservoir, name, str(path), num_samples, seed)


def _offer_builtin(reservoir: Reservoir[str], exclude: Collection[str], progress: Progress) -> None:
    with builtin_texts_file() as path:
        for key, located in _normalized(path, "text", progress):
            if key not in exclude:
                reservoir.offer(key, located.text)


def _offer_all(
    reservoir: Reservoir[str],
    path: Path,
    field: str,
    exclude: Collection[str],
    progress: Progress,
) -> None:
    for key, located in _normalized(path, field, progress):
        if key in exclude:
            raise TextsError(
                f"{place(path, located.number)}: {shown(located.text)} is an evaluation text too",
                why="texts that calibrated an artifact cannot certify it",
                hint="remove it from one of the two, give other texts with --calibration, or "
                "leave --calibration out to use the built-in texts",
            )
        reservoir.offer(key, located.text)


def _normalized(path: Path, field: str, progress: Progress) -> Iterator[tuple[str, LocatedText]]:
    for count, located in enumerate(read_texts(path, field), start=1):
        yield normalize_text(located.text), located
        if count % _PROGRESS_EVERY == 0:
            progress(count)


def _text_set(
    reservoir: Reservoir[str], name: str, origin: str, num_samples: int, seed: int
) -> TextSet:
    texts = reservoir.sample()
    needed = min(MIN_CALIBRATION_TEXTS, num_samples)
    if len(texts) < needed:
        raise TextsError(
            f"{origin}: {len(texts)} different texts found, calibration needs {needed}",
            why=f"{reservoir.offered} texts were read, repeated ones count once; with fewer than "
            f"about {MIN_CALIBRATION_TEXTS} the rare large activations are not seen and the "
            "embeddings of unusual texts drift",
            hint="give a file with more texts, or leave --calibration out to use the built-in ones",
        )
    if len(texts) < reservoir.offered:
        origin = f"{origin} ({len(texts)} of {reservoir.offered} texts, seed {seed})"
    return TextSet(name=name, origin=origin, texts=tuple(texts), sha256=fingerprint_texts(texts))


def load_evaluation(source: str | None, *, field: str = "text") -> EvaluationSources:
    """Read evaluation texts: labelled retrieval, similarity pairs, plain texts or the built-in.

    Args:
        source: a BEIR folder, a `.jsonl` file or folder with pairs, a file with plain texts
            in any layout of the calibration texts; None: the built-in set.
        field: JSON field or column of plain texts.

    Raises:
        TextsError: if the source is missing or wrong; names file and line.
    """
    if source is None:
        return EvaluationSources(all_or_test=builtin_evaluation(), own_documents=True)
    path = existing_path(source)
    if path.is_dir():
        return _load_folder(path, field)
    if path.suffix.lower() == ".jsonl" and holds_pairs(path):
        return EvaluationSources(all_or_test=load_pairs(path, path.stem))
    return EvaluationSources(all_or_test=_load_plain(path, path.stem, field))


def _load_folder(folder: Path, field: str) -> EvaluationSources:
    name = folder.resolve().name
    if is_beir_folder(folder):
        return load_beir(folder)
    if (folder / PAIRS_FILE).is_file():
        return EvaluationSources(all_or_test=load_pairs(folder / PAIRS_FILE, name))
    return EvaluationSources(all_or_test=_load_plain(text_file(folder), name, field))


def _load_plain(path: Path, name: str, field: str) -> EvaluationSet:
    distinct: dict[str, LocatedText] = {}
    count = 0
    for located in read_texts(path, field):
        count += 1
        distinct.setdefault(normalize_text(located.text), located)
    if not distinct:
        raise TextsError(
            f"{path} has no texts",
            why="it is empty or all its texts are blank",
            hint="give a file with texts, or leave --eval out to use the built-in set",
        )
    repeated = count - len(distinct)
    return make_evaluation_set(
        name=name,
        origin=str(path),
        document_ids=[str(located.number) for located in distinct.values()],
        documents=[located.text for located in distinct.values()],
        note=join_notes(
            "no labels: each text is a query against the others",
            f"repeated texts left out: {repeated}" if repeated else "",
        ),
    )
