"""The encoder as one torch module: token ids in, token states and sentence embedding out."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

INPUT_NAMES = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT_NAMES = ("last_hidden_state", "sentence_embedding")

TRANSFORMER = "transformer"
"""Attribute under which the transformer hangs in the module; node names leave it out."""


def takes_token_type_ids(transformer: nn.Module) -> bool:
    """Say whether the architecture tells segments apart (more than one token type)."""
    parameters = inspect.signature(transformer.forward).parameters
    num_types = getattr(transformer.config, "type_vocab_size", 0) or 0
    return "token_type_ids" in parameters and num_types > 1


def build_module(modules: list[nn.Module], embedding_dim: int) -> nn.Module:
    """Chain Sentence Transformers modules into one torch module in evaluation mode.

    Its forward takes `input_ids`, `attention_mask` and perhaps `token_type_ids`, int64
    [batch_size, sequence_length], and returns `last_hidden_state` [batch_size, sequence_length,
    hidden] and `sentence_embedding` [batch_size, embedding_dim], float32.

    Args:
        modules: the Transformer first.
        embedding_dim: the embedding is cut to this length (Matryoshka models).
    """
    import torch

    class EncoderModule(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
        def __init__(self) -> None:
            super().__init__()
            self.chain = []
            for name, module in zip(_attribute_names(modules), modules, strict=True):
                self.add_module(name, module)
                self.chain.append(module)

        def forward(
            self,
            input_ids: Tensor,
            attention_mask: Tensor,
            token_type_ids: Tensor | None = None,
        ) -> tuple[Tensor, Tensor]:
            features = {"input_ids": input_ids, "attention_mask": attention_mask}
            if token_type_ids is not None:
                features["token_type_ids"] = token_type_ids
            for module in self.chain:
                features = module(features)
            sentence = features["sentence_embedding"]
            if sentence.shape[-1] > embedding_dim:
                sentence = sentence[:, :embedding_dim]
            return features["token_embeddings"], sentence

    return EncoderModule().eval()


def _attribute_names(modules: list[nn.Module]) -> list[str]:
    """Name modules by their class, numbered from the second of a kind: dense, dense_1."""
    names: list[str] = []
    for index, module in enumerate(modules):
        base = type(module).__name__.lower() if index else TRANSFORMER
        count = sum(name.rsplit("_", 1)[0] == base for name in names)
        names.append(f"{base}_{count}" if count else base)
    return names


@contextmanager
def attention(transformer: nn.Module, implementation: str) -> Iterator[None]:
    """Let a Transformers model compute attention in another way for a while.

    An architecture that knows only one way keeps it.
    """
    before = transformer.config._attn_implementation
    try:
        transformer.set_attn_implementation(implementation)
    except (ValueError, ImportError):
        # The architecture has no such implementation; what it has is right as well.
        transformer.set_attn_implementation(before)
    try:
        yield
    finally:
        transformer.set_attn_implementation(before)


@contextmanager
def num_torch_threads(wanted: int | None) -> Iterator[None]:
    """Let PyTorch use so many threads for a while; None: as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(wanted or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
