"""Proof that our tokens and embeddings are those of Sentence Transformers.

The tokenizer and the batching are ours, so each loaded model is asked on texts that tokenizers
disagree about; a difference stops the run before any artifact is judged by wrong references.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from exporter.source.quiet import quiet
from exporter.source.tokenizer import load_tokenizer
from exporter.values import EncoderSpec
from targets.contract import FloatArray, TokenSequences
from targets.errors import ModelError

PROBE_TEXTS = (
    "",
    " ",
    "A plain sentence, with punctuation.",
    "  leading spaces\tand a tab\nand a line  ",
    "ÀÉÎõü ß İstanbul ﬁ",
    "北京的天气很好。東京タワー",
    "naïve 🙂 emoji 👩‍👩‍👧 and \u200b zero width",
    "control \x00\x07 characters \x85",
    "[CLS] <s> [MASK] </s> <mask> [UNK] inside a text",
    "supercalifragilisticexpialidocious_" * 4,
    "x = {'a': [1, 2.5e-3]}  # code",
)
_LONG_TEXT = "many words follow each other here "
_LEAST_COSINE = 0.99999
_HINT = "export it with the version of sentence-transformers that made it, or report this model"


def check_against_sentence_transformers(
    embed: Callable[[TokenSequences], FloatArray],
    spec: EncoderSpec,
    model: Any,  # noqa: ANN401
) -> None:
    """Compare tokens and embeddings of odd texts with Sentence Transformers' own.

    Raises:
        ModelError: if they differ.
    """
    tokenizer = load_tokenizer(spec)
    long_text = _LONG_TEXT * (spec.max_seq_length // 6 + 1)
    texts = [*PROBE_TEXTS, long_text]
    tokens = tokenizer.encode(texts)
    for text, ours in zip(texts, tokens, strict=True):
        theirs = _their_tokens(model, spec.default_prompt, text)
        if not np.array_equal(ours, theirs):
            raise ModelError(
                f"{spec.model_id}: our tokens of {text[:40]!r} are not Sentence Transformers'",
                why=f"{ours[:12].tolist()} … against {theirs[:12].tolist()} …",
                hint=_HINT,
            )
    _check_embeddings(embed, spec, model, tokens.select(np.arange(len(PROBE_TEXTS))))


def _their_tokens(model: Any, prompt: str, text: str) -> np.ndarray:  # noqa: ANN401
    with quiet():
        features = model.preprocess([text], prompt=prompt or None)
    ids, mask = features["input_ids"][0].numpy(), features["attention_mask"][0].numpy()
    return np.asarray(ids[mask.astype(bool)])


def _check_embeddings(
    embed: Callable[[TokenSequences], FloatArray],
    spec: EncoderSpec,
    model: Any,  # noqa: ANN401
    tokens: TokenSequences,
) -> None:
    with quiet():
        theirs = model.encode(list(PROBE_TEXTS), show_progress_bar=False, convert_to_numpy=True)
    if theirs.shape[1] != spec.embedding_dim:
        raise ModelError(
            f"{spec.model_id} gives {theirs.shape[1]} dimensions",
            why=f"its settings promise {spec.embedding_dim}",
        )
    kept = tokens.lengths > 0
    cosines = row_cosines(embed(tokens)[kept], theirs[kept])
    worst = int(np.argmin(cosines))
    if cosines[worst] < _LEAST_COSINE:
        raise ModelError(
            f"{spec.model_id}: our embeddings are not those of Sentence Transformers",
            why=f"cosine {cosines[worst]:.6f} on {PROBE_TEXTS[np.flatnonzero(kept)[worst]]!r}",
            hint=_HINT,
        )


def row_cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of rows in float64; equal rows of zeros count as 1."""
    a = first.astype(np.float64).reshape(len(first), -1)
    b = second.astype(np.float64).reshape(len(second), -1)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    dots = np.einsum("ij,ij->i", a, b)
    equal = np.all(a == b, axis=1).astype(np.float64)
    cosines: np.ndarray = np.where(norms > 0, dots / np.where(norms > 0, norms, 1.0), equal)
    return cosines
