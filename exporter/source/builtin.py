"""The built-in evaluation set: docstrings of Python's own standard library.

Real text that every machine has, and nobody's text is shipped: the summary line of a
docstring (PEP 257) is a query, the rest of that docstring is the one document relevant to it.
"""

from __future__ import annotations

import ast
import gc
import os
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from exporter.source.evaluation_sets import make_evaluation_set, make_judgements
from exporter.source.text_lines import normalize_text, unreadable
from exporter.values import EvaluationSet
from targets.errors import TextsError

NUM_PAIRS = 1300
"""Enough for 250 development and 1,050 test queries; more only costs embedding time."""

MIN_PAIRS = 1250

# Not the library's own prose, or not in every Python from 3.11 on.
_SKIPPED_FOLDERS = frozenset(
    (
        *("__pycache__", "dist-packages", "distutils", "encodings", "ensurepip", "idlelib"),
        *("lib2to3", "msilib", "pydoc_data", "site-packages", "test", "tests", "turtledemo"),
    )
)
_SKIPPED_FILES = frozenset(("sitecustomize.py", "usercustomize.py"))

# A summary line, a blank line and the begin of a body: cheap to count without parsing.
_LIKELY_DOCSTRING = re.compile(rb'"""[^"\n]{12,120}\r?\n[ \t]*\r?\n[^"]{50}')

_QUERY_WORDS = range(3, 26)
_MIN_DOCUMENT_WORDS = 8
_MAX_DOCUMENT_WORDS = 80
_MAX_DOCUMENT_CHARACTERS = 360
_MIN_LETTER_SHARE = 0.6
"""Below it a text is a table, a ruler or doctest output rather than prose."""

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_DEFINITIONS = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class _Pair(NamedTuple):
    entry_id: str
    query: str
    document: str


def builtin_evaluation(stdlib: Path | None = None) -> EvaluationSet:
    """Extract query/document pairs from the standard library's sources; nothing is imported.

    Files dense in docstrings come first, until `NUM_PAIRS` pairs are found. No text, query or
    document, occurs twice (normalized). Deterministic for the same sources.

    Args:
        stdlib: the library's folder; None: this interpreter's.

    Raises:
        TextsError: if the sources are missing or give fewer than `MIN_PAIRS` pairs.
    """
    root = Path(sysconfig.get_path("stdlib")) if stdlib is None else stdlib
    with _collector_paused():
        pairs = _distinct_pairs(root)
    if len(pairs) < MIN_PAIRS:
        raise TextsError(
            f"the built-in evaluation set cannot be made from {root}",
            why=f"it needs {MIN_PAIRS} docstrings of Python's standard library and {len(pairs)} "
            "were found: the sources are not (all) installed",
            hint="give evaluation texts with --eval, or install the full standard library "
            "(on Debian: python3 instead of python3-minimal)",
        )
    ids = [pair.entry_id for pair in pairs]
    return make_evaluation_set(
        name="builtin",
        origin=f"docstrings of the standard library of Python {platform.python_version()}",
        query_ids=ids,
        queries=[pair.query for pair in pairs],
        document_ids=ids,
        documents=[pair.document for pair in pairs],
        judgements=make_judgements((i, i, 1.0) for i in range(len(pairs))),
        note="query: a docstring's summary line; relevant document: the rest of that docstring, "
        f"cut at {_MAX_DOCUMENT_WORDS} words",
    )


@contextmanager
def _collector_paused() -> Iterator[None]:
    # Syntax trees have no cycles, and beside a loaded torch the collector's passes over
    # all objects take longer than the parsing.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _distinct_pairs(root: Path) -> list[_Pair]:
    pairs: list[_Pair] = []
    seen: set[str] = set()
    for path, source in _dense_files(root):
        for pair in _pairs_of(path.relative_to(root).as_posix(), source):
            texts = {normalize_text(pair.query), normalize_text(pair.document)}
            if len(texts) == 2 and not texts & seen:
                seen |= texts
                pairs.append(pair)
                if len(pairs) == NUM_PAIRS:
                    return pairs
    return pairs


def _dense_files(root: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield sources by likely docstrings per byte, so that little has to be parsed."""
    ranked = []
    for path in _sources(root):
        source = _read(path)
        likely = len(_LIKELY_DOCSTRING.findall(source))
        if likely:
            ranked.append((-likely / len(source), path.as_posix(), path, source))
    for _, _, path, source in sorted(ranked):
        yield path, source


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error


def _sources(root: Path) -> Iterator[Path]:
    for folder, subfolders, files in os.walk(root):
        # A name that no `import` can reach (config-3.12-x86_64-linux-gnu) is no package.
        subfolders[:] = [
            name for name in subfolders if name.isidentifier() and name not in _SKIPPED_FOLDERS
        ]
        for name in files:
            if name.endswith(".py") and name not in _SKIPPED_FILES:
                yield Path(folder, name)


def _pairs_of(name: str, source: bytes) -> Iterator[_Pair]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Invalid escapes in sources that are not ours.
            module = ast.parse(source)
    except (SyntaxError, ValueError):  # A template or a test's broken file, not a module.
        return
    for node in _documented(module):
        pair = _pair(name, node)
        if pair is not None:
            yield pair


def _documented(node: _Documented) -> Iterator[_Documented]:
    """Yield a module, its classes and their methods, in source order; not local functions."""
    yield node
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for child in node.body:
        if isinstance(child, _DEFINITIONS):
            yield from _documented(child)


def _pair(name: str, node: _Documented) -> _Pair | None:
    docstring = ast.get_docstring(node)
    if docstring is None:
        return None
    summary, _, body = docstring.partition("\n\n")
    query, document = " ".join(summary.split()), _cut(body)
    if len(query.split()) not in _QUERY_WORDS or not _is_prose(document):
        return None
    return _Pair(f"{name}:{node.body[0].lineno}", query, document)


def _is_prose(document: str) -> bool:
    words = document.split()
    letters = sum(map(str.isalpha, document))
    return len(words) >= _MIN_DOCUMENT_WORDS and letters >= _MIN_LETTER_SHARE * len("".join(words))


def _cut(body: str) -> str:
    """Return the begin of a body on one line, cut between words."""
    text = " ".join(body.split()[:_MAX_DOCUMENT_WORDS])
    if len(text) <= _MAX_DOCUMENT_CHARACTERS:
        return text
    return text[: _MAX_DOCUMENT_CHARACTERS + 1].rpartition(" ")[0]
