"""All calibration texts of a source, one after another, however many there are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporter.source.builtin_texts import builtin_texts_file
from exporter.source.layouts import read_texts, text_file
from exporter.source.text_lines import existing_path
from exporter.source.tokenizer import TextTokenizer
from targets.errors import TextsError
from targets.hashing import sha256_file

_TEXTS_PER_STEP = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSource:
    """A file of texts in one of the layouts, read line by line whenever it is iterated.

    Args:
        path: the file; None: the built-in texts.
        field: JSON field or column that holds the text.
    """

    path: Path | None
    field: str

    def __iter__(self) -> Iterator[str]:
        with self._file() as path:
            for located in read_texts(path, self.field):
                yield located.text

    @property
    def sha256(self) -> str:
        """Hash of the file's bytes."""
        with self._file() as path:
            return sha256_file(path)

    @property
    def origin(self) -> str:
        """Where the texts come from, for people."""
        return "built-in calibration texts" if self.path is None else str(self.path)

    def _file(self) -> AbstractContextManager[Path]:
        return builtin_texts_file() if self.path is None else nullcontext(self.path)


def text_source(source: str | None, field: str) -> TextSource:
    """Find a source of texts; no more than its first text is read.

    Args:
        source: file or folder; None: the built-in texts.
        field: JSON field or column that holds the text; not used for `.txt`.

    Raises:
        TextsError: if nothing is there, its layout is not known, or it has no text.
    """
    path = None if source is None else text_file(existing_path(source))
    found = TextSource(path=path, field="text" if path is None else field)
    if next(iter(found), None) is None:
        raise TextsError(
            f"{found.origin} has no texts",
            why="it is empty or all its texts are blank",
            hint="give a file with texts, or leave --calibration out to use the built-in ones",
        )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenStream:
    """Token ids of a source's texts, tokenized in chunks whenever it is iterated."""

    source: TextSource
    tokenizer: TextTokenizer

    def __iter__(self) -> Iterator[NDArray[np.int32]]:
        texts = iter(self.source)
        while chunk := list(islice(texts, _TEXTS_PER_STEP)):
            yield from self.tokenizer.encode(chunk)
