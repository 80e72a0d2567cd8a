"""A peer's own habits in front of our runner: what is timed alike, batched as its users do."""

from __future__ import annotations

import numpy as np

from targets.contract import (
    Batching,
    ExecutedPrecision,
    FloatArray,
    Progress,
    Runner,
    RunnerInfo,
    TokenSequences,
    Workload,
    no_progress,
)

PEER_BATCH_SIZE = 32
"""`batch_size` of `SentenceTransformer.encode` (sentence-transformers 5.7 and 6.2)."""


class PeerRunner:
    """A runner whose texts come in batches of a fixed number, sorted by length.

    So does `SentenceTransformer.encode`: the longest texts first, every batch padded to its
    own longest text. The plan of the runner behind must leave room for such batches and pad
    to multiples of 1.

    Args:
        runner: the loaded artifact.
        max_seq_length: longest text in tokens.
        batch_size: texts per batch.
    """

    def __init__(
        self, runner: Runner, max_seq_length: int, batch_size: int = PEER_BATCH_SIZE
    ) -> None:
        self._runner = runner
        self._batch_size = batch_size
        self._batching = Batching(max_batch=batch_size, max_tokens=batch_size * max_seq_length)

    def embed(
        self,
        tokens: TokenSequences,
        batching: Batching | None = None,
        progress: Progress = no_progress,
    ) -> FloatArray:
        """Embed texts in the peer's batches; rows in the order given."""
        return self._runner.embed(tokens, batching or self._batching, progress)

    def time(self, workload: Workload, passes: int, warmup: int = 0) -> FloatArray:
        """Time a workload; see the contract's `Runner.time`.

        A pass over many texts is the sum of its batches. They are run one after the other
        within each pass, so that every batch meets a session that last saw another shape.
        """
        if workload.kind != "batched" or workload.tokens is None:
            return self._runner.time(workload, passes, warmup)
        batches = peer_batches(workload.tokens, self._batch_size)
        for _ in range(warmup):
            self._pass_ms(batches)
        return np.array([self._pass_ms(batches) for _ in range(passes)], np.float32)

    def _pass_ms(self, batches: tuple[Workload, ...]) -> float:
        return sum(float(self._runner.time(batch, 1).sum()) for batch in batches)

    def inspect(self, tokens: TokenSequences) -> tuple[ExecutedPrecision, ...]:
        """Return what the runner behind says."""
        return self._runner.inspect(tokens)

    def info(self) -> RunnerInfo:
        """Return what the runner behind says."""
        return self._runner.info()

    def close(self) -> None:
        """End the runner behind."""
        self._runner.close()


def peer_batches(tokens: TokenSequences, batch_size: int) -> tuple[Workload, ...]:
    """Cut texts, the longest first, into workloads of one batch each."""
    order = np.argsort(-tokens.lengths, kind="stable")
    parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return tuple(
        Workload(name=f"batch-{number}", kind="batched", tokens=tokens.select(part))
        for number, part in enumerate(parts)
    )
