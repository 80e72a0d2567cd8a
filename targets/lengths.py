"""Few texts that carry the lengths of many."""

from __future__ import annotations

import numpy as np

from targets.contract import TokenSequences


def spread_by_length(tokens: TokenSequences, num_texts: int) -> TokenSequences:
    """Take texts at evenly spaced ranks of length, so that few texts carry the real mix.

    The texts come back in their original order, so that neighbours differ in length
    as they do in service.
    """
    if len(tokens) <= num_texts:
        return tokens
    by_length = np.argsort(tokens.lengths, kind="stable")
    ranks = (np.arange(num_texts) + 0.5) * (len(tokens) / num_texts)
    return tokens.select(np.sort(by_length[ranks.astype(np.int64)]))
