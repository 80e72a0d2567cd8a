"""One order for what ONNX Runtime writes in a random one; everything else stays."""

from __future__ import annotations

import itertools
from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from flatbuffers.table import Table

from targets.errors import CompileError
from targets.onnxruntime.ort_bytes import settle_bytes

VALUES = np.arange(96.0)
OPERATORS = (":Add:14", ":MatMul:13", "com.microsoft:FusedMatMul:1")
NAMES = ("T", "T1")


def write_file(path: Path, operators, names=NAMES, resolver=True, identifier=b"ORTM") -> Path:
    """A file of ORT format's layout: a payload for a model, then kernels' types as ordered."""
    builder = flatbuffers.Builder(0)
    payload = builder.CreateNumpyVector(VALUES)
    model = table(builder, 8, {7: payload})
    version = builder.CreateString("6")
    fields = {0: version, 1: model}
    if resolver:
        entries = [entry(builder, name, names) for name in operators]
        fields[3] = table(builder, 1, {0: vector(builder, entries)})
    builder.Finish(table(builder, 4, fields), file_identifier=identifier)
    path.write_bytes(bytes(builder.Output()))
    return path


def entry(builder, operator, names):
    types = []
    for name in names:
        builder.StartObject(2)
        builder.PrependInt8Slot(0, 1, 0)
        builder.PrependUint32Slot(1, 2, 0)
        arguments = vector(builder, [builder.EndObject()])
        types.append(table(builder, 2, {0: builder.CreateString(name), 1: arguments}))
    return table(builder, 2, {0: builder.CreateString(operator), 1: vector(builder, types)})


def vector(builder, places):
    builder.StartVector(4, len(places), 4)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return builder.EndVector()


def table(builder, num_fields, fields):
    builder.StartObject(num_fields)
    for field, place in fields.items():
        builder.PrependUOffsetTRelativeSlot(field, place, 0)
    return builder.EndObject()


def read_names(path: Path) -> list[tuple[str, list[str], list[tuple[int, int]]]]:
    """Operators, kernels' names of types, and arguments, in the file's order."""
    content = bytearray(path.read_bytes())
    root = Table(content, int.from_bytes(content[:4], "little"))
    resolver = Table(content, root.Indirect(root.Pos + root.Offset(10)))
    return [
        (
            text(operator),
            [text(one) for one in members(operator, 6)],
            [
                (content[one.Pos + one.Offset(4)], content[one.Pos + one.Offset(6)])
                for name in members(operator, 6)
                for one in members(name, 6)
            ],
        )
        for operator in members(resolver, 4)
    ]


def read_values(path: Path) -> tuple[int, list[float]]:
    """How far the model's doubles are from their alignment, and what they are."""
    content = bytearray(path.read_bytes())
    root = Table(content, int.from_bytes(content[:4], "little"))
    model = Table(content, root.Indirect(root.Pos + root.Offset(6)))
    start = model.Vector(model.Offset(4 + 2 * 7))
    return start % 8, np.frombuffer(content, np.float64, len(VALUES), start).tolist()


def members(parent: Table, slot: int) -> list[Table]:
    place = parent.Offset(slot)
    start = parent.Vector(place)
    count = parent.VectorLen(place)
    return [Table(parent.Bytes, parent.Indirect(start + 4 * number)) for number in range(count)]


def text(parent: Table) -> str:
    return parent.String(parent.Pos + parent.Offset(4)).decode()


def test_every_order_gives_the_same_bytes(tmp_path):
    written, settled = set(), set()
    for number, order in enumerate(itertools.permutations(OPERATORS)):
        path = write_file(tmp_path / f"{number}.ort", order, NAMES[:: 1 - 2 * (number % 2)])
        written.add(path.read_bytes())
        settle_bytes(path)
        settled.add(path.read_bytes())
        assert read_names(path) == [(name, list(NAMES), [(1, 2), (1, 2)]) for name in OPERATORS]
    assert len(written) == 6
    assert len(settled) == 1


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_the_model_stays_as_it_is_and_as_aligned(tmp_path, count):
    path = write_file(tmp_path / "model.ort", OPERATORS[:count])
    assert read_values(path) == (0, VALUES.tolist())
    settle_bytes(path)
    after = path.read_bytes()
    assert read_values(path) == (0, VALUES.tolist())
    settle_bytes(path)
    assert path.read_bytes() == after


def test_other_operators_give_other_bytes(tmp_path):
    first = write_file(tmp_path / "first.ort", OPERATORS)
    second = write_file(tmp_path / "second.ort", OPERATORS[:2])
    settle_bytes(first)
    settle_bytes(second)
    assert first.read_bytes() != second.read_bytes()


def test_what_is_not_in_ort_format_is_refused_and_left_alone(tmp_path):
    path = write_file(tmp_path / "model.ort", OPERATORS, identifier=b"TFL3")
    before = path.read_bytes()
    with pytest.raises(CompileError, match=r"model\.ort is not in ORT format"):
        settle_bytes(path)
    assert path.read_bytes() == before


def test_a_format_without_types_of_kernels_is_refused(tmp_path):
    path = write_file(tmp_path / "model.ort", OPERATORS, resolver=False)
    with pytest.raises(CompileError, match="no table of kernel types"):
        settle_bytes(path)
