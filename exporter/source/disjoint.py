"""The proof that calibration, development and test texts share nothing."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.source.text_lines import normalize_text, shown
from exporter.values import EvaluationSet, EvaluationSplits, TextSet
from targets.errors import TextsError


def evaluation_texts(splits: EvaluationSplits) -> frozenset[str]:
    """Return every normalized text of both splits: what calibration must not use."""
    sets = [splits.test] if splits.dev is None else [splits.dev, splits.test]
    return frozenset(key for one in sets for key, _ in _locate(one, documents=True))


def assert_disjoint(calibration: TextSet, splits: EvaluationSplits) -> None:
    """Prove that calibration, development and test share no normalized text.

    Documents of development and test are compared unless both search one index. Empty texts
    say nothing and are not compared.

    Raises:
        TextsError: naming the first text that is in two of them, and where.
    """
    calibrated = {
        normalize_text(text): f"text {number} of the calibration texts {calibration.origin}"
        for number, text in enumerate(calibration.texts, start=1)
    }
    _refuse_common(calibrated, splits.test, documents=True)
    if splits.dev is None:
        return
    _refuse_common(calibrated, splits.dev, documents=True)
    documents = not splits.shared_documents
    _refuse_common(dict(_locate(splits.dev, documents=documents)), splits.test, documents=documents)


def _locate(one: EvaluationSet, *, documents: bool) -> Iterator[tuple[str, str]]:
    """Yield every normalized text that is not empty, with where it is."""
    kinds = [("query", one.query_ids, one.queries)]
    if documents:
        kinds.append(("document", one.document_ids, one.documents))
    for kind, ids, texts in kinds:
        for text_id, text in zip(ids, texts, strict=True):
            if key := normalize_text(text):
                yield key, f"{kind} {shown(text_id)} of the {one.split} split of {one.origin}"


def _refuse_common(places: dict[str, str], other: EvaluationSet, *, documents: bool) -> None:
    for key, where in _locate(other, documents=documents):
        if key in places:
            raise TextsError(
                f"{shown(key)} is in two sets that must not share a text",
                why=f"it is {places[key]} and {where}",
                hint="remove it from one of them",
            )
