"""One entry of the cache: the list of its files, and what may be wrong with it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from exporter.deliver.codec import dump_json, load_json
from exporter.deliver.folders import describe_files, is_safe_relative
from exporter.values import ShippedFile
from targets.errors import StorageError
from targets.hashing import sha256_file

ENTRY_FILE = "entry.json"
_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryRecord:
    """What `entry.json` says; `created_utc` is ISO 8601."""

    schema_version: int
    stage: str
    key: str
    created_utc: str
    files: tuple[ShippedFile, ...]

    @property
    def size_bytes(self) -> int:
        """Size of all files of the entry."""
        return sum(file.size_bytes for file in self.files)


def write_record(folder: Path, stage: str, key: str) -> None:
    """List what was built into `folder`, so that it can be checked when it is read.

    Raises:
        StorageError: there is a symbolic link or a special file in it.
        ValueError: the stage wrote a file under the name that the list needs.
    """
    if (folder / ENTRY_FILE).exists():
        raise ValueError(f"stage {stage!r} wrote a file of its own named {ENTRY_FILE}")
    record = EntryRecord(
        schema_version=_SCHEMA_VERSION,
        stage=stage,
        key=key,
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        files=tuple(describe_files(folder)),
    )
    (folder / ENTRY_FILE).write_bytes(dump_json(record))


def read_record(folder: Path) -> EntryRecord:
    """Read an entry's list.

    Raises:
        FileNotFoundError, StorageError: there is none, or it is damaged.
    """
    return load_json(EntryRecord, (folder / ENTRY_FILE).read_bytes())


def damage_of(folder: Path, *, verify: bool) -> str:
    """Say what is wrong with an entry; empty when nothing is.

    Sizes are always compared, hashes with `verify`.
    """
    try:
        record = read_record(folder)
    except (FileNotFoundError, StorageError):
        return f"{ENTRY_FILE} is missing or unreadable"
    if (record.schema_version, record.key) != (_SCHEMA_VERSION, folder.name):
        return f"{ENTRY_FILE} belongs to something else"
    problems = (_damaged_file(folder, file, verify) for file in record.files)
    return next((problem for problem in problems if problem), "")


def _damaged_file(folder: Path, file: ShippedFile, verify: bool) -> str:
    path = folder / file.path
    if not is_safe_relative(file.path) or not path.is_file():
        return f"{file.path} is missing"
    if path.stat().st_size != file.size_bytes:
        return f"{file.path} has the wrong size"
    if verify and sha256_file(path) != file.sha256:
        return f"{file.path} has changed"
    return ""


def mark_used(folder: Path) -> None:
    """Remember that the entry was used now."""
    # A cache that may only be read is still worth reading.
    with suppress(OSError):
        os.utime(folder / ENTRY_FILE)


def last_used_s(folder: Path) -> float:
    """Return when the entry was last used, in seconds since 1970."""
    return (folder / ENTRY_FILE).stat().st_mtime
