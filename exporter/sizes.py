"""Sizes in words: "24MB", "24 MiB", 24000000."""

from __future__ import annotations

import re
from collections.abc import Mapping

from targets.errors import ConfigError

BYTES_PER_UNIT: Mapping[str, int] = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
"""Decimal and binary prefixes (IEC 80000-13). "M" alone is left out: it stands for both."""

_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([A-Za-z]*)", re.ASCII)


def size_bytes(given: object) -> object:
    """Turn a size in words into bytes; what is no text is returned as it is.

    Args:
        given: a number with or without a unit; case does not matter.

    Raises:
        ConfigError: the text is no size, of an unknown unit, or less than one byte.
    """
    if not isinstance(given, str):
        return given
    found = _SIZE.fullmatch(given.strip())
    units = {name.lower(): size for name, size in BYTES_PER_UNIT.items()}
    if found is None or found[2].lower() not in units:
        raise _no_size(given)
    number = round(float(found[1]) * units[found[2].lower()])
    if number < 1:
        raise _no_size(given)
    return number


def _no_size(given: str) -> ConfigError:
    known = ", ".join(unit for unit in BYTES_PER_UNIT if unit)
    return ConfigError(
        f"max_size_bytes (--max-size) = {given!r} is not a size",
        why=f"it must be a positive number of bytes, or one with a unit: {known}",
        hint="for example --max-size 24MB (24,000,000 bytes) or 24MiB (25,165,824)",
    )
