"""The calibration table: what was saved comes back, and nothing else passes for a table."""

import dataclasses
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from targets.errors import CalibrationError, ExitCode, StorageError
from targets.quantization.statistics import StreamingStatistics, TensorStatistics
from targets.quantization.table import FORMAT, VERSION, CalibrationTable


def statistics(seed: int, num_channels: int | None = 6, gram: bool = False) -> TensorStatistics:
    streaming = StreamingStatistics(num_channels, gram=gram)
    streaming.add(np.random.default_rng(seed).standard_normal((50, 6)).astype(np.float32))
    return streaming.freeze()


TENSORS = {
    "/encoder/layer.0/Add_output_0": statistics(0, gram=True),
    "embeddings": statistics(1),
    "ünïcode": statistics(2, num_channels=None),
}


def table(**changes: object) -> CalibrationTable:
    made = CalibrationTable(
        tensors=TENSORS,
        graph_sha256="a" * 64,
        tokenizer_sha256="b" * 64,
        corpus_sha256="c" * 64,
        num_texts=300,
        num_tokens=4321,
    )
    return dataclasses.replace(made, **changes)


def assert_same_statistics(one: TensorStatistics, other: TensorStatistics) -> None:
    for field in dataclasses.fields(TensorStatistics):
        first, second = getattr(one, field.name), getattr(other, field.name)
        if field.name == "histogram":
            assert (first.bin_width, first.first_bin) == (second.bin_width, second.first_bin)
            first, second = first.counts, second.counts
        if isinstance(first, np.ndarray):
            assert first.dtype == second.dtype
            np.testing.assert_array_equal(first, second)
        else:
            assert first == second


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "calibration.npz"


def rewrite(path: Path, change: object) -> None:
    """Save a table again with other arrays."""
    table().save(path)
    with np.load(path) as stored:
        arrays = {name: stored[name] for name in stored.files}
    change(arrays)
    with path.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def with_header(**changes: object) -> object:
    def change(arrays: dict[str, np.ndarray]) -> None:
        header = json.loads(arrays["header"].tobytes()) | changes
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)

    return change


def assert_unusable(path: Path, why: str) -> None:
    with pytest.raises(CalibrationError) as caught:
        CalibrationTable.load(path)
    assert str(path) in caught.value.what
    assert why in caught.value.why
    assert "calibration again" in caught.value.hint
    assert caught.value.exit_code == ExitCode.STEP_FAILED


def test_what_was_saved_comes_back(path):
    table().save(path)
    loaded = CalibrationTable.load(path)
    assert set(loaded.tensors) == set(TENSORS)
    for name, expected in TENSORS.items():
        assert_same_statistics(loaded.tensors[name], expected)
    assert loaded.sha256 == table().sha256
    assert (loaded.num_texts, loaded.num_tokens) == (300, 4321)


def test_a_table_without_tensors_comes_back(path):
    table(tensors={}).save(path)
    assert CalibrationTable.load(path).tensors == {}


def test_same_content_gives_same_bytes_in_any_order_of_tensors(tmp_path):
    table().save(tmp_path / "one")
    table(tensors=dict(reversed(TENSORS.items()))).save(tmp_path / "other")
    CalibrationTable.load(tmp_path / "one").save(tmp_path / "again")
    contents = {(tmp_path / name).read_bytes() for name in ("one", "other", "again")}
    assert len(contents) == 1
    with zipfile.ZipFile(tmp_path / "one") as entries:
        assert {entry.date_time for entry in entries.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {entry.compress_type for entry in entries.infolist()} == {zipfile.ZIP_DEFLATED}


@pytest.mark.parametrize(
    "change",
    [
        {"graph_sha256": "d" * 64},
        {"tokenizer_sha256": "d" * 64},
        {"corpus_sha256": "d" * 64},
        {"num_texts": 301},
        {"num_tokens": 4322},
        {"tensors": {**TENSORS, "more": statistics(3)}},
        {"tensors": {**TENSORS, "embeddings": statistics(4)}},
        {"tensors": {**TENSORS, "embeddings": statistics(1, num_channels=None)}},
        {"tensors": {**TENSORS, "embeddings": statistics(1, gram=True)}},
    ],
)
def test_the_hash_follows_the_content(change):
    assert table(**change).sha256 != table().sha256


def test_the_hash_follows_single_numbers_of_a_tensor():
    one = TENSORS["embeddings"]
    mean = one.channel_mean.copy()
    mean[3] = np.nextafter(mean[3], 1)
    changed = dataclasses.replace(one, channel_mean=mean)
    assert table(tensors={**TENSORS, "embeddings": changed}).sha256 != table().sha256


def test_a_symmetric_matrix_is_stored_once(path):
    streaming = StreamingStatistics(200, gram=True)
    streaming.add(np.random.default_rng(0).standard_normal((9, 200)).astype(np.float32))
    table(tensors={"x": streaming.freeze()}).save(path)
    with np.load(path) as stored:
        assert stored["0.gram"].shape == (200 * 201 // 2,)
        assert stored["0.gram"].dtype == np.float32
    assert_same_statistics(CalibrationTable.load(path).tensors["x"], streaming.freeze())


def test_saving_replaces_and_leaves_nothing_aside(path):
    path.write_bytes(b"older")
    with path.open("rb") as reader:
        table().save(path)
        assert reader.read() == b"older"  # whoever has it open keeps the whole old file
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert CalibrationTable.load(path).num_texts == 300


def test_a_save_that_fails_says_so_and_leaves_nothing_aside(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for wrong in (tmp_path / "missing" / "t", tmp_path / "folder", tmp_path / "file" / "t"):
        with pytest.raises(StorageError, match="cannot be written") as caught:
            table().save(wrong)
        assert str(wrong) in caught.value.what
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file", "folder"]


def test_require_accepts_what_the_table_was_made_from():
    table().require()
    table().require(graph_sha256="a" * 64)
    table().require(graph_sha256="a" * 64, tokenizer_sha256="b" * 64, corpus_sha256="c" * 64)


@pytest.mark.parametrize("kind", ["graph", "tokenizer", "corpus"])
def test_require_names_what_differs(kind):
    right = {"graph_sha256": "a" * 64, "tokenizer_sha256": "b" * 64, "corpus_sha256": "c" * 64}
    with pytest.raises(CalibrationError) as caught:
        table().require(**(right | {f"{kind}_sha256": "f" * 64}))
    others = {"graph", "tokenizer", "corpus"} - {kind}
    assert caught.value.what.endswith(f"another {kind}")
    assert f"at hand is {'f' * 12}" in caught.value.why
    assert right[f"{kind}_sha256"][:12] in caught.value.why
    assert kind in caught.value.hint
    assert not any(other in str(caught.value) for other in others)


def test_require_names_everything_that_differs():
    with pytest.raises(CalibrationError, match="another graph and corpus"):
        table().require(graph_sha256="f" * 64, corpus_sha256="f" * 64)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(path, share):
    table().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert_unusable(path, "truncated or damaged")


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("member", [0, 1, 3])
def test_a_damaged_byte_is_noticed(path, member, share):
    table().save(path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.infolist()[member]
    at = info.header_offset  # a local header is 30 bytes, its name, and what it says is added
    header = 30 + sum(int.from_bytes(content[at + i : at + i + 2], "little") for i in (26, 28))
    content[at + header + int(share * info.compress_size)] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match="cannot be used"):
        CalibrationTable.load(path)


def test_other_files_are_refused(path):
    assert_unusable(path, "No such file")
    assert_unusable(path.parent, "Is a directory")
    for content in (b"", b"PK", b"TRT-101601-EntropyCalibration2\nx: 3c010a14\n"):
        path.write_bytes(content)
        assert_unusable(path, "not a zip file")
    np.save(path.with_suffix(".npy"), np.zeros(3))
    assert_unusable(path.with_suffix(".npy"), "not a zip file")


def test_other_archives_are_refused(path):
    np.savez(path, weights=np.zeros(3))
    assert_unusable(path, "no header")
    np.savez(path, header=np.frombuffer(b"not json", np.uint8))
    assert_unusable(path, "no header")
    np.savez(path, header=np.frombuffer(b'{"format": "x", "version": 1}', np.uint8))
    assert_unusable(path, "'x'")
    with zipfile.ZipFile(path, "w") as entries:
        entries.writestr("word/document.xml", "<xml/>")
    assert_unusable(path, "no header")


def test_pickles_are_never_read(path):
    np.savez(path, header=np.array([{"format": FORMAT}], dtype=object), allow_pickle=True)
    assert_unusable(path, "allow_pickle=False")


@pytest.mark.parametrize("version", [0, VERSION + 1, None, "1"])
def test_an_unknown_version_is_refused(path, version):
    rewrite(path, with_header(version=version))
    assert_unusable(path, f"version {version}, this program reads {VERSION}")


def test_a_rewritten_table_is_still_read(path):
    # The negative tests below change one thing each; without a change this must pass.
    rewrite(path, with_header())
    assert CalibrationTable.load(path).sha256 == table().sha256


def entry_change(**changes: object) -> object:
    def change(arrays: dict[str, np.ndarray]) -> None:
        header = json.loads(arrays["header"].tobytes())
        header["tensors"][0] |= changes
        arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda arrays: arrays.pop("0.counts"), "0.counts"),
        (lambda arrays: arrays.update({"0.counts": arrays["0.counts"] + 1}), "counts"),
        (lambda arrays: arrays.update({"0.counts": arrays["0.counts"] * 1.0}), "float64"),
        (lambda arrays: arrays.update({"0.gram": arrays["0.gram"][:-1]}), "do not fit"),
        (lambda arrays: arrays.update({"0.channel_mean": np.zeros(2)}), "different shapes"),
        (with_header(tensors=None), "do not fit"),
        (with_header(num_texts="many"), "do not fit"),
        (entry_change(arrays=["secrets"]), "secrets"),
        (entry_change(minimum=99.0), "between 99.0"),
        (entry_change(bin_width=0.0), "width 0.0"),
    ],
)
def test_parts_that_do_not_fit_are_refused(path, change, why):
    rewrite(path, change)
    assert_unusable(path, why)
