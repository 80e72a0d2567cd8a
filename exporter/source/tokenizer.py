"""Texts to token ids, exactly as Sentence Transformers makes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from exporter.source.model_files import read_json_object, read_optional_json
from exporter.source.modules import transformer_folder
from exporter.source.quiet import quiet
from exporter.source.sentence_config import read_sentence_config, tokenizer_arguments
from exporter.source.tokenizer_rules import is_plain
from exporter.values import EncoderSpec
from targets.contract import Progress, TokenSequences, no_progress
from targets.errors import ModelError, TextsError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_TEXTS_PER_STEP = 512


class _Encode(Protocol):
    def __call__(self, texts: list[str]) -> list[tuple[list[int], bool]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TextTokenizer:
    """A model's tokenizer with its prompt and its length limit.

    Args:
        pad_token_id: what a batch is padded with.
        max_seq_length: the limit in tokens, special tokens included.
        prompt: put before every text.
        needs_transformers: whether Transformers had to be loaded to build it.
    """

    pad_token_id: int
    max_seq_length: int
    prompt: str
    needs_transformers: bool
    _encode: _Encode

    def encode(self, texts: Sequence[str], progress: Progress = no_progress) -> TokenSequences:
        """Turn texts into token ids, truncated at the model's limit.

        Args:
            texts: any texts; the model's default prompt is put before each.
            progress: called with the number of texts done.

        Raises:
            TextsError: if a text is not valid Unicode (a lone surrogate).
        """
        ids: list[np.ndarray] = []
        num_truncated = 0
        for start in range(0, len(texts), _TEXTS_PER_STEP):
            chunk = [self.prompt + text for text in texts[start : start + _TEXTS_PER_STEP]]
            _check_unicode(chunk, start)
            for sequence, truncated in self._encode(chunk):
                ids.append(np.asarray(sequence, np.int32))
                num_truncated += truncated
            progress(len(ids), len(texts))
        return TokenSequences.from_lists(ids, self.pad_token_id, num_truncated)


def load_tokenizer(spec: EncoderSpec) -> TextTokenizer:
    """Build the tokenizer of a model; without Transformers where tokenizer.json says it all.

    Raises:
        ModelError: if the tokenizer's files are damaged or cannot be loaded.
    """
    folder = transformer_folder(spec.directory)
    settings = read_sentence_config(folder)
    arguments = tokenizer_arguments(settings)
    build = (None if arguments else _plain_build(folder, spec.model_type)) or _transformers_build(
        spec, folder, arguments
    )
    if build.backend is None:
        encode = _slow_encoder(build.slow, spec.max_seq_length)
    else:
        encode = _fast_encoder(build, spec.max_seq_length, bool(settings.get("do_lower_case")))
    return TextTokenizer(
        pad_token_id=build.pad_token_id,
        max_seq_length=spec.max_seq_length,
        prompt=spec.default_prompt,
        needs_transformers=build.needs_transformers,
        _encode=encode,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Build:
    backend: Tokenizer | None
    slow: Any = None
    pad_token_id: int
    truncation_side: str
    needs_transformers: bool


def _plain_build(folder: Path, model_type: str) -> _Build | None:
    path = folder / "tokenizer.json"
    settings = read_optional_json(folder / "tokenizer_config.json")
    if not path.is_file() or not is_plain(read_json_object(path), settings, model_type):
        return None
    from tokenizers import Tokenizer

    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception (Rust binding, 0.23)
        raise _unusable(folder, error) from error
    own_side = (backend.truncation or {}).get("direction", "right")
    return _Build(
        backend=backend,
        pad_token_id=_plain_pad_token_id(settings, backend),
        truncation_side=str(settings.get("truncation_side") or own_side),
        needs_transformers=False,
    )


def _plain_pad_token_id(settings: dict[str, Any], backend: Tokenizer) -> int:
    token = settings.get("pad_token")
    content = token.get("content") if isinstance(token, dict) else token
    found = backend.token_to_id(str(content)) if content else None
    return found if found is not None else int((backend.padding or {}).get("pad_id", 0))


def _transformers_build(spec: EncoderSpec, folder: Path, arguments: dict[str, Any]) -> _Build:
    with quiet():
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=spec.trust_remote_code,
                **arguments,
            )
        except Exception as error:  # any of several libraries parses the files
            raise _unusable(folder, error) from error
    return _Build(
        backend=tokenizer.backend_tokenizer if tokenizer.is_fast else None,
        slow=tokenizer,
        pad_token_id=tokenizer.pad_token_id or 0,
        truncation_side=tokenizer.truncation_side,
        needs_transformers=True,
    )


def _unusable(folder: Path, error: Exception) -> ModelError:
    return ModelError(
        f"the tokenizer in {folder} cannot be loaded",
        why=str(error).strip() or repr(error),
        hint="save it again: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)",
    )


def _fast_encoder(build: _Build, max_seq_length: int, lower_case: bool) -> _Encode:
    backend = cast("Tokenizer", build.backend)
    if lower_case:
        _lower_case_first(backend)
    backend.no_padding()
    backend.enable_truncation(max_length=max_seq_length, direction=build.truncation_side)

    def encode(texts: list[str]) -> list[tuple[list[int], bool]]:
        return [(e.ids, bool(e.overflowing)) for e in backend.encode_batch(texts)]

    return encode


def _lower_case_first(backend: Tokenizer) -> None:
    """Lower-case before everything else (as Transformer.__init__ of Sentence Transformers 6.2)."""
    from tokenizers.normalizers import Lowercase, Normalizer
    from tokenizers.normalizers import Sequence as Chain

    own = backend.normalizer
    steps: list[Normalizer] = [own] if own else []
    if isinstance(own, Chain):
        steps = list(cast("Iterable[Normalizer]", own))
    if not any(isinstance(step, Lowercase) for step in steps):
        backend.normalizer = Chain([Lowercase(), *steps])


def _slow_encoder(tokenizer: Any, max_seq_length: int) -> _Encode:  # noqa: ANN401
    def encode(texts: list[str]) -> list[tuple[list[int], bool]]:
        cut = tokenizer(texts, truncation="longest_first", max_length=max_seq_length)["input_ids"]
        whole = tokenizer(texts)["input_ids"]
        return [(list(c), len(w) > len(c)) for c, w in zip(cut, whole, strict=True)]

    return encode


def _check_unicode(texts: list[str], first: int) -> None:
    for index, text in enumerate(texts):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise TextsError(
                f"text {first + index} is not valid Unicode",
                why=str(error),
                hint="remove lone surrogates from it",
            ) from error
