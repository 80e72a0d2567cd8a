"""Texts and their tokens: calibration, development and test, proven disjoint."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporter.config import Settings
from exporter.optimize.workloads import EVALUATION_WORKLOADS
from exporter.steps.training_texts import (
    TrainingTexts,
    load_training,
    save_training,
    training_source,
)
from exporter.steps.workspace import Workspace
from exporter.values import (
    EncoderSpec,
    EvaluationSet,
    Judgements,
    ScoredPairs,
    TextSet,
    TextsSummary,
)
from targets.contract import Progress, TokenSequences
from targets.errors import TextsError
from targets.hashing import sha256_file

if TYPE_CHECKING:
    from exporter.source.tokenizer import TextTokenizer

_MOST_TRAINING_TEXTS = 20_000
"""More than ten minutes of training on two cores see."""
_ARRAYS: Mapping[str, type[Judgements] | type[ScoredPairs]] = {
    "judgements": Judgements,
    "pairs": ScoredPairs,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizedEvaluation:
    """An evaluation set with the tokens of its queries and documents."""

    texts: EvaluationSet
    queries: TokenSequences
    documents: TokenSequences

    @property
    def summary(self) -> TextsSummary:
        """The set as the report names it."""
        both = [self.queries, self.documents]
        return _summary(
            name=f"{self.texts.name} ({self.texts.split})",
            origin=self.texts.origin,
            sha256=self.texts.sha256,
            tokens=both,
            num_queries=len(self.queries),
            num_documents=len(self.documents),
            note=self.texts.note,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """All texts of one run as tokens; `dev` is None when nothing is chosen.

    `workload` are the texts of the user's own that are timed; None: those of the evaluation.
    `training` are those of quantization-aware training; None: it cannot be asked for.
    """

    calibration: TokenSequences
    calibration_summary: TextsSummary
    dev: TokenizedEvaluation | None
    test: TokenizedEvaluation
    workload: TokenSequences | None = None
    workload_summary: TextsSummary | None = None
    training: TrainingTexts | None = None

    @property
    def evaluations(self) -> tuple[TokenizedEvaluation, ...]:
        """All that is embedded and judged: dev where something is chosen, and test."""
        return (self.test,) if self.dev is None else (self.dev, self.test)


def prepare_texts(work: Workspace, spec: EncoderSpec) -> Texts:
    """Read, split, prove disjoint and tokenize; cached by the content of what is read.

    Raises:
        TextsError: a file is wrong, there are too few texts, or calibration and
            evaluation share one.
    """
    workload = _prepare_workload(work, spec)  # first: a wrong name costs no work
    texts = _prepare_splits(work, spec)
    if workload is None:
        return texts
    tokens, summary = workload
    return replace(texts, workload=tokens, workload_summary=summary)


def _prepare_workload(
    work: Workspace, spec: EncoderSpec
) -> tuple[TokenSequences, TextsSummary] | None:
    settings = work.settings
    if settings.workload in EVALUATION_WORKLOADS:
        return None

    def build(folder: Path, _: Progress) -> None:
        from exporter.source.tokenizer import load_tokenizer
        from exporter.source.workload import load_workload

        texts = load_workload(settings.workload, field=settings.field, seed=settings.seed)
        tokens = load_tokenizer(spec).encode(texts.texts)
        tokens.save(folder / "workload.npz")
        _write(folder / "workload.json", asdict(_plain_summary(texts, tokens)))

    parts = (
        settings.workload,
        _source_fingerprint(str(_workload_path(settings.workload))),
        settings.field,
        settings.seed,
        *_tokenizing(spec),
    )
    folder = work.cached("workload", "read and tokenize the workload", parts, build)
    summary = TextsSummary(**json.loads((folder / "workload.json").read_text("utf-8")))
    return TokenSequences.load(folder / "workload.npz"), summary


def _workload_path(name: str) -> Path:
    """Return the file or folder of a workload.

    Raises:
        TextsError: there is none; names the nearest word or neighbour.
    """
    from exporter.source.text_lines import existing_path

    try:
        return existing_path(name)
    except TextsError as error:
        close = difflib.get_close_matches(name, EVALUATION_WORKLOADS, n=1)
        raise TextsError(
            f"--workload {name}: neither {', '.join(EVALUATION_WORKLOADS)} nor a file",
            why=error.what,
            hint=f"did you mean {close[0]!r}?" if close else error.hint,
        ) from error


def _tokenizing(spec: EncoderSpec) -> tuple[object, ...]:
    """Everything of the model that tokens depend on."""
    return spec.tokenizer_sha256, spec.max_seq_length, spec.default_prompt


def _prepare_splits(work: Workspace, spec: EncoderSpec) -> Texts:
    settings = work.settings
    parts = (
        _source_fingerprint(settings.calibration),
        _source_fingerprint(settings.eval),
        settings.field,
        settings.num_samples,
        settings.seed,
        settings.precision == "auto",
        trains(settings)
        and ["training", _source_fingerprint(training_source(settings)), settings.training_labels],
        *_tokenizing(spec),
    )
    folder = work.cached(
        "texts",
        "read, split and tokenize texts",
        parts,
        lambda into, progress: _build(work, spec, into, progress),
    )
    return _load(folder)


def trains(settings: Settings) -> bool:
    """Say whether quantization-aware training may come up in a run."""
    return settings.qat or settings.policy.on_failure == "qat"


def _source_fingerprint(source: str | None) -> object:
    """Hash what a source holds; the built-in texts depend on this Python's library."""
    if source is None:
        return ["built-in", sys.version]
    path = Path(source)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [(file.name, sha256_file(file)) for file in files if file.is_file()] or source


def _build(work: Workspace, spec: EncoderSpec, folder: Path, progress: Progress) -> None:
    from exporter.source.corpus import load_calibration, load_evaluation
    from exporter.source.splits import assert_disjoint, evaluation_texts, split_evaluation
    from exporter.source.tokenizer import load_tokenizer

    settings = work.settings
    sources = load_evaluation(settings.eval, field=settings.field)
    splits = split_evaluation(sources, seed=settings.seed, choose=settings.precision == "auto")
    sets = [split for split in (splits.dev, splits.test) if split is not None]
    calibration = load_calibration(
        settings.calibration,
        field=settings.field,
        num_samples=settings.num_samples,
        seed=settings.seed,
        exclude=evaluation_texts(splits),
    )
    assert_disjoint(calibration, splits)
    tokenizer = load_tokenizer(spec)
    tokens = tokenizer.encode(calibration.texts)
    tokens.save(folder / "calibration.npz")
    _write(folder / "calibration.json", asdict(_plain_summary(calibration, tokens)))
    if trains(settings):
        training = load_calibration(
            training_source(settings),
            field=settings.field,
            num_samples=_MOST_TRAINING_TEXTS,
            seed=settings.seed,
            exclude=evaluation_texts(splits),
        )
        assert_disjoint(training, splits)
        save_training(_with_labels(settings, training, tokenizer), folder)
    for number, evaluation in enumerate(sets):
        into = folder / ("test" if evaluation is splits.test else "dev")
        into.mkdir()
        made = TokenizedEvaluation(
            texts=evaluation,
            queries=tokenizer.encode(evaluation.queries),
            documents=tokenizer.encode(evaluation.documents),
        )
        save_tokenized(made, into)
        progress(number + 1, len(sets))


def _with_labels(settings: Settings, training: TextSet, tokenizer: TextTokenizer) -> TrainingTexts:
    from exporter.source.labels import load_labels

    tokens, labels = tokenizer.encode(training.texts), None
    if settings.training_labels is not None:
        labels = load_labels(
            training_source(settings),
            training.texts,
            field=settings.field,
            label=settings.training_labels,
        )
    return TrainingTexts(tokens=tokens, summary=_plain_summary(training, tokens), labels=labels)


def _plain_summary(texts: TextSet, tokens: TokenSequences) -> TextsSummary:
    return _summary(name=texts.name, origin=texts.origin, sha256=texts.sha256, tokens=[tokens])


def _summary(
    *,
    name: str,
    origin: str,
    sha256: str,
    tokens: list[TokenSequences],
    num_queries: int = 0,
    num_documents: int = 0,
    note: str = "",
) -> TextsSummary:
    lengths = np.concatenate([t.lengths for t in tokens])
    return TextsSummary(
        name=name,
        origin=origin,
        sha256=sha256,
        num_texts=len(lengths),
        num_queries=num_queries,
        num_documents=num_documents,
        num_truncated=sum(t.num_truncated for t in tokens),
        median_tokens=float(np.median(lengths)),
        max_tokens=int(lengths.max()),
        note=note,
    )


def _save_set(evaluation: EvaluationSet, folder: Path) -> None:
    values = {
        name: getattr(evaluation, name)
        for name in evaluation.__dataclass_fields__
        if name not in _ARRAYS
    }
    _write(folder / "set.json", values)
    for name in _ARRAYS:
        value = getattr(evaluation, name)
        if value is not None:
            np.savez(folder / f"{name}.npz", **asdict(value))


def _load_set(folder: Path) -> EvaluationSet:
    values = json.loads((folder / "set.json").read_text("utf-8"))
    for name in ("query_ids", "queries", "document_ids", "documents"):
        values[name] = tuple(values[name])
    for name, kind in _ARRAYS.items():
        path = folder / f"{name}.npz"
        if path.is_file():
            with np.load(path, allow_pickle=False) as arrays:
                values[name] = kind(**dict(arrays))
    return EvaluationSet(**values)


def _load(folder: Path) -> Texts:
    dev = folder / "dev"
    return Texts(
        calibration=TokenSequences.load(folder / "calibration.npz"),
        calibration_summary=TextsSummary(
            **json.loads((folder / "calibration.json").read_text("utf-8"))
        ),
        dev=load_tokenized(dev) if dev.is_dir() else None,
        test=load_tokenized(folder / "test"),
        training=load_training(folder),
    )


def save_tokenized(evaluation: TokenizedEvaluation, folder: Path) -> None:
    """Write an evaluation set and its tokens into a folder."""
    _save_set(evaluation.texts, folder)
    evaluation.queries.save(folder / "queries.npz")
    evaluation.documents.save(folder / "documents.npz")


def load_tokenized(folder: Path) -> TokenizedEvaluation:
    """Read what `save_tokenized` wrote."""
    return TokenizedEvaluation(
        texts=_load_set(folder),
        queries=TokenSequences.load(folder / "queries.npz"),
        documents=TokenSequences.load(folder / "documents.npz"),
    )


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), "utf-8")
