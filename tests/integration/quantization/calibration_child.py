"""Calibrates in a process of its own that a test may kill or measure.

Usage: calibration_child.py GRAPH CHECKPOINTS|- NUM_TEXTS. Prints "at N" after every batch, then
the table's hash, then the peak memory in KiB.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from contract.tiny_graph import PAD_ID, VOCABULARY, write_tiny_graph

from exporter.optimize.calibrate import Corpus, PassSettings, calibrate

SETTINGS = PassSettings(gram=True, max_batch_tokens=128, window_texts=64, num_threads=1)


def many_texts(num_texts: int) -> Iterator[np.ndarray]:
    """Random texts of 2 to 20 tokens, one after another."""
    rng = np.random.default_rng(3)
    for _ in range(num_texts):
        yield rng.integers(1, VOCABULARY, rng.integers(2, 21))


def corpus(num_texts: int) -> Corpus:
    """The texts as a generator."""
    return Corpus(
        texts=many_texts(num_texts),
        pad_token_id=PAD_ID,
        tokenizer_sha256="tokenizer",
        sha256=f"{num_texts} texts",
        num_texts=num_texts,
    )


def main(graph_dir: str, checkpoints: str, num_texts: int) -> None:
    """Run one pass."""
    graph = write_tiny_graph(Path(graph_dir)).artifact
    table = calibrate(
        graph,
        corpus(num_texts),
        SETTINGS,
        checkpoint_dir=None if checkpoints == "-" else Path(checkpoints),
        checkpoint_every_s=0.0,
        progress=lambda done, _=None: print("at", done, flush=True),
    )
    print(table.sha256)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
