"""How many tokens a model takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.source.model_files import read_optional_json
from exporter.source.sentence_config import read_sentence_config, tokenizer_arguments
from targets.errors import ConfigError, ModelError

# Tokenizers without a limit say 1e30 (transformers' VERY_LARGE_INTEGER).
_SANE_LIMIT = 1_000_000
# Two special tokens and something between them.
_SMALLEST_LIMIT = 4
# Their position ids begin behind the padding index, so that many positions cannot be used
# (create_position_ids_from_input_ids in transformers 5.23).
_OFFSET_MODEL_TYPES = frozenset(
    {
        "camembert",
        "data2vec-text",
        "ibert",
        "longformer",
        "luke",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceLimit:
    """The longest sequence in tokens, special tokens included, and what had to be assumed."""

    max_seq_length: int
    warnings: tuple[str, ...] = ()


def sequence_limit(folder: Path, config: dict[str, Any], asked: int | None) -> SequenceLimit:
    """Find the longest sequence that the model was made for.

    In order: what the user asked for, the Sentence Transformers settings, the tokenizer's
    `model_max_length`, the number of positions.

    Raises:
        ConfigError: if `asked` is more than the model has positions for, or too small.
        ModelError: if nothing says how long a text may be.
    """
    positions = _positions(config)
    if asked is not None:
        return SequenceLimit(max_seq_length=_checked(asked, positions))
    declared = _declared(folder)
    if declared is None and positions is None:
        raise ModelError(
            f"{folder} does not say how long a text may be",
            why="no max_seq_length, no model_max_length, no max_position_embeddings",
            hint="name it with --max-seq-length",
        )
    if declared is None or positions is None or declared <= positions:
        return SequenceLimit(max_seq_length=min(declared or _SANE_LIMIT, positions or _SANE_LIMIT))
    return SequenceLimit(
        max_seq_length=positions,
        warnings=(
            f"the model's settings allow {declared} tokens but it has {positions} positions: "
            f"texts are cut at {positions}",
        ),
    )


def _checked(asked: int, positions: int | None) -> int:
    if asked < _SMALLEST_LIMIT:
        raise ConfigError(
            f"--max-seq-length {asked} is too small",
            why="special tokens need their place",
            hint=f"{_SMALLEST_LIMIT} at least",
        )
    if positions is not None and asked > positions:
        raise ConfigError(
            f"--max-seq-length {asked} is too large", why=f"the model has {positions} positions"
        )
    return asked


def _declared(folder: Path) -> int | None:
    settings = read_sentence_config(folder)
    tokenizer = read_optional_json(folder / "tokenizer_config.json")
    arguments = tokenizer_arguments(settings)
    for value in (
        arguments.get("model_max_length"),
        settings.get("max_seq_length"),
        tokenizer.get("model_max_length"),
    ):
        if isinstance(value, int | float) and 0 < value < _SANE_LIMIT:
            return int(value)
    return None


def _positions(config: dict[str, Any]) -> int | None:
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or positions <= 0:
        return None
    if config["model_type"] not in _OFFSET_MODEL_TYPES:
        return positions
    padding_index = config.get("pad_token_id")
    return positions - (1 if padding_index is None else int(padding_index)) - 1
