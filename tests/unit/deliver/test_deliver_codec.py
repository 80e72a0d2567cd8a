"""JSON without loss and without guessing: what does not fit is refused by name."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from deliver_records import HARDWARE, RECORD

from exporter.deliver.codec import dump_json, load_json, to_plain
from exporter.values import ExportRecord, ShippedFile
from targets.contract import Check, ExecutedPrecision, Hardware
from targets.errors import ExitCode, StorageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Holds anything."""

    inner: object


def test_the_record_round_trips():
    assert load_json(ExportRecord, dump_json(RECORD)) == RECORD


def test_several_values_round_trip():
    rows = (ExecutedPrecision(op_type="MatMul", dtype="int8", count=3),)
    assert load_json(tuple[ExecutedPrecision, ...], dump_json(rows)) == rows


def test_paths_sets_and_numpy_scalars_have_one_form():
    assert to_plain(Path("a") / "b") == "a/b"
    assert to_plain(frozenset({"b", "a"})) == ["a", "b"]
    assert to_plain((np.float32(0.5), np.int64(3), np.bool_(True))) == [0.5, 3, True]
    assert to_plain({"code": ExitCode.PASS}) == {"code": 0}


def test_the_same_value_gives_the_same_bytes():
    assert dump_json(HARDWARE) == dump_json(load_json(Hardware, dump_json(HARDWARE)))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.zeros(3), r"value\.inner is a ndarray"),
        (b"bytes", r"value\.inner is a bytes"),
        ({1: "a"}, r"value\.inner has the key 1"),
        ({0: "a"}, r"value\.inner has the key 0"),
        (Holder, r"value\.inner is a type"),
    ],
)
def test_what_has_no_json_form_is_refused_by_name(value, said):
    with pytest.raises(TypeError, match=said):
        dump_json(Holder(inner=value))


@pytest.mark.parametrize("name", ["m\udcff", PurePosixPath("m\udcff")])
def test_an_undecodable_name_is_refused_by_name(name):
    with pytest.raises(StorageError, match=r"value\.inner is not valid Unicode"):
        dump_json(Holder(inner=name))


GOOD = b'{"path": "a", "sha256": "b", "size_bytes": 3}'


def test_unknown_keys_are_ignored():
    data = GOOD.replace(b"{", b'{"new": 1, ')
    assert load_json(ShippedFile, data) == load_json(ShippedFile, GOOD)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        GOOD[:-1],
        GOOD.replace(b"3", b'"3"'),
        GOOD.replace(b"3", b"3.5"),
        GOOD.replace(b"3", b"NaN"),
        GOOD.replace(b'"a"', b"1"),
        GOOD.replace(b'"path"', b'"pfad"'),
    ],
)
def test_what_is_not_such_a_value_is_refused(data):
    with pytest.raises(StorageError, match="cannot be read as ShippedFile") as error:
        load_json(ShippedFile, data)
    assert error.value.why


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_numbers_that_are_none_are_refused(number):
    data = dump_json(Check(name="x", verdict="pass", value=0.5, threshold=None))
    with pytest.raises(StorageError):
        load_json(Check, data.replace(b"0.5", number))


def test_a_value_that_its_own_class_refuses_is_refused():
    data = dump_json(Check(name="x", verdict="pass", value=None, threshold=None))
    with pytest.raises(StorageError, match="Check") as error:
        load_json(Check, data.replace(b'"pass"', b'"not_run"'))
    assert "without a reason" in error.value.why
