from __future__ import annotations

import json
import tracemalloc

import pytest

from exporter.source.corpus import MIN_CALIBRATION_TEXTS, load_calibration
from exporter.source.sampling import Reservoir
from exporter.source.text_lines import normalize_text
from exporter.values import fingerprint_texts


def lines(count: int) -> str:
    return "".join(f"text number {i}\n" for i in range(count))


def test_all_are_taken_where_there_are_fewer(write) -> None:
    path = write("a.txt", lines(120))
    found = load_calibration(str(path), num_samples=300, seed=0)
    assert found.texts == tuple(lines(120).splitlines())
    assert (found.name, found.origin) == ("a", str(path))
    assert found.sha256 == fingerprint_texts(found.texts)


def test_sample_keeps_the_order_and_says_its_size(write) -> None:
    path = write("a.txt", lines(1000))
    found = load_calibration(str(path), num_samples=150, seed=3)
    numbers = [int(text.rsplit(" ")[-1]) for text in found.texts]
    assert len(numbers) == 150
    assert numbers == sorted(numbers)
    assert max(numbers) > 900
    assert min(numbers) < 100
    assert found.origin == f"{path} (150 of 1000 texts, seed 3)"


def test_seed_decides(write) -> None:
    path = str(write("a.txt", lines(1000)))
    first = load_calibration(path, num_samples=100, seed=1)
    assert load_calibration(path, num_samples=100, seed=1) == first
    assert load_calibration(path, num_samples=100, seed=2).texts != first.texts


def test_repeated_texts_count_once(write) -> None:
    found = load_calibration(
        str(write("a.txt", lines(110) + lines(110).upper())), num_samples=500, seed=0
    )
    assert found.texts == tuple(lines(110).splitlines())


def test_folder_gives_its_corpus(beir) -> None:
    corpus = [{"_id": str(i), "title": "", "text": f"document {i}"} for i in range(100)]
    found = load_calibration(str(beir(corpus=corpus)), num_samples=100, seed=0)
    assert (found.name, len(found.texts)) == ("set", 100)


def test_named_field(write_jsonl) -> None:
    path = write_jsonl("a.jsonl", [{"body": f"text {i}"} for i in range(100)])
    assert len(load_calibration(str(path), field="body", num_samples=100, seed=0).texts) == 100


def test_too_few_texts(write, refused) -> None:
    path = write("a.txt", lines(99) + lines(99))
    refused(
        lambda: load_calibration(str(path), num_samples=300, seed=0),
        f"{path}: 99 different texts found, calibration needs {MIN_CALIBRATION_TEXTS}",
        "198 texts were read",
    )


def test_few_texts_are_enough_where_few_are_wanted(write, refused) -> None:
    path = str(write("a.txt", lines(20)))
    assert len(load_calibration(path, num_samples=20, seed=0).texts) == 20
    refused(lambda: load_calibration(path, num_samples=21, seed=0), "20 different texts found")


def test_empty_file(write, refused) -> None:
    path = write("a.txt", "")
    refused(lambda: load_calibration(str(path), num_samples=300, seed=0), "0 different texts")


@pytest.mark.parametrize("count", [0, -5])
def test_no_texts_wanted(write, refused, count: int) -> None:
    path = write("a.txt", lines(200))
    refused(
        lambda: load_calibration(str(path), num_samples=count, seed=0), "--num-samples", str(count)
    )


def test_evaluation_text_in_a_users_file_is_named(write, refused) -> None:
    path = write("a.txt", lines(200))
    exclude = {normalize_text("Text  NUMBER 57"), normalize_text("text number 90")}
    refused(
        lambda: load_calibration(str(path), num_samples=100, seed=0, exclude=exclude),
        f"{path}, line 58",
        '"text number 57"',
        "evaluation text",
    )


def test_other_evaluation_texts_do_not_matter(write) -> None:
    path = str(write("a.txt", lines(200)))
    without = load_calibration(path, num_samples=100, seed=0)
    exclude = {"text number 200", "Text Number 3"}
    assert load_calibration(path, num_samples=100, seed=0, exclude=exclude) == without


def test_progress_is_told(write) -> None:
    seen: list[int] = []

    def progress(done: int, total: int | None = None) -> None:
        seen.append(done)

    load_calibration(str(write("a.txt", lines(9000))), num_samples=100, seed=0, progress=progress)
    assert seen == [4096, 8192]


def test_memory_grows_with_the_sample_not_with_the_file(write) -> None:
    rows = "".join(json.dumps({"text": f"{i} " + "word " * 40}) + "\n" for i in range(6_000))
    path = str(write("big.jsonl", rows))
    tracemalloc.start()
    found = load_calibration(path, num_samples=100, seed=0)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.texts) == 100
    assert peak_bytes < 400_000 < 1_000_000 < len(rows)


def test_a_repeated_key_never_comes_back() -> None:
    reservoir: Reservoir[int] = Reservoir(10, seed=0)
    for i in range(3000):
        reservoir.offer(f"key {i % 100}", i)
    sample = reservoir.sample()
    assert reservoir.offered == 3000
    assert len(sample) == 10
    assert max(sample) < 100
