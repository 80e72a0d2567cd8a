"""Files of texts, written where a test wants them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

from targets.errors import ExitCode, TextsError

Record = Mapping[str, object]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    def write_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


@pytest.fixture
def write_jsonl(write: Callable[[str, str], Path]) -> Callable[[str, Iterable[object]], Path]:
    def write_records(name: str, records: Iterable[object]) -> Path:
        lines = (json.dumps(record, ensure_ascii=False) for record in records)
        return write(name, "".join(f"{line}\n" for line in lines))

    return write_records


@pytest.fixture
def beir(
    tmp_path: Path,
    write: Callable[[str, str], Path],
    write_jsonl: Callable[[str, Iterable[object]], Path],
) -> Callable[..., Path]:
    """A BEIR folder with six documents and four queries; any file can be replaced."""

    def make(
        *,
        corpus: Iterable[Record] | None = None,
        queries: Iterable[Record] | None = None,
        qrels: Mapping[str, str] | None = None,
    ) -> Path:
        documents = [{"_id": f"d{i}", "title": f"title {i}", "text": f"body {i}"} for i in range(6)]
        asked = [{"_id": f"q{i}", "text": f"question {i}"} for i in range(4)]
        lines = "query-id\tcorpus-id\tscore\n" + "".join(f"q{i}\td{i}\t1\n" for i in range(4))
        write_jsonl("set/corpus.jsonl", documents if corpus is None else corpus)
        write_jsonl("set/queries.jsonl", asked if queries is None else queries)
        for name, content in ({"test.tsv": lines} if qrels is None else qrels).items():
            write(f"set/qrels/{name}", content)
        return tmp_path / "set"

    return make


@pytest.fixture
def refused() -> Callable[..., TextsError]:
    """Call something that must raise a TextsError whose message holds every fragment."""

    def check(call: Callable[[], object], *fragments: str) -> TextsError:
        with pytest.raises(TextsError) as caught:
            call()
        message = str(caught.value)
        for fragment in fragments:
            assert fragment in message
        assert caught.value.exit_code is ExitCode.USAGE
        assert caught.value.hint
        assert "Traceback" not in message
        return caught.value

    return check
