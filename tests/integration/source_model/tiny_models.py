"""Tiny random models of every family, built from configurations; nothing is downloaded."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HIDDEN = 32
# Two where a family has two kinds of layers (ModernBERT), or where tests look at one of several.
LAYERS = 1
MAX_LENGTH = 40

TEXTS = (
    "The quick brown fox jumps over the lazy dog near the river bank.",
    "short",
    "How do I return a parcel that was never delivered to my address?",
    "ERROR 2024-05-01 12:00:03 worker[3]: connection reset by peer (10.0.0.7:5432)",
    "北京的天气很好。",
    "Ein Satz auf Deutsch mit Umlauten: Straße, Öl, Übung.",
    "def add(a, b):\n    return a + b  # no types here",
    "price;quantity\n12.50;3\n7.99;10",
    "a much longer text " * 30,
    "emoji 🙂 and accents é à ü",
)

_SPECIAL_BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_SPECIAL_ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How to build one family's tiny model."""

    name: str
    pooling: str
    build: Callable[[], tuple[Any, Any]]
    token_type_ids: bool
    light_tokenizer: bool


def build(family: Family, folder: Path, **options: Any) -> Path:
    """Save a family's tiny model as a Sentence Transformers folder."""
    import torch

    with warnings.catch_warnings():
        # Saving deprecations inside Transformers and Sentence Transformers are theirs.
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model, tokenizer = family.build()
        plain = folder / "plain"
        _spread_weights(model)
        model.eval().save_pretrained(plain)
        tokenizer.save_pretrained(plain)
        return _as_sentence_transformer(plain, folder / "model", family.pooling, **options)


def _spread_weights(model: Any) -> None:
    """Make the random weights large enough that texts differ."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8.0)


def _as_sentence_transformer(
    plain: Path,
    folder: Path,
    pooling: str,
    *,
    dense: int | None = None,
    normalize: bool = True,
    lower_case: bool = False,
    prompts: dict[str, str] | None = None,
    default_prompt_name: str | None = None,
) -> Path:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import (
        Dense,
        Normalize,
        Pooling,
        Transformer,
    )

    modality = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
    transformer = Transformer(
        str(plain),
        max_seq_length=MAX_LENGTH,
        do_lower_case=lower_case,
        modality_config=modality,
        module_output_name="token_embeddings",
    )
    modules: list[torch.nn.Module] = [transformer, Pooling(HIDDEN, pooling.split("+"))]
    if dense is not None:
        width = HIDDEN * len(pooling.split("+"))
        modules.append(Dense(width, dense, activation_function=torch.nn.Tanh()))
    if normalize:
        modules.append(Normalize())
    model = SentenceTransformer(
        modules=modules,
        device="cpu",
        prompts=prompts,
        default_prompt_name=default_prompt_name,
    )
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


# --------------------------------------------------------------------------- tokenizers


def wordpiece_vocab() -> dict[str, int]:
    """Characters and the most frequent words; the trainer's own choice differs from run to run."""
    words = Counter(re.findall(r"[a-z]+|[^a-z\s]", " ".join(TEXTS).lower()))
    letters = sorted({letter for word in words for letter in word})
    frequent = sorted(words, key=lambda word: (-words[word], word))
    tokens = [*_SPECIAL_BERT, *letters, *(f"##{letter}" for letter in letters), *frequent]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens[:300]))}


def byte_bpe(special_tokens: list[str]) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special_tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _bpe_parts(special_tokens: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    import json

    model = json.loads(byte_bpe(special_tokens).to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def _unigram_vocab() -> list[tuple[str, float]]:
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=150,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    pieces = [tuple(piece) for piece in json.loads(tokenizer.to_str())["model"]["vocab"]]
    return [*pieces, ("<mask>", 0.0)]


# ----------------------------------------------------------------------------- families

_SIZES = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}


def _bert() -> tuple[Any, Any]:
    from transformers import BertConfig, BertModel, BertTokenizer

    vocab = wordpiece_vocab()
    sizes = {**_SIZES, "num_hidden_layers": 2}
    config = BertConfig(vocab_size=len(vocab), max_position_embeddings=64, **sizes)
    return BertModel(config), BertTokenizer(vocab=vocab)


def _electra() -> tuple[Any, Any]:
    from transformers import BertTokenizer, ElectraConfig, ElectraModel

    vocab = wordpiece_vocab()
    config = ElectraConfig(
        vocab_size=len(vocab), embedding_size=16, max_position_embeddings=64, **_SIZES
    )
    return ElectraModel(config), BertTokenizer(vocab=vocab)


def _distilbert() -> tuple[Any, Any]:
    from transformers import BertTokenizer, DistilBertConfig, DistilBertModel

    vocab = wordpiece_vocab()
    config = DistilBertConfig(
        vocab_size=len(vocab),
        dim=HIDDEN,
        n_layers=LAYERS,
        n_heads=4,
        hidden_dim=48,
        max_position_embeddings=64,
    )
    return DistilBertModel(config), BertTokenizer(vocab=vocab)


def _mpnet() -> tuple[Any, Any]:
    from transformers import MPNetConfig, MPNetModel, MPNetTokenizer

    pieces = [p for p in wordpiece_vocab() if p not in _SPECIAL_BERT]
    special = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]"]
    vocab = {piece: i for i, piece in enumerate([*special, *sorted(pieces), "<mask>"])}
    config = MPNetConfig(vocab_size=len(vocab), max_position_embeddings=66, **_SIZES)
    return MPNetModel(config), MPNetTokenizer(vocab=vocab)


def _roberta() -> tuple[Any, Any]:
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

    vocab, merges = _bpe_parts(_SPECIAL_ROBERTA)
    config = RobertaConfig(
        vocab_size=len(vocab), max_position_embeddings=66, type_vocab_size=1, **_SIZES
    )
    return RobertaModel(config), RobertaTokenizer(vocab=vocab, merges=merges)


def _xlm_roberta() -> tuple[Any, Any]:
    from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizer

    vocab = _unigram_vocab()
    config = XLMRobertaConfig(
        vocab_size=len(vocab), max_position_embeddings=66, type_vocab_size=1, **_SIZES
    )
    return XLMRobertaModel(config), XLMRobertaTokenizer(vocab=vocab)


def _modernbert() -> tuple[Any, Any]:
    from tokenizers import processors
    from transformers import ModernBertConfig, ModernBertModel, PreTrainedTokenizerFast

    backend = byte_bpe(_SPECIAL_BERT)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    config = ModernBertConfig(
        vocab_size=backend.get_vocab_size(),
        max_position_embeddings=64,
        # Shorter than the longest text, so that the sliding window matters.
        local_attention=8,
        global_attn_every_n_layers=2,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        cls_token_id=2,
        sep_token_id=3,
        **{**_SIZES, "num_hidden_layers": 2},
    )
    return ModernBertModel(config), tokenizer


def _qwen3() -> tuple[Any, Any]:
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

    backend = byte_bpe(["<|endoftext|>"])
    backend.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        padding_side="left",
    )
    config = Qwen3Config(
        vocab_size=backend.get_vocab_size(),
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        **_SIZES,
    )
    return Qwen3Model(config), tokenizer


BERT = Family(name="bert", pooling="mean", build=_bert, token_type_ids=True, light_tokenizer=True)
FAMILIES = (
    BERT,
    Family(
        name="roberta",
        pooling="mean",
        build=_roberta,
        token_type_ids=False,
        light_tokenizer=False,
    ),
    Family(
        name="xlm-roberta",
        pooling="cls",
        build=_xlm_roberta,
        token_type_ids=False,
        light_tokenizer=False,
    ),
    Family(
        name="distilbert",
        pooling="mean",
        build=_distilbert,
        token_type_ids=False,
        light_tokenizer=True,
    ),
    Family(name="mpnet", pooling="mean", build=_mpnet, token_type_ids=False, light_tokenizer=False),
    Family(
        name="electra", pooling="cls", build=_electra, token_type_ids=True, light_tokenizer=True
    ),
    Family(
        name="modernbert",
        pooling="cls",
        build=_modernbert,
        token_type_ids=False,
        light_tokenizer=True,
    ),
    Family(
        name="qwen3",
        pooling="lasttoken",
        build=_qwen3,
        token_type_ids=False,
        light_tokenizer=True,
    ),
)
