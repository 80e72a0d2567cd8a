"""The same ORT format bytes for the same model, every time.

ONNX Runtime 1.32 writes the table that names the types of each operator's kernels (the
`KernelTypeStrResolver`) in the order of a hash map whose seed is an address, so that converting
twice gives two files. The table is looked up by name only; here it is written again in the order
of those names. It and the root table are what was written last, and FlatBuffers are written from
the end of the file to its start: everything from the model on stays where it is, byte for byte.

Schema: `onnxruntime/core/flatbuffers/schema/ort.fbs`, format version 6.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import flatbuffers
from flatbuffers import number_types
from flatbuffers.table import Table

from targets.errors import CompileError

_IDENTIFIER = b"ORTM"
_IDENTIFIER_AT = 4
_FIRST_SLOT = 4
"""Where a vtable's entries begin (FlatBuffers internals: two sizes of two bytes each)."""
_SLOT_BYTES = 2
_OFFSET_BYTES = 4
_MOST_ALIGNED = 64

# Fields of InferenceSession; the third held what formats before version 5 had in its place.
_VERSION, _MODEL, _OLD_STATE, _RESOLVER = range(4)
_NUM_SESSION_FIELDS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Argument:
    """An input or output (0 or 1) of an operator, and its place among them."""

    kind: int
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operator:
    """Which arguments have the type that a kernel calls "T", "T1" …, by that name."""

    name: bytes
    types: tuple[tuple[bytes, tuple[_Argument, ...]], ...]


def settle_bytes(path: Path) -> None:
    """Write an `.ort` file again, with its kernels' type names in their own order.

    Args:
        path: as ONNX Runtime wrote it; changed in place.

    Raises:
        CompileError: it is no ORT format, or of a layout that is not known here.
    """
    content = bytearray(path.read_bytes())
    if content[_IDENTIFIER_AT : _IDENTIFIER_AT + len(_IDENTIFIER)] != _IDENTIFIER:
        raise CompileError(f"{path.name} is not in ORT format", hint="convert the model again")
    root = Table(content, number_types.UOffsetTFlags.py_type(_offset(content, 0)))
    resolver, model = _child(root, _RESOLVER), _child(root, _MODEL)
    version = _string(root, _VERSION)
    if resolver is None or model is None:
        raise CompileError(
            f"{path.name}: the ORT format has no table of kernel types",
            why=f"format version {version.decode()}; this program knows version 6",
            hint="install an ONNX Runtime that this program is tested with",
        )
    path.write_bytes(_rebuilt(content, model, version, _operators(resolver)))


# ----------------------------------------------------------------------------- reading


def _operators(resolver: Table) -> tuple[_Operator, ...]:
    found = [
        _Operator(name=_string(one, 0), types=tuple(sorted(_types(one), key=_name_of)))
        for one in _children(resolver, 0)
    ]
    return tuple(sorted(found, key=lambda one: one.name))


def _name_of(entry: tuple[bytes, tuple[_Argument, ...]]) -> bytes:
    return entry[0]


def _types(operator: Table) -> Iterator[tuple[bytes, tuple[_Argument, ...]]]:
    for entry in _children(operator, 1):
        yield _string(entry, 0), tuple(_argument(one) for one in _children(entry, 1))


def _argument(table: Table) -> _Argument:
    kind = table.GetSlot(_slot(0), 0, number_types.Int8Flags)
    return _Argument(kind=kind, index=table.GetSlot(_slot(1), 0, number_types.Uint32Flags))


def _slot(field: int) -> int:
    return _FIRST_SLOT + _SLOT_BYTES * field


def _offset(content: bytearray, place: int) -> int:
    return int.from_bytes(content[place : place + _OFFSET_BYTES], "little")


def _string(table: Table, field: int) -> bytes:
    place = table.Offset(_slot(field))
    return bytes(table.String(table.Pos + place)) if place else b""


def _child(table: Table, field: int) -> Table | None:
    place = table.Offset(_slot(field))
    return Table(table.Bytes, table.Indirect(table.Pos + place)) if place else None


def _children(table: Table, field: int) -> Iterator[Table]:
    place = table.Offset(_slot(field))
    if place:
        start = table.Vector(place)
        for number in range(table.VectorLen(place)):
            yield Table(table.Bytes, table.Indirect(start + _OFFSET_BYTES * number))


# ----------------------------------------------------------------------------- writing


def _rebuilt(
    content: bytearray, model: Table, version: bytes, operators: Sequence[_Operator]
) -> bytes:
    """Put a new front before the model: the same root, the operators in the order given."""
    start = _start_of(model)
    builder = flatbuffers.Builder(0)
    builder.Bytes, builder.head = bytearray(start) + content[start:], start
    # Offsets count from the end: the model keeps its alignment if the size keeps its own.
    builder.minalign = _alignment(len(content))
    model_at = len(content) - model.Pos
    version_at = builder.CreateString(version)
    resolver = _write_table(builder, 1, {0: _write_operators(builder, operators)})
    fields = {_VERSION: version_at, _MODEL: model_at, _RESOLVER: resolver}
    root = _write_table(builder, _NUM_SESSION_FIELDS, fields)
    builder.Finish(root, file_identifier=_IDENTIFIER)
    return bytes(builder.Output())


def _start_of(model: Table) -> int:
    """Return where the model's part of the file begins: its table, or the vtable before it."""
    vtable = model.Pos - model.Get(number_types.SOffsetTFlags, model.Pos)
    return int(min(model.Pos, vtable))


def _alignment(size: int) -> int:
    """Return the largest power of two, up to 64, that divides a size."""
    return min(size & -size, _MOST_ALIGNED)


def _write_operators(builder: flatbuffers.Builder, operators: Sequence[_Operator]) -> int:
    return _write_vector(builder, [_write_operator(builder, one) for one in operators])


def _write_operator(builder: flatbuffers.Builder, operator: _Operator) -> int:
    entries = []
    for name, arguments in operator.types:
        written = _write_vector(builder, [_write_argument(builder, one) for one in arguments])
        entries.append(_write_table(builder, 2, {0: builder.CreateString(name), 1: written}))
    types = _write_vector(builder, entries)
    return _write_table(builder, 2, {0: builder.CreateString(operator.name), 1: types})


def _write_argument(builder: flatbuffers.Builder, argument: _Argument) -> int:
    builder.StartObject(2)
    builder.PrependUint32Slot(1, argument.index, 0)
    builder.PrependInt8Slot(0, argument.kind, 0)
    return int(builder.EndObject())


def _write_vector(builder: flatbuffers.Builder, places: Sequence[int]) -> int:
    builder.StartVector(_OFFSET_BYTES, len(places), _OFFSET_BYTES)
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return int(builder.EndVector())


def _write_table(builder: flatbuffers.Builder, num_fields: int, fields: dict[int, int]) -> int:
    builder.StartObject(num_fields)
    for field, place in fields.items():
        builder.PrependUOffsetTRelativeSlot(field, place, 0)
    return int(builder.EndObject())
