"""BEIR folders: `corpus.jsonl`, `queries.jsonl`, `qrels/*.tsv` (Thakur et al., BEIR, 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from exporter.source.evaluation_sets import (
    EvaluationSources,
    Split,
    join_notes,
    label_value,
    make_evaluation_set,
    make_judgements,
)
from exporter.source.json_lines import identifier, read_json_lines
from exporter.source.layouts import CORPUS_FILE, record_text
from exporter.source.text_lines import place, read_lines, shown
from exporter.values import EvaluationSet
from targets.errors import TextsError

_QUERIES_FILE = "queries.jsonl"
_DEV_QUERIES_FILE = "dev.queries.jsonl"
_QRELS_PREFERENCE = ("test.tsv", "dev.tsv", "validation.tsv", "train.tsv")
_HEADER = ("query-id", "corpus-id", "score")


class Judgement(NamedTuple):
    """One line of a qrels file."""

    number: int
    query_id: str
    document_id: str
    gain: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """The texts of a corpus or of queries, ids in file order.

    Args:
        path: where they were read.
        place: id → index into `texts`.
        numbers: line of each text.
        texts: texts, stripped; may be empty.
    """

    path: Path
    place: dict[str, int]
    numbers: tuple[int, ...]
    texts: tuple[str, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids in file order."""
        return tuple(self.place)


def is_beir_folder(folder: Path) -> bool:
    """Tell whether a folder has a corpus with queries or judgements."""
    labelled = (folder / _QUERIES_FILE).is_file() or (folder / "qrels").is_dir()
    return (folder / CORPUS_FILE).is_file() and labelled


def load_beir(folder: Path) -> EvaluationSources:
    """Read a BEIR folder; `qrels/dev.tsv` beside `qrels/test.tsv` becomes the dev split.

    Raises:
        TextsError: if a file is missing or wrong, ids repeat, or judgements point nowhere.
    """
    main_qrels = _choose_qrels(folder)
    dev_qrels = folder / "qrels" / "dev.tsv"
    ships_dev = main_qrels.name == "test.tsv" and dev_qrels.is_file()
    corpus = read_entries(folder / CORPUS_FILE)
    queries = read_entries(folder / _QUERIES_FILE)
    main = _labelled_set(folder, corpus, queries, main_qrels, "test" if ships_dev else "all")
    if not ships_dev:
        return EvaluationSources(all_or_test=main)
    dev_file = folder / _DEV_QUERIES_FILE
    dev_queries = read_entries(dev_file) if dev_file.is_file() else queries
    dev = _labelled_set(folder, corpus, dev_queries, dev_qrels, "dev")
    return EvaluationSources(all_or_test=main, dev=dev)


def _choose_qrels(folder: Path) -> Path:
    """Return test.tsv, else the first of the other usual names, else the only file."""
    files = {path.name: path for path in sorted((folder / "qrels").glob("*.tsv"))}
    usual = [name for name in _QRELS_PREFERENCE if name in files]
    if usual:
        return files[usual[0]]
    if len(files) == 1:
        return next(iter(files.values()))
    raise TextsError(
        f"{folder / 'qrels'} has no test.tsv",
        why="it holds " + ", ".join(files) if files else "it holds no .tsv file",
        hint="put the judgements into qrels/test.tsv (tab-separated: " + ", ".join(_HEADER) + ")",
    )


def read_entries(path: Path) -> Entries:
    """Read `corpus.jsonl` or `queries.jsonl`: `_id`, `text` and, for documents, `title`.

    Raises:
        TextsError: if the file is missing, empty or malformed, or an id comes twice.
    """
    place_of: dict[str, int] = {}
    numbers: list[int] = []
    texts: list[str] = []
    for number, record in read_json_lines(path):
        entry_id = identifier(path, number, record, "_id")
        if entry_id in place_of:
            raise TextsError(
                f"{place(path, number)}: the id {shown(entry_id)} comes twice",
                why=f"line {numbers[place_of[entry_id]]} has it too",
                hint="give every line an id of its own",
            )
        place_of[entry_id] = len(texts)
        numbers.append(number)
        texts.append(record_text(path, number, record))
    if not texts:
        raise TextsError(f"{path} is empty", hint="give one JSON object with _id and text per line")
    return Entries(path=path, place=place_of, numbers=tuple(numbers), texts=tuple(texts))


# --------------------------------------------------------------------------------- qrels


def read_qrels(path: Path) -> list[Judgement]:
    """Read the judgements of a qrels file, those with a score of 0 or less included.

    Raises:
        TextsError: if a line has not three cells or its score is not a number.
    """
    judgements = []
    for number, line in read_lines(path):
        cells = [cell.strip() for cell in line.split("\t")]
        if not any(cells) or (number == 1 and _is_header(cells)):
            continue
        judgements.append(_judgement(path, number, cells))
    return judgements


def _is_header(cells: Sequence[str]) -> bool:
    return len(cells) == len(_HEADER) and _score(cells[-1]) is None


def _judgement(path: Path, number: int, cells: Sequence[str]) -> Judgement:
    gain = _score(cells[-1])
    if len(cells) != len(_HEADER) or gain is None:
        raise TextsError(
            f"{place(path, number)} is not a judgement: {shown(' | '.join(cells))}",
            why=f"it has {len(cells)} tab-separated cells"
            if len(cells) != len(_HEADER)
            else f"the score {shown(cells[-1])} is not a number",
            hint="each line has three cells separated by tabs: " + ", ".join(_HEADER),
        )
    return Judgement(number, cells[0], cells[1], gain)


def _score(cell: str) -> float | None:
    try:
        return label_value(float(cell))
    except ValueError:
        return None


def _check_ids(
    path: Path, judgements: Sequence[Judgement], corpus: Entries, queries: Entries
) -> None:
    lost_queries = [j for j in judgements if j.query_id not in queries.place]
    lost_documents = [j for j in judgements if j.document_id not in corpus.place]
    counts = (
        f"{len(lost_queries)} judgements point to unknown queries and "
        f"{len(lost_documents)} to unknown documents"
    )
    if lost_queries:
        first = lost_queries[0]
        raise _points_nowhere(path, first.number, f"query {shown(first.query_id)}", counts, queries)
    if lost_documents:
        first = lost_documents[0]
        lost = f"document {shown(first.document_id)}"
        raise _points_nowhere(path, first.number, lost, counts, corpus)


def _points_nowhere(
    path: Path, number: int, lost: str, counts: str, entries: Entries
) -> TextsError:
    return TextsError(
        f"{place(path, number)}: there is no {lost}",
        why=f"{counts}; {entries.path.name} has {len(entries.texts)} ids",
        hint=f"take the qrels that belong to {entries.path.name}, or remove these lines",
    )


# ---------------------------------------------------------------------------- the set


def _labelled_set(
    folder: Path, corpus: Entries, queries: Entries, qrels: Path, split: Split
) -> EvaluationSet:
    judged = read_qrels(qrels)
    relevant = [judgement for judgement in judged if judgement.gain > 0]
    _check_ids(qrels, relevant, corpus, queries)
    gains = _highest_gains(relevant)
    if not gains:
        raise TextsError(
            f"{qrels} leaves no judgements",
            why=f"{len(judged)} lines, none with a score above 0",
            hint="give at least one line with a positive score",
        )
    judged_ids = {query_id for query_id, _ in gains}
    chosen = [i for i, query_id in enumerate(queries.ids) if query_id in judged_ids]
    _check_queries_have_text(queries, chosen)
    new_place = {queries.ids[i]: new for new, i in enumerate(chosen)}
    return make_evaluation_set(
        name=folder.resolve().name,
        origin=str(qrels),
        split=split,
        query_ids=[queries.ids[i] for i in chosen],
        queries=[queries.texts[i] for i in chosen],
        document_ids=corpus.ids,
        documents=corpus.texts,
        judgements=make_judgements(
            (new_place[q], corpus.place[d], gain) for (q, d), gain in gains.items()
        ),
        note=join_notes(
            _dropped_note(judged, relevant, gains),
            _unjudged_note(len(queries.texts) - len(chosen), qrels),
            _empty_note(corpus),
        ),
    )


def _highest_gains(relevant: Sequence[Judgement]) -> dict[tuple[str, str], float]:
    gains: dict[tuple[str, str], float] = {}
    for judgement in relevant:
        key = (judgement.query_id, judgement.document_id)
        gains[key] = max(judgement.gain, gains.get(key, 0.0))
    return gains


def _check_queries_have_text(queries: Entries, chosen: Sequence[int]) -> None:
    for i in chosen:
        if not queries.texts[i]:
            raise TextsError(
                f"{place(queries.path, queries.numbers[i])}: the query is empty",
                why="the judgements name it, and an empty query finds nothing",
                hint="give it a text, or remove it and its judgements",
            )


def _dropped_note(
    judged: Sequence[Judgement],
    relevant: Sequence[Judgement],
    gains: dict[tuple[str, str], float],
) -> str:
    irrelevant, repeated = len(judged) - len(relevant), len(relevant) - len(gains)
    return join_notes(
        f"judgements with a score of 0 or less left out: {irrelevant}" if irrelevant else "",
        f"repeated judgements left out (the highest score counts): {repeated}" if repeated else "",
    )


def _unjudged_note(unjudged: int, qrels: Path) -> str:
    if not unjudged:
        return ""
    return f"queries without relevant documents in {qrels.name} left out: {unjudged}"


def _empty_note(corpus: Entries) -> str:
    empty = [entry_id for entry_id, text in zip(corpus.ids, corpus.texts, strict=True) if not text]
    if not empty:
        return ""
    listed = ", ".join(empty[:5]) + (", …" if len(empty) > 5 else "")
    return f"empty documents kept and embedded as the empty text: {len(empty)} (ids {listed})"
