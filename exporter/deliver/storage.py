"""Errors and locks of everything that is written: what is said when a disk says no."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from targets.errors import StorageError

Note = Callable[[str], None]
"""Takes one sentence that the user should see."""

_CAUSES = {
    errno.ENOSPC: ("the disk is full", "free some space"),
    errno.EDQUOT: ("the disk quota is used up", "free some space"),
    errno.EFBIG: ("a file grew over the largest size allowed", "raise the limit (ulimit -f)"),
    errno.EACCES: ("permission denied", "change the permissions"),
    errno.EPERM: ("operation not permitted", "change the permissions"),
    errno.EROFS: ("the file system is read-only", "make it writable"),
    errno.EIO: ("the disk reported an input/output error", "check the disk"),
    errno.ENOTDIR: ("a part of that path is a file, not a folder", "move that file away"),
    errno.ENAMETOOLONG: ("the name is too long for this file system", "shorten it"),
}
_OF_THE_DISK = frozenset(
    (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.EIO,
    )
)


@contextmanager
def storage_errors(
    doing: str, path: Path, *, remedy: str, only_the_disk: bool = False
) -> Iterator[None]:
    """Turn the operating system's errors into `StorageError`.

    Args:
        doing: what is being done, as the start of a sentence ("cannot write the bundle").
        path: what is named where the error itself names no file.
        remedy: what else the user may do ("give another folder with --output").
        only_the_disk: let errors pass that do not come from a full, broken or forbidden
            disk; for foreign code, whose missing files are not ours to explain.

    Raises:
        StorageError: for an `OSError` inside.
    """
    try:
        yield
    except OSError as error:
        if only_the_disk and error.errno not in _OF_THE_DISK:
            raise
        raise _storage_error(error, doing, path, remedy) from error


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a path to write beside a file, which takes its place when the body ends well.

    Readers see the old file or the new one, never a part.

    Raises:
        StorageError: it cannot be written; what was there is there still.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with storage_errors("cannot write the file", path, remedy="name another --output"):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield aside
            aside.replace(path)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole; see `replaced`."""
    with replaced(path) as aside:
        aside.write_bytes(data)


def _storage_error(error: OSError, doing: str, path: Path, remedy: str) -> StorageError:
    why, hint = _CAUSES.get(error.errno or 0, (error.strerror or str(error), ""))
    place = error.filename2 or error.filename or path
    hints = [part for part in (hint, remedy) if part]
    return StorageError(f"{doing}: {os.fsdecode(place)}", why=why, hint=", or ".join(hints))


@contextmanager
def locked(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock between processes and threads; a dead holder's lock is free.

    The lock file is removed while it is still held, so that none stays behind; whoever
    waited on it sees that it was unlinked and starts over with a new one.

    Args:
        path: the lock file; its folder exists.
        waiting: called once when somebody else holds the lock.

    Raises:
        OSError: the lock file cannot be made.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if waiting is not None:
            waiting()
        lock.acquire()
    try:
        yield
    finally:
        # Where a system does not unlink open files, the lock file stays: litter, no harm.
        with suppress(OSError):
            path.unlink()
        lock.release()


def remove_stale_lock(path: Path) -> None:
    """Remove a lock file that a dead holder left; one that is held stays.

    Raises:
        OSError: the lock file cannot be opened.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    with suppress(Timeout):
        lock.acquire(blocking=False)
        with suppress(OSError):
            path.unlink()
        lock.release()


def write_text(path: Path, text: str) -> None:
    """Write a file of text, its folder made where it is missing.

    Raises:
        StorageError: it cannot be written.
    """
    with storage_errors(f"cannot write {path}", path, remedy="name another file"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
