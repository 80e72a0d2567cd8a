"""Calibration alone: model and texts in, one table file out."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING

from exporter.deliver.storage import storage_errors
from exporter.steps.calibration import STAGE, calibration_table, corpus_table
from exporter.steps.source import Source
from exporter.steps.workspace import Workspace
from exporter.values import EncoderSpec
from targets.contract import OnnxArtifact, TokenSequences
from targets.errors import ConfigError
from targets.hashing import sha256_file, sha256_json
from targets.quantization.table import CalibrationTable

if TYPE_CHECKING:
    from exporter.source.tokenizer import TextTokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSummary:
    """What was calibrated, and the file that holds it.

    `took_s` is the time of the pass; 0 where the table came from the cache.
    """

    path: Path
    sha256: str
    size_bytes: int
    model_id: str
    texts: str
    num_tensors: int
    num_texts: int
    num_tokens: int
    gram: bool
    took_s: float
    graph_sha256: str
    tokenizer_sha256: str
    corpus_sha256: str


def run_calibration(
    work: Workspace, output: Path, *, every_text: bool, gram: bool
) -> CalibrationSummary:
    """Calibrate the settings' model on the settings' texts and write the table.

    Args:
        work: the run's surroundings.
        output: the file to write; what is there is replaced.
        every_text: run all texts of the source, repeated ones too, in the order of the file;
            else a sample of `settings.num_samples` different ones.
        gram: keep second moments of activations.

    Raises:
        ConfigError, TextsError, ModelError, ExportError, CalibrationError, StorageError: the
            file at `output` is left as it was.
    """
    from exporter.source.resolve import resolve_encoder

    _check_output(output)
    settings = work.settings
    spec = resolve_encoder(
        settings.model,
        pooling=settings.pooling,
        revision=settings.revision,
        trust_remote_code=settings.trust_remote_code,
        max_seq_length=settings.max_seq_length,
    )
    for warning in spec.warnings:
        work.reporter.note(warning)
    make = _calibrate_all if every_text else _calibrate_sample
    texts, path = make(work, spec, gram)
    return _delivered(work, spec, texts, path, output, gram)


def _check_output(output: Path) -> None:
    if output.is_dir():
        raise ConfigError(
            f"--output {output} is a folder",
            hint=f"name the file to write, for example {output / 'calibration.npz'}",
        )


def _calibrate_sample(work: Workspace, spec: EncoderSpec, gram: bool) -> tuple[str, Path]:
    from exporter.source.tokenizer import load_tokenizer

    origin, tokens = _sample(work, load_tokenizer(spec), work.settings.calibration)
    return origin, calibration_table(work, spec, _graph(work, spec, tokens), tokens, gram)


def _calibrate_all(work: Workspace, spec: EncoderSpec, gram: bool) -> tuple[str, Path]:
    from exporter.optimize.calibrate import Corpus
    from exporter.source.text_stream import TokenStream, text_source
    from exporter.source.tokenizer import load_tokenizer

    settings = work.settings
    source = text_source(settings.calibration, settings.field)
    tokenizer = load_tokenizer(spec)
    # Parity is proven on a sample of the built-in texts: a stream is read once, by the pass.
    _, parity_tokens = _sample(work, tokenizer, None)
    tokenizing = (spec.max_seq_length, spec.default_prompt)
    corpus = Corpus(
        texts=TokenStream(source=source, tokenizer=tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        tokenizer_sha256=spec.tokenizer_sha256,
        sha256=sha256_json([source.sha256, source.field, *tokenizing]),
    )
    graph = _graph(work, spec, parity_tokens)
    return source.origin, corpus_table(work, graph, corpus, gram)


def _sample(
    work: Workspace, tokenizer: TextTokenizer, source: str | None
) -> tuple[str, TokenSequences]:
    """Return where a sample of different texts comes from, and its tokens."""
    from exporter.source.corpus import load_calibration

    settings = work.settings
    with work.step("texts", "read and tokenize calibration texts") as progress:
        texts = load_calibration(
            source,
            field=settings.field,
            num_samples=settings.num_samples,
            seed=settings.seed,
            progress=progress,
        )
        return texts.origin, tokenizer.encode(texts.texts)


def _graph(work: Workspace, spec: EncoderSpec, parity_tokens: TokenSequences) -> OnnxArtifact:
    return Source(work, spec).graph(parity_tokens).artifact


def _delivered(
    work: Workspace, spec: EncoderSpec, texts: str, built: Path, output: Path, gram: bool
) -> CalibrationSummary:
    table = CalibrationTable.load(built)
    _note_few_texts(work, table.num_texts)
    _copy(built, output)
    return CalibrationSummary(
        path=output,
        sha256=sha256_file(output),
        size_bytes=output.stat().st_size,
        model_id=spec.model_id,
        texts=texts,
        num_tensors=len(table.tensors),
        num_texts=table.num_texts,
        num_tokens=table.num_tokens,
        gram=gram,
        took_s=work.stage_s.get(STAGE, 0.0),
        graph_sha256=table.graph_sha256,
        tokenizer_sha256=table.tokenizer_sha256,
        corpus_sha256=table.corpus_sha256,
    )


def _note_few_texts(work: Workspace, num_texts: int) -> None:
    from exporter.source.corpus import MIN_CALIBRATION_TEXTS

    if num_texts < MIN_CALIBRATION_TEXTS:
        work.reporter.note(
            f"{num_texts} texts calibrate: with fewer than about {MIN_CALIBRATION_TEXTS} "
            "the rare large activations are not seen"
        )


def _copy(built: Path, output: Path) -> None:
    """Copy a file; readers see the old one or the new one, never a part."""
    aside = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with storage_errors("cannot write the table", output, remedy="name another --output"):
            output.parent.mkdir(parents=True, exist_ok=True)
            copyfile(built, aside)
            aside.replace(output)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
