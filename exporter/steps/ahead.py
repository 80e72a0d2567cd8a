"""FP32's embeddings of the evaluation, made by a second process while the graph is exported.

Tracing keeps one core busy. What is embedded here is only put into the cache; who needs it finds
it there, and says of a failure what there is to say.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.deliver.codec import dump_json, load_json
from exporter.steps.source import Source
from exporter.steps.texts import TokenizedEvaluation
from exporter.steps.workers import Worker, WorkerDiedError, block_interrupts, end_children
from exporter.values import EncoderSpec
from targets.contract import FloatArray, Progress, TokenSequences
from targets.errors import ExporterError

if TYPE_CHECKING:
    from exporter.source.encoder import LoadedEncoder

Wait = Callable[[], None]
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """What works in the background.

    Args:
        wait: waits for the end of it.
        torch_threads: for PyTorch in this process beside it, None: all. PyTorch splits its work
            evenly and waits for the slowest share, so two threads on the one core that is left
            took twice as long as one.
    """

    wait: Wait = lambda: None
    torch_threads: int | None = None


@contextmanager
def embedded_ahead(
    source: Source,
    parity_tokens: TokenSequences,
    evaluations: Sequence[TokenizedEvaluation],
    num_cores: int,
) -> Iterator[Ahead]:
    """Embed in the background, and yield what the caller should know of it.

    Args:
        source: the source model.
        parity_tokens: what `Source.graph` is called with: without an export there is nothing to
            embed beside.
        evaluations: what will be asked for; what is in the cache is left alone.
        num_cores: that may be used; all but one are.
    """
    missing = [one for one in evaluations if source.lacks_reference(one)]
    if num_cores < 2 or not missing or not source.lacks_graph(parity_tokens):
        yield Ahead()
        return
    with (
        tempfile.TemporaryDirectory(prefix="exporter-embed-") as folder,
        ThreadPoolExecutor(1, initializer=block_interrupts) as threads,
    ):
        worker, ended = Worker(Path(folder)), threading.Event()

        def embed(tokens: TokenSequences, _: Progress) -> FloatArray:
            if ended.is_set():
                raise WorkerDiedError("the run has ended")
            return worker.call(_embed, dump_json(source.spec), num_cores - 1, tokens)

        def embed_all() -> None:
            with suppress(ExporterError, WorkerDiedError):
                for evaluation in missing:
                    source.reference(evaluation, embed)
            worker.end()

        future = threads.submit(embed_all)
        try:
            yield Ahead(wait=future.result, torch_threads=num_cores // 2)
            future.result()
        except BaseException:
            ended.set()
            while not future.done():  # its process may only be about to start
                end_children()
                wait([future], timeout=_LOOK_S)
            raise


# --------------------------------------------------------------------- within the process


def _embed(spec_json: bytes, num_threads: int, tokens: TokenSequences) -> FloatArray:
    import torch

    torch.set_num_threads(num_threads)
    return _load(spec_json).embed(tokens)


@cache
def _load(spec_json: bytes) -> LoadedEncoder:
    """Load the model once for all calls; a specification itself cannot be looked up."""
    from exporter.source.encoder import load_encoder

    return load_encoder(load_json(EncoderSpec, spec_json))
