"""Content-addressed cache: same inputs, same key, no work done twice.

An entry is a folder `<root>/<stage>/<key[:2]>/<key>` that appears whole or not at all;
its `entry.json` lists size and SHA-256 of every file in it. What a killed process leaves
behind are staging folders, which a later run sweeps. Entries are not flushed to the disk:
a power cut shows as a wrong size or, with `verify=True`, as a wrong hash, and the entry is
built again.
"""

from __future__ import annotations

import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from exporter.deliver.codec import to_plain
from exporter.deliver.entries import (
    ENTRY_FILE,
    EntryRecord,
    damage_of,
    last_used_s,
    mark_used,
    read_record,
    write_record,
)
from exporter.deliver.folders import remove_tree, staging_name, sweep
from exporter.deliver.storage import Note, locked, remove_stale_lock, storage_errors
from targets.errors import StorageError
from targets.hashing import sha256_json

CACHE_VARIABLE = "EMBEDDING_EXPORTER_CACHE"
DEFAULT_MAX_BYTES = 20 * 10**9
IN_USE_S = 6 * 3600
"""An entry used within this time may be in use by a running process: never evicted."""

_STAGING_PREFIX = "."
_STAGE = re.compile(r"[a-z0-9][a-z0-9_.-]*\Z")
_KEY = re.compile(r"[0-9a-f]{16,64}\Z")
_REMEDY = f"point {CACHE_VARIABLE} (or the setting `cache`) to another folder"
# https://bford.info/cachedir/: tells backup programs to leave the folder out.
_CACHEDIR_TAG = b"Signature: 8a477f597d28d172789f06886806bc55\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheUsage:
    """How much a cache holds, in all and by stage."""

    root: Path
    num_entries: int
    size_bytes: int
    stage_bytes: Mapping[str, int]


def key_of(*parts: object) -> str:
    """Hash everything that a result depends on: dataclasses, mappings, texts, numbers, paths.

    Raises:
        NonFiniteError, StorageError, TypeError: a part has no canonical JSON form.
    """
    return sha256_json(to_plain(parts, where="key"))


def default_root(chosen: Path | None = None) -> Path:
    """Return the cache folder: the chosen one, the environment's, or the user's own."""
    from platformdirs import user_cache_dir

    named = chosen or os.environ.get(CACHE_VARIABLE)
    return Path(named or user_cache_dir("embedding-exporter")).expanduser().absolute()


@contextmanager
def temporary_cache(note: Note | None = None) -> Iterator[Cache]:
    """Yield a cache of its own that is removed afterwards: nothing is reused.

    Raises:
        StorageError: there is no room for temporary files.
    """
    with storage_errors(
        "cannot make a temporary folder", Path(tempfile.gettempdir()), remedy="set TMPDIR"
    ):
        folder = tempfile.TemporaryDirectory(prefix="embedding-exporter-")
    with folder as root:
        yield Cache(Path(root), note=note)


class Cache:
    """Results of stages by key, shared by every process that uses the same root."""

    def __init__(
        self, root: Path, *, max_bytes: int = DEFAULT_MAX_BYTES, note: Note | None = None
    ) -> None:
        """Bind a cache to its root, which is made on the first build.

        Args:
            root: folder of the cache.
            max_bytes: above this size, entries that were not used for long are evicted.
            note: told about damaged entries and about waiting; default: the log.
        """
        self.root = root
        self._max_bytes = max_bytes
        self._note = note or logging.getLogger(__name__).warning
        self._noted: set[str] = set()
        self._is_swept = False

    # ------------------------------------------------------------- reading and building

    def entry(self, stage: str, key: str, *, verify: bool = False) -> Path | None:
        """Return the folder of a complete and undamaged entry, or None.

        Sizes are always compared, hashes with `verify`. The entry counts as used now.

        Raises:
            StorageError: the cache cannot be read.
        """
        path = self._path(stage, key)
        with self._errors("cannot read the cache"):
            if not path.is_dir():
                return None
            if damage := damage_of(path, verify=verify):
                self._note_once(f"the cache entry {stage}/{key[:12]} is damaged: {damage}")
                return None
            mark_used(path)
        return path

    def created_utc(self, path: Path) -> str:
        """Say when an entry that `entry` or `build` returned was built (UTC, ISO 8601)."""
        with self._errors("cannot read the cache"):
            return read_record(path).created_utc

    def build(
        self, stage: str, key: str, build: Callable[[Path], None], *, verify: bool = False
    ) -> Path:
        """Return the entry, built by `build` unless it is there undamaged.

        Processes and threads that want the same entry at once build it once: the others
        wait and read. If `build` raises, nothing stays behind.

        Args:
            stage: lower-case name of the stage.
            key: see `key_of`.
            build: writes the result into the empty folder that it is given.
            verify: compare hashes, too, when the entry is there.

        Raises:
            StorageError: disk full, no permission, …; names the path.
            Exception: whatever `build` raised.
        """
        path = self._path(stage, key)
        found = self.entry(stage, key, verify=verify)
        if found is not None:
            return found
        self._prepare(path.parent)
        with self._building(stage), self._locked(path, stage):
            # Whoever held the lock before may have built it.
            found = self.entry(stage, key, verify=verify)
            return found or self._build(path, stage, build)

    def _build(self, path: Path, stage: str, build: Callable[[Path], None]) -> Path:
        staging = path.parent / staging_name(_STAGING_PREFIX)
        try:
            staging.mkdir()
            build(staging)
            write_record(staging, stage, path.name)
            # What is still there at this place is damaged.
            self._drop(path)
            staging.rename(path)
        finally:
            remove_tree(staging)
        self.evict()
        return path

    def _prepare(self, shelf: Path) -> None:
        with self._errors("cannot make the cache folder"):
            shelf.mkdir(parents=True, exist_ok=True)
            tag = self.root / "CACHEDIR.TAG"
            if not tag.exists():
                tag.write_bytes(_CACHEDIR_TAG)
            self._sweep_once()

    def _locked(self, path: Path, stage: str) -> AbstractContextManager[None]:
        message = f"waiting for another run that builds {stage}/{path.name[:12]}"
        return locked(path.with_name(f".{path.name}.lock"), lambda: self._note_once(message))

    # ------------------------------------------------------------------------- cleaning

    def usage(self) -> CacheUsage:
        """Return how much the cache holds; files that are no entries are not counted."""
        entries = self._entries()
        stages: dict[str, int] = {}
        for _, record, _ in entries:
            stages[record.stage] = stages.get(record.stage, 0) + record.size_bytes
        return CacheUsage(
            root=self.root,
            num_entries=len(entries),
            size_bytes=sum(stages.values()),
            stage_bytes=dict(sorted(stages.items())),
        )

    def clear(self) -> int:
        """Remove every entry and nothing else; return the bytes that this freed."""
        entries = self._entries()
        with self._errors("cannot clear the cache"):
            for path, _, _ in entries:
                self._drop(path)
        return sum(record.size_bytes for _, record, _ in entries)

    def evict(self) -> None:
        """Drop the entries unused for longest until the cache fits its limit.

        Entries used within `IN_USE_S` stay, even above the limit: another process may
        be reading them.
        """
        entries = sorted(self._entries(), key=lambda item: item[2])
        excess = sum(record.size_bytes for _, record, _ in entries) - self._max_bytes
        for path, record, used_s in entries:
            if excess <= 0 or time.time() - used_s < IN_USE_S:
                return
            # Another user's entries may not be ours to remove.
            with suppress(PermissionError):
                self._drop(path)
                excess -= record.size_bytes

    def _entries(self) -> list[tuple[Path, EntryRecord, float]]:
        """List all readable entries: folder, record, time of last use (s since 1970)."""
        found = []
        for file in self.root.glob(f"*/??/*/{ENTRY_FILE}"):
            folder = file.parent
            # One that vanishes under our hands, or is unreadable, is not listed.
            with suppress(OSError, StorageError):
                if _KEY.match(folder.name):
                    found.append((folder, read_record(folder), last_used_s(folder)))
        return found

    def _drop(self, path: Path) -> None:
        """Take an entry out of sight in one step, then remove it."""
        doomed = path.parent / staging_name(_STAGING_PREFIX)
        with suppress(FileNotFoundError):
            path.rename(doomed)
        remove_tree(doomed)

    def _sweep_once(self) -> None:
        if not self._is_swept:
            self._is_swept = True
            for shelf in self.root.glob("*/??"):
                sweep(shelf, _STAGING_PREFIX)
                for lock in shelf.glob(".*.lock"):
                    remove_stale_lock(lock)

    # -------------------------------------------------------------------------- helpers

    def _path(self, stage: str, key: str) -> Path:
        if not _STAGE.match(stage) or not _KEY.match(key):
            raise ValueError(f"not a stage and a key of the cache: {stage!r}, {key!r}")
        return self.root / stage / key[:2] / key

    def _note_once(self, message: str) -> None:
        if message not in self._noted:
            self._noted.add(message)
            self._note(message)

    def _errors(self, doing: str) -> AbstractContextManager[None]:
        return storage_errors(doing, self.root, remedy=_REMEDY)

    def _building(self, stage: str) -> AbstractContextManager[None]:
        doing = f"cannot write the cache entry of {stage}"
        return storage_errors(doing, self.root, remedy=_REMEDY, only_the_disk=True)
