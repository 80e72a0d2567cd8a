from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from exporter.source.builtin import MIN_PAIRS, NUM_PAIRS, builtin_evaluation
from exporter.source.builtin_texts import builtin_texts_file

MODULE = '"""Number {i} is the module about this.\n\n{body}\n"""\n'


def write_modules(
    root: Path,
    count: int,
    body: str = "The text of module {i} has enough words in it to be a document.",
) -> None:
    for i in range(count):
        text = MODULE.format(i=i, body=body.format(i=i))
        (root / f"module_{i}.py").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("library")
    write_modules(root, MIN_PAIRS)
    return root


def test_summary_is_the_query_and_body_the_document(library: Path) -> None:
    found = builtin_evaluation(library)
    assert len(found.queries) == MIN_PAIRS
    i = found.query_ids.index("module_7.py:1")
    assert found.queries[i] == "Number 7 is the module about this."
    assert found.documents[i] == "The text of module 7 has enough words in it to be a document."
    assert found.judgements is not None
    assert found.judgements.query.tolist() == found.judgements.document.tolist()
    assert found.origin.startswith("docstrings of the standard library of Python 3.")


def test_collector_runs_again_afterwards(library: Path) -> None:
    assert gc.isenabled()
    builtin_evaluation(library)
    assert gc.isenabled()


def test_missing_sources(tmp_path: Path, refused) -> None:
    refused(lambda: builtin_evaluation(tmp_path / "none"), "built-in", "0 were found", "--eval")


def test_too_few_docstrings(tmp_path: Path, refused) -> None:
    write_modules(tmp_path, MIN_PAIRS - 1)
    refused(lambda: builtin_evaluation(tmp_path), f"{MIN_PAIRS - 1} were found", "--eval")


FILLER = '''
class Filler:
    """Make sure that this file is parsed.

    Whether a file is looked at depends on all its docstrings together.
    """
'''


def add_one(library: Path, source: str, name: str = "extra.py") -> list[tuple[str, str]]:
    """Return the pairs that one more file adds to the library."""
    path = library / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(source + FILLER, encoding="utf-8")
    try:
        found = builtin_evaluation(library)
    finally:
        path.unlink()
    rows = zip(found.query_ids, found.queries, found.documents, strict=True)
    added = [(query, document) for text_id, query, document in rows if "extra" in text_id]
    return [pair for pair in added if not pair[0].startswith("Make sure")]


def docstring(summary: str, body: str) -> str:
    return f'"""{summary}\n\n{body}\n"""\n'


BODY = "A body that is long enough to count as a document of its own."


def test_methods_and_nested_classes_count(library: Path) -> None:
    method = docstring("Answer the question asked.", BODY).replace("\n", "\n        ")
    source = f"class A:\n    def f(self):\n        {method}\n        def inner(): pass\n"
    assert add_one(library, source) == [("Answer the question asked.", BODY)]


def test_nothing_is_executed(library: Path) -> None:
    source = docstring("Summary of the file here.", BODY) + "raise SystemExit(1)\n"
    assert add_one(library, source) == [("Summary of the file here.", BODY)]


@pytest.mark.parametrize(
    ("summary", "body"),
    [
        ("Number 7 IS the  module about this.", BODY),
        (
            "Number 7000 is another module.",
            "The text of  Module 7 has enough words in it to be a document.",
        ),
        ("Short summary", BODY),
        ("Summary of a body that is short.", "Only seven words are in this body."),
        ("Summary of a table of figures.", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 a"),
        ("Summary that is too long for one query " + "word " * 25, BODY),
    ],
)
def test_texts_that_are_left_out(library: Path, summary: str, body: str) -> None:
    assert add_one(library, docstring(summary, body)) == []


@pytest.mark.parametrize("folder", ["test", "site-packages", "idlelib", "config-3.11-x86"])
def test_folders_that_are_left_out(library: Path, folder: str) -> None:
    source = docstring("Answer the question asked.", BODY)
    assert add_one(library, source, f"{folder}/extra.py") == []
    assert len(add_one(library, source, f"package_of_{folder.partition('-')[0]}/extra.py")) == 1


def test_file_that_does_not_parse_is_left_out(library: Path) -> None:
    assert add_one(library, docstring("Answer the question asked.", BODY) + "def broken(:\n") == []


def test_dubious_escapes_are_not_our_warnings(library: Path) -> None:
    source = docstring("Answer the question asked.", BODY) + "x = '\\d'\n"
    assert len(add_one(library, source)) == 1


def test_long_bodies_are_cut_between_words(library: Path) -> None:
    ((_, document),) = add_one(
        library, docstring("Answer the question asked.", "lorem ipsum " * 99)
    )
    assert len(document) <= 360
    assert len(document.split()) <= 80
    assert set(document.split()) == {"lorem", "ipsum"}


def test_size_is_limited(tmp_path: Path) -> None:
    write_modules(tmp_path, NUM_PAIRS + 10)
    assert len(builtin_evaluation(tmp_path).queries) == NUM_PAIRS


# -------------------------------------------------------------- built-in calibration texts


@pytest.fixture
def texts_folder(tmp_path: Path) -> Callable[[object], Path]:
    def make(manifest: object) -> Path:
        (tmp_path / "texts.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
        (tmp_path / "manifest.json").write_text(
            manifest if isinstance(manifest, str) else json.dumps(manifest), encoding="utf-8"
        )
        return tmp_path

    return make


def use(folder: Path) -> bytes:
    with builtin_texts_file(folder) as path:
        return path.read_bytes()


def test_texts_of_the_manifest_are_given(texts_folder) -> None:
    digest = hashlib.sha256(b'{"text": "a"}\n').hexdigest()
    assert use(texts_folder({"sha256": digest})) == b'{"text": "a"}\n'


@pytest.mark.parametrize(
    ("manifest", "fragment"),
    [
        ({"sha256": "0" * 64}, "its manifest says 000"),
        ({}, 'has no "sha256"'),
        ([], 'has no "sha256"'),
        ("{", "is not JSON"),
    ],
)
def test_other_texts_are_refused(texts_folder, refused, manifest: object, fragment: str) -> None:
    folder = texts_folder(manifest)
    refused(lambda: use(folder), "built-in calibration texts", fragment, "install")


def test_missing_file_is_named(texts_folder, refused) -> None:
    folder = texts_folder({})
    (folder / "texts.jsonl").unlink()
    refused(lambda: use(folder), "texts.jsonl is missing")
