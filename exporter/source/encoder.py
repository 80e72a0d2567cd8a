"""The source model in PyTorch: loaded quietly from safetensors, and its FP32 embeddings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from exporter.source.loading import load_modules
from exporter.source.self_check import check_against_sentence_transformers
from exporter.source.tasks import compare_with_optimum
from exporter.source.torch_module import attention, build_module, takes_token_type_ids
from exporter.values import EncoderSpec
from targets.contract import FloatArray, IntArray, Progress, TokenSequences, no_progress
from targets.errors import NonFiniteError

if TYPE_CHECKING:
    from torch import nn

_MARKED = re.compile(r"\[.+\]|<.+>")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedEncoder:
    """A source model in memory.

    Args:
        spec: what it is.
        module: the torch module that is exported (see `torch_module.build_module`).
        transformer: the Transformers model inside it.
        text_decoder: turns token ids back into text, for messages.
        takes_token_type_ids: whether the graph has that input.
        warnings: what had to be assumed while loading.
    """

    spec: EncoderSpec
    module: nn.Module
    transformer: nn.Module
    text_decoder: Any
    takes_token_type_ids: bool
    warnings: tuple[str, ...] = ()

    def embed(
        self,
        tokens: TokenSequences,
        *,
        max_tokens: int = 1024,
        progress: Progress = no_progress,
    ) -> FloatArray:
        """Embed texts in PyTorch FP32.

        Args:
            tokens: the texts.
            max_tokens: padded tokens per batch at most (one text is never split); a quarter faster
                on two cores than four times as many, whose activations leave the caches.
            progress: called with the number of texts done.

        Returns:
            Rows in the order of `tokens`, shape [num_texts, dim], float32.

        Raises:
            NonFiniteError: if an embedding holds NaN or infinity.
        """
        rows = np.empty((len(tokens), self.spec.embedding_dim), np.float32)
        done = 0
        # Scaled-dot-product attention is the fastest on CPU; the export uses eager attention.
        with attention(self.transformer, "sdpa"):
            for indices in length_sorted_batches(tokens.lengths, max_tokens):
                rows[indices] = self.forward(*pad_batch(tokens, indices))[1]
                _check_finite(rows, indices, tokens)
                done += len(indices)
                progress(done, len(tokens))
        return rows

    def forward(self, input_ids: IntArray, attention_mask: IntArray) -> tuple[FloatArray, ...]:
        """Run one padded batch; both int64 [batch_size, sequence_length].

        Returns:
            `last_hidden_state` and `sentence_embedding`, float32.
        """
        import torch

        ids, mask = torch.from_numpy(input_ids), torch.from_numpy(attention_mask)
        types = (torch.zeros_like(ids),) if self.takes_token_type_ids else ()
        with torch.inference_mode():
            return tuple(output.numpy() for output in self.module(ids, mask, *types))

    def decode(self, ids: np.ndarray) -> str:
        """Turn token ids back into text, as well as the tokenizer can."""
        return str(self.text_decoder.decode([int(i) for i in ids], skip_special_tokens=True))

    def ordinary_token_ids(self) -> IntArray:
        """Return the ids that texts are made of, shape [num_ids], ascending.

        Special tokens are left out, and what is written like one: places in the vocabulary that
        were kept free (`[unused1]`, `<extra_id_0>`) have rows that were never trained.
        """
        special = {int(one) for one in self.text_decoder.all_special_ids}
        num_rows = self.transformer.get_input_embeddings().num_embeddings
        found = {
            int(index)
            for token, index in self.text_decoder.get_vocab().items()
            if index < num_rows and index not in special and not _MARKED.fullmatch(token)
        }
        return np.array(sorted(found), np.int64)


def load_encoder(spec: EncoderSpec) -> LoadedEncoder:
    """Load a resolved model on the CPU in float32, from safetensors, without the network.

    Raises:
        ModelError: if it cannot be loaded, weights are missing, or tokens or embeddings
            differ from what Sentence Transformers itself makes of the same texts.
    """
    model = load_modules(spec)
    modules = list(model)
    transformer = modules[0].auto_model
    encoder = LoadedEncoder(
        spec=spec,
        module=build_module(modules, spec.embedding_dim),
        transformer=transformer,
        text_decoder=modules[0].tokenizer,
        takes_token_type_ids=takes_token_type_ids(transformer),
        warnings=compare_with_optimum(spec),
    )
    check_against_sentence_transformers(encoder.embed, spec, model)
    return encoder


def length_sorted_batches(lengths: IntArray, max_tokens: int) -> Iterator[IntArray]:
    """Yield indices of texts in batches of similar length, longest first.

    Args:
        lengths: tokens of each text, shape [num_texts].
        max_tokens: padded tokens per batch; a longer single text is a batch of its own.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        size = max(1, max_tokens // longest)
        yield order[start : start + size]
        start += size


def pad_batch(tokens: TokenSequences, indices: IntArray) -> tuple[IntArray, IntArray]:
    """Pad texts on the right to the longest; ids and mask, int64 [batch_size, sequence_length]."""
    sequences = [tokens[int(index)] for index in indices]
    width = max(1, *(len(sequence) for sequence in sequences))
    ids = np.full((len(sequences), width), tokens.pad_token_id, np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
        mask[row, : len(sequence)] = 1
    return ids, mask


def _check_finite(rows: FloatArray, indices: IntArray, tokens: TokenSequences) -> None:
    bad = indices[~np.isfinite(rows[indices]).all(axis=1)]
    if len(bad):
        raise NonFiniteError(
            f"PyTorch gives NaN or infinity for text {int(bad[0])}",
            why=f"its {len(tokens[int(bad[0])])} tokens, and {len(bad) - 1} more of its batch",
            hint="the source model itself is broken on this text",
        )
