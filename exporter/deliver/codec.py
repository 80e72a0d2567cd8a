"""Frozen dataclasses ↔ JSON, without loss: what `dump_json` wrote, `load_json` gives back.

Numpy arrays are no part of these values; they travel in their own files.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from targets.errors import NonFiniteError, StorageError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")
Plain = bool | int | float | str | list["Plain"] | dict[str, "Plain"] | None


def dump_json(value: object, *, indent: int | None = None) -> bytes:
    """Write a dataclass as UTF-8 JSON, keys in field order.

    Raises:
        NonFiniteError: a float in it is NaN or infinite; the message names the field.
        StorageError: a text in it is not valid Unicode (an undecodable file name).
        TypeError: something in it has no JSON form.
    """
    text = json.dumps(to_plain(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return text.encode()


def load_json(kind: type[T], data: bytes) -> T:
    """Read a value of the dataclass `kind`; unknown keys are ignored, types are not coerced.

    Raises:
        StorageError: the bytes are not the JSON of such a value.
    """
    try:
        json.loads(data, parse_constant=_refuse_number, parse_float=_finite)
        # mypy does not see that a class is hashable.
        value: T = _adapter(kind).validate_json(data, strict=True)  # type: ignore[arg-type]
    except (ValueError, RecursionError) as error:
        raise StorageError(
            f"stored data cannot be read as {kind.__name__}",
            why=_first_lines(str(error)),
            hint="delete the file that it came from and run again",
        ) from error
    return value


def to_plain(
    value: object, text: Callable[[str, str], str] | None = None, where: str = "value"
) -> Plain:
    """Turn a value into what the standard library's `json` can write.

    Dataclasses become objects in field order, sets sorted lists, paths POSIX strings,
    numpy scalars Python numbers.

    Args:
        value: the value.
        text: takes a string and the name of its place and returns what is written for it;
            None: the string itself, which must be valid Unicode.
        where: name of the value in error messages.

    Raises:
        NonFiniteError, StorageError, TypeError: see `dump_json`.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str | PurePath):
        return _scalar(value, text or _valid_unicode, where)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
        return {name: to_plain(item, text, f"{where}.{name}") for name, item in pairs}
    if isinstance(value, Mapping):
        return _plain_mapping(value, text, where)
    if isinstance(value, set | frozenset):
        value = sorted(value)
    if isinstance(value, list | tuple):
        return [to_plain(item, text, f"{where}[{i}]") for i, item in enumerate(value)]
    raise TypeError(f"{where} is a {type(value).__name__}, which has no JSON form")


def _plain_mapping(
    value: Mapping[Any, object], text: Callable[[str, str], str] | None, where: str
) -> dict[str, Plain]:
    if strangers := [key for key in value if not isinstance(key, str)]:
        raise TypeError(f"{where} has the key {strangers[0]!r}, which is not a string")
    keep = text or _valid_unicode
    return {keep(k, where): to_plain(v, text, f"{where}[{k!r}]") for k, v in value.items()}


def _scalar(
    value: bool | int | float | str | PurePath | None, text: Callable[[str, str], str], where: str
) -> Plain:
    if isinstance(value, float) and not math.isfinite(value):
        raise NonFiniteError(f"{where} is {value}, not a number that can be reported")
    if isinstance(value, PurePath):
        return text(value.as_posix(), where)
    return text(value, where) if isinstance(value, str) else value


def _valid_unicode(value: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise StorageError(
            f"{where} is not valid Unicode: {value!r}",
            why=error.reason,
            hint="give the file or folder a name in UTF-8",
        ) from error
    return value


def _refuse_number(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse_number(digits)


def _first_lines(message: str, count: int = 6) -> str:
    return "\n".join(message.splitlines()[:count])


@lru_cache(maxsize=64)
def _adapter(kind: type[object]) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)
