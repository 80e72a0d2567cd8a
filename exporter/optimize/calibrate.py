"""One streamed pass over the FP32 graph: texts in, a calibration table out.

Memory does not depend on the number of texts: a window of token ids, the activations of two
batches, and the statistics are all that is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from exporter.optimize.calibration_batches import (
    MAX_BATCH_TOKENS,
    WINDOW_TEXTS,
    Batch,
    TokenIds,
    Window,
    make_batches,
    read_windows,
)
from exporter.optimize.calibration_graph import Activation, ActivationSession, open_activations
from exporter.optimize.calibration_state import EVERY_S, Checkpoint, PassState, Position
from exporter.optimize.memory import trim_heap
from targets.contract import FloatArray, OnnxArtifact, Progress, no_progress
from targets.errors import CalibrationError
from targets.hashing import sha256_json
from targets.quantization.statistics import StreamingStatistics
from targets.quantization.table import CalibrationTable

Note = Callable[[str], None]
"""Takes one sentence that the user should see."""

_TOOLS = ("onnxruntime", "numpy")
_FLOAT_BYTES = 4
_MAX_ACTIVATION_BYTES = 256 << 20
"""Activations of one batch; a large model's batches get smaller instead of its memory larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Calibration texts as token ids.

    Args:
        texts: ids of each text, special tokens included, no padding; may be a generator of any
            length. Only what can be iterated again can start anew when its checkpoint proves
            to be made from other texts.
        pad_token_id: what a batch is padded with.
        tokenizer_sha256: the tokenizer that made the ids.
        sha256: hash that names these texts.
        num_texts: how many there are, for the progress; None: unknown.
    """

    texts: Iterable[TokenIds]
    pad_token_id: int
    tokenizer_sha256: str
    sha256: str
    num_texts: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PassSettings:
    """How a pass is run; all but the number of threads decides which bits come out.

    Args:
        gram: keep second moments of each activation, shape [channels, channels].
        attention: keep statistics of what the products inside attention read, as well.
        max_batch_tokens: padded tokens per batch.
        window_texts: texts that are sorted by length together.
        num_threads: CPU threads of ONNX Runtime; None: all cores.
    """

    gram: bool = False
    attention: bool = False
    max_batch_tokens: int = MAX_BATCH_TOKENS
    window_texts: int = WINDOW_TEXTS
    num_threads: int | None = None


def calibrate(
    graph: OnnxArtifact,
    corpus: Corpus,
    settings: PassSettings | None = None,
    *,
    checkpoint_dir: Path | None = None,
    checkpoint_every_s: float = EVERY_S,
    progress: Progress = no_progress,
    note: Note = lambda _: None,
) -> CalibrationTable:
    """Run texts through a graph and keep statistics of what its int8 products would read.

    Padding is left out of every statistic. The same texts in the same order give the same
    bits, whether the pass ran in one go or went on from its checkpoint.

    Args:
        graph: the FP32 graph.
        corpus: the texts.
        settings: how the pass is run.
        checkpoint_dir: existing folder for the checkpoint of this pass; None: none is kept.
        checkpoint_every_s: seconds between two checkpoints at least.
        progress: called with the number of texts done, from another thread.
        note: told what the user should know: constant tensors, a checkpoint that is not used.

    Raises:
        CalibrationError: if there are no texts, a text does not fit the graph, an activation is
            not finite (names tensor and layer), or the graph has no linear layer.
        CompileError: an attention is asked for that is no pair of products.
        StorageError: if a checkpoint cannot be written.
    """
    settings = settings or PassSettings()
    checkpoint = None
    if checkpoint_dir is not None:
        made_of = _made_of(graph, corpus, settings)
        checkpoint = Checkpoint(checkpoint_dir, made_of, every_s=checkpoint_every_s, note=note)
    session = open_activations(graph, settings.num_threads, attention=settings.attention)
    one_pass = _Pass(session, corpus, settings, checkpoint, progress)
    try:
        one_pass.run(graph.max_seq_length)
    except _OtherTextsError:
        one_pass.start_anew(note)
        one_pass.run(graph.max_seq_length)
    table = one_pass.table(graph.sha256)
    _note_constants(session.activations, table, note)
    if checkpoint is not None:
        checkpoint.remove()
    return table


def _made_of(graph: OnnxArtifact, corpus: Corpus, settings: PassSettings) -> dict[str, str]:
    """Return everything that a pass's bits depend on, by a word for the user."""
    pinned = (
        settings.gram,
        settings.attention,
        settings.max_batch_tokens,
        settings.window_texts,
    )
    return {
        "graph": graph.sha256,
        "tokenizer": corpus.tokenizer_sha256,
        "corpus": corpus.sha256,
        "choice of settings": sha256_json([*pinned, corpus.pad_token_id]),
        "version of ONNX Runtime or numpy": sha256_json([version(name) for name in _TOOLS]),
    }


class _OtherTextsError(Exception):
    """The texts read again are not those of the checkpoint."""


class _Pass:
    """The state of one pass."""

    def __init__(
        self,
        session: ActivationSession,
        corpus: Corpus,
        settings: PassSettings,
        checkpoint: Checkpoint | None,
        progress: Progress,
    ) -> None:
        self._session = session
        self._corpus = corpus
        self._settings = settings
        self._checkpoint = checkpoint
        self._progress = progress
        self._state = (checkpoint.load() if checkpoint is not None else None) or self._empty()

    def _empty(self) -> PassState:
        gram = self._settings.gram
        statistics = [
            StreamingStatistics(one.num_channels, gram and not one.in_attention)
            for one in self._session.activations
        ]
        return PassState(position=Position(), statistics=tuple(statistics))

    def run(self, max_length: int) -> None:
        """Take all texts that were not taken yet.

        Raises:
            _OtherTextsError: the texts are not those that the checkpoint was made from.
        """
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="statistics") as worker:
            taken: Future[None] | None = None
            for batch, position in self._remaining(max_length):
                values = self._session.run(batch)
                # The last batch's values are counted while the runtime works on this one.
                if taken is not None:
                    taken.result()
                taken = worker.submit(self._take, values, batch, position)
            if taken is not None:
                taken.result()

    def _remaining(self, max_length: int) -> Iterator[tuple[Batch, Position]]:
        """Yield the batches that were not taken yet, each with the position behind it."""
        start = self._state.position
        num_texts, num_tokens = start.num_texts, start.num_tokens
        number = -1
        windows = read_windows(self._corpus.texts, max_length, self._settings.window_texts)
        for number, window in enumerate(windows):
            if number < start.window:
                continue
            is_first = number == start.window
            if is_first and start.window_sha256 not in ("", window.sha256):
                raise _OtherTextsError
            batches = enumerate(self._batches(window), start=1)
            for count, batch in islice(batches, start.num_batches if is_first else 0, None):
                num_texts += batch.num_texts
                num_tokens += batch.num_tokens
                yield (
                    batch,
                    Position(
                        window=number,
                        window_sha256=window.sha256,
                        num_batches=count,
                        num_texts=num_texts,
                        num_tokens=num_tokens,
                    ),
                )
        if number < start.window and start.window_sha256:
            raise _OtherTextsError

    def _batches(self, window: Window) -> Iterator[Batch]:
        bytes_per_token = _FLOAT_BYTES * self._session.num_values_per_token
        max_tokens = min(self._settings.max_batch_tokens, _MAX_ACTIVATION_BYTES // bytes_per_token)
        return make_batches(window, self._corpus.pad_token_id, max_tokens)

    def _take(self, values: Sequence[FloatArray], batch: Batch, position: Position) -> None:
        activations, statistics = self._session.activations, self._state.statistics
        for activation, value, one in zip(activations, values, statistics, strict=True):
            with _naming(activation):
                one.add(activation.rows(value, batch))
        self._state = PassState(position=position, statistics=statistics)
        trim_heap()
        if self._checkpoint is not None:
            self._checkpoint.save_if_due(self._state)
        self._progress(position.num_texts, self._corpus.num_texts)

    def start_anew(self, note: Note) -> None:
        """Forget the checkpoint and what was taken.

        Raises:
            CalibrationError: if the texts cannot be read a second time.
        """
        if self._checkpoint is not None:
            self._checkpoint.remove()
        if iter(self._corpus.texts) is self._corpus.texts:
            raise CalibrationError(
                "the calibration cannot go on: its texts are not those of its checkpoint",
                why="they were read up to there, and a generator cannot be read twice",
                hint="run it again: the checkpoint was removed",
            )
        note("the calibration starts anew: its texts are not those of its checkpoint")
        self._state = self._empty()

    def table(self, graph_sha256: str) -> CalibrationTable:
        """Return the statistics of all texts.

        Raises:
            CalibrationError: if there were no texts.
        """
        position = self._state.position
        if position.num_texts == 0:
            raise CalibrationError(
                "there is no calibration text",
                why="the source of the texts is empty, or no text has a token",
                hint="give a file with texts, or leave --calibration out to use the built-in ones",
            )
        pairs = zip(self._session.activations, self._state.statistics, strict=True)
        return CalibrationTable(
            tensors={activation.name: one.freeze() for activation, one in pairs},
            graph_sha256=graph_sha256,
            tokenizer_sha256=self._corpus.tokenizer_sha256,
            corpus_sha256=self._corpus.sha256,
            num_texts=position.num_texts,
            num_tokens=position.num_tokens,
        )


@contextmanager
def _naming(activation: Activation) -> Iterator[None]:
    """Name tensor and layer where the values of an activation are refused."""
    try:
        yield
    except CalibrationError as error:
        raise CalibrationError(
            f"the input of the layer {activation.layers[0]} cannot be calibrated",
            why=f"tensor {activation.name}: {error.what}; {error.why}",
            hint=error.hint,
        ) from error


def _note_constants(activations: Sequence[Activation], table: CalibrationTable, note: Note) -> None:
    for one in activations:
        found = table.tensors[one.name]
        if found.minimum == found.maximum:
            note(f"the input of {one.layers[0]} is {found.minimum:g} in every text")
