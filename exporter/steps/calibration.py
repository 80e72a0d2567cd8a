"""The calibration table of a graph over texts, bound to the cache; a killed pass goes on."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from exporter.deliver.cache import key_of
from exporter.deliver.folders import remove_tree
from exporter.optimize.calibrate import Corpus, PassSettings, calibrate
from exporter.steps.workspace import Workspace, code_fingerprint, tool_versions
from exporter.values import EncoderSpec
from targets.contract import OnnxArtifact, Progress, TokenSequences

STAGE = "calibration"
TABLE_FILE = "calibration.npz"

_TOOLS = ("onnxruntime", "numpy")
# Checkpoints of passes that were never finished are given up after this time.
_UNFINISHED = "unfinished"
_GIVEN_UP_AFTER_S = 7 * 24 * 3600


def calibration_table(
    work: Workspace,
    spec: EncoderSpec,
    graph: OnnxArtifact,
    tokens: TokenSequences,
    gram: bool,
    *,
    attention: bool = False,
) -> Path:
    """Return the file of a `targets.quantization.table.CalibrationTable`.

    Args:
        work: the run's surroundings.
        spec: the source model, for its tokenizer's hash.
        graph: the FP32 graph.
        tokens: calibration texts; the table's `corpus_sha256` is their `sha256`.
        gram: keep second moments of activations, shape [channels, channels] each.
        attention: keep statistics of query, key and value of each attention, as well.

    Raises:
        CalibrationError, CompileError, StorageError: see
            `exporter.optimize.calibrate.calibrate`.
    """
    corpus = Corpus(
        texts=tokens,
        pad_token_id=tokens.pad_token_id,
        tokenizer_sha256=spec.tokenizer_sha256,
        sha256=tokens.sha256,
        num_texts=len(tokens),
    )
    return corpus_table(work, graph, corpus, gram, attention=attention)


def corpus_table(
    work: Workspace, graph: OnnxArtifact, corpus: Corpus, gram: bool, *, attention: bool = False
) -> Path:
    """Return the file of the calibration table of a corpus of any length.

    Raises:
        CalibrationError, StorageError: see `exporter.optimize.calibrate.calibrate`.
    """
    parts = (
        graph.sha256,
        (corpus.tokenizer_sha256, corpus.sha256, corpus.pad_token_id),
        (gram, attention),
        tool_versions(_TOOLS),
    )
    # The same key as the entry's: what a run of other code left behind is never gone on with.
    unfinished = work.cache.root / _UNFINISHED / key_of(code_fingerprint(), *parts)

    def build(folder: Path, progress: Progress) -> None:
        _give_up_old(unfinished.parent)
        unfinished.mkdir(parents=True, exist_ok=True)
        table = calibrate(
            graph,
            corpus,
            PassSettings(gram=gram, attention=attention, num_threads=work.settings.threads),
            checkpoint_dir=unfinished,
            progress=progress,
            note=work.reporter.note,
        )
        table.save(folder / TABLE_FILE)
        remove_tree(unfinished)

    return work.cached(STAGE, "calibrate the FP32 graph", parts, build) / TABLE_FILE


def _give_up_old(folder: Path) -> None:
    """Remove checkpoints that nobody went on with for a week."""
    for path in folder.glob("*"):
        # Another process may be removing it, too.
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _GIVEN_UP_AFTER_S:
                remove_tree(path)
