"""The built-in calibration texts keep what their manifest and README promise."""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.resources.abc import Traversable

import pytest

KINDS = {
    *("code", "edge", "list", "log", "message", "paragraph"),
    *("product", "query", "question", "sentence", "table", "title"),
}
FIELDS = ["id", "kind", "language", "text"]
NEARLY_EQUAL = 0.5
"""Share of common character 5-grams (Jaccard) above which two texts are variations of one."""

Record = dict[str, str]


def resource(name: str) -> Traversable:
    return importlib.resources.files("calibration_data") / name


def parse(data: bytes) -> list[Record]:
    return [json.loads(line) for line in data.decode("utf-8").splitlines()]


def normalize(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def repeated(values: Sequence[str]) -> list[str]:
    return [value for value, count in Counter(values).items() if count > 1]


def untrimmed(records: Sequence[Record]) -> list[str]:
    return [r["id"] for r in records if not r["text"] or r["text"] != r["text"].strip()]


def grams(text: str, size: int = 5) -> frozenset[str]:
    folded = normalize(text)
    return frozenset(folded[i : i + size] for i in range(max(1, len(folded) - size + 1)))


def nearly_equal(records: Sequence[Record]) -> list[tuple[str, str]]:
    """Pairs of ids whose texts share most of their 5-grams.

    Two such texts must share one of the rarer half of their grams (prefix filtering for set
    similarity joins: Chaudhuri, Ganti, Kaushik, ICDE 2006), so only those pairs are compared.
    """
    sets = {r["id"]: grams(r["text"]) for r in records}
    frequency = Counter(gram for one in sets.values() for gram in one)
    holders: dict[str, list[str]] = {}
    candidates: set[tuple[str, str]] = set()
    for name, one in sets.items():
        rarest_first = sorted(one, key=lambda gram: (frequency[gram], gram))
        for gram in rarest_first[: len(one) // 2 + 1]:
            candidates.update((other, name) for other in holders.get(gram, ()))
            holders.setdefault(gram, []).append(name)
    return sorted(pair for pair in candidates if similarity(sets, pair) > NEARLY_EQUAL)


def similarity(sets: Mapping[str, frozenset[str]], pair: tuple[str, str]) -> float:
    first, second = (sets[name] for name in pair)
    return len(first & second) / len(first | second)


def falsehoods(manifest: Mapping[str, object], data: bytes) -> list[str]:
    """Names of the manifest's entries that are not true of the texts."""
    records = parse(data)
    truth: dict[str, object] = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "size_bytes": len(data),
        "num_texts": len(records),
        "kinds": dict(Counter(r["kind"] for r in records)),
        "languages": dict(Counter(r["language"] for r in records)),
    }
    return [name for name, value in truth.items() if manifest.get(name) != value]


def length_shares(texts: Sequence[str]) -> dict[str, float]:
    """Shares of tiny, short, medium and long texts, by UTF-8 bytes."""
    sizes = [len(text.encode("utf-8")) for text in texts]
    borders = {"tiny": (0, 24), "short": (24, 120), "medium": (120, 480), "long": (480, 4096)}
    return {
        name: sum(low <= size < high for size in sizes) / len(sizes)
        for name, (low, high) in borders.items()
    }


def is_spread(texts: Sequence[str]) -> bool:
    shares = length_shares(texts)
    return min(shares.values()) >= 0.08 and sum(shares.values()) == pytest.approx(1.0)


@pytest.fixture(scope="module")
def data() -> bytes:
    return resource("texts.jsonl").read_bytes()


@pytest.fixture(scope="module")
def manifest() -> dict[str, object]:
    content: dict[str, object] = json.loads(resource("manifest.json").read_text("utf-8"))
    return content


@pytest.fixture(scope="module")
def records(data: bytes) -> list[Record]:
    return parse(data)


def test_the_manifest_is_true(manifest: dict[str, object], data: bytes) -> None:
    assert falsehoods(manifest, data) == []
    assert manifest["file"] == "texts.jsonl"
    assert manifest["license"] == "CC0-1.0"
    assert "written for this project" in str(manifest["origin"]).lower()


def test_the_length_counts_of_the_manifest_add_up(manifest: dict[str, object]) -> None:
    lengths = manifest["token_lengths"]
    assert isinstance(lengths, dict)
    quantiles = list(lengths["quantiles"].values())
    assert sum(lengths["counts"].values()) == manifest["num_texts"]
    assert quantiles == sorted(quantiles)
    assert lengths["quantiles"]["max"] <= 300


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (lambda d: d.replace(b"kettle", b"cattle", 1), "sha256"),
        (lambda d: d + d.splitlines(keepends=True)[0], "num_texts"),
        (lambda d: d.replace(b'"kind": "log"', b'"kind": "list"', 1), "kinds"),
        (lambda d: d.replace(b'"language": "sv"', b'"language": "da"', 1), "languages"),
    ],
)
def test_a_changed_text_file_belies_the_manifest(
    manifest: dict[str, object], data: bytes, damage: Callable[[bytes], bytes], name: str
) -> None:
    assert name in falsehoods(manifest, damage(data))


def test_there_are_enough_texts_of_every_kind_and_language(records: list[Record]) -> None:
    kinds = Counter(r["kind"] for r in records)
    languages = Counter(r["language"] for r in records)
    assert len(records) >= 600
    assert set(kinds) == KINDS
    assert min(kinds.values()) >= 25
    assert len(languages) >= 10
    assert min(languages.values()) >= 8
    assert 0.5 <= languages["en"] / len(records) <= 0.75


def test_every_record_has_the_four_fields(records: list[Record]) -> None:
    assert all(list(r) == FIELDS for r in records)
    assert all(isinstance(value, str) for r in records for value in r.values())


def test_ids_and_texts_are_unique(records: list[Record]) -> None:
    assert repeated([r["id"] for r in records]) == []
    assert repeated([normalize(r["text"]) for r in records]) == []


def test_a_planted_duplicate_is_found(records: list[Record]) -> None:
    shouted = records[0]["text"].upper().replace(" ", " \n ")
    assert repeated([normalize(t) for t in (records[0]["text"], "other", shouted)]) == [
        normalize(records[0]["text"])
    ]


def test_no_text_is_a_variation_of_another(records: list[Record]) -> None:
    assert nearly_equal(records) == []


def test_a_planted_variation_is_found() -> None:
    texts = [
        "The parcel for order 1001 was left with a neighbour on Monday.",
        "The parcel for order 2417 was left with a neighbour on Friday.",
        "Heavy rain is expected along the coast until the end of the week.",
    ]
    planted = [{"id": str(i), "text": text} for i, text in enumerate(texts)]
    assert nearly_equal(planted) == [("0", "1")]


def test_no_text_is_empty_or_untrimmed(records: list[Record]) -> None:
    assert untrimmed(records) == []


@pytest.mark.parametrize("text", ["", " ", "trailing ", "\nleading"])
def test_an_empty_or_untrimmed_text_is_found(text: str) -> None:
    assert untrimmed([{"id": "fine", "text": "fine"}, {"id": "bad", "text": text}]) == ["bad"]


def test_lengths_are_spread(records: list[Record]) -> None:
    texts = [r["text"] for r in records]
    assert is_spread(texts)
    assert sum(len(text.split()) == 1 for text in texts) >= 30
    assert sum(len(text.split()) >= 200 for text in texts) >= 5
    assert min(len(text) for text in texts) == 1


def test_texts_of_one_length_are_not_spread() -> None:
    assert not is_spread(["the same length again and again"] * 100)
    assert not is_spread(["a", "b" * 100, "c" * 300, "d" * 5000])


def test_the_first_texts_are_a_fair_sample(records: list[Record]) -> None:
    first = records[:300]
    assert {r["kind"] for r in first} == KINDS
    assert len({r["language"] for r in first}) >= 10
    assert is_spread([r["text"] for r in first])


def test_texts_sorted_by_kind_would_not_be_a_fair_sample(records: list[Record]) -> None:
    by_kind = sorted(records, key=lambda r: r["kind"])
    assert {r["kind"] for r in by_kind[:300]} != KINDS


def test_the_folder_holds_no_python() -> None:
    names = {entry.name for entry in importlib.resources.files("calibration_data").iterdir()}
    assert {"texts.jsonl", "manifest.json", "README.md"} <= names
    assert not any(name.endswith(".py") for name in names)


def test_the_readme_names_the_number_of_texts(records: list[Record]) -> None:
    assert f"holds {len(records)} such texts" in resource("README.md").read_text("utf-8")
