"""The output folder: staged beside its place, complete with its manifest, swapped in whole.

A run that fails or is killed leaves the earlier bundle as it was. On Linux old and new
change places in one system call; elsewhere there is a moment without either, and a run
that finds such a moment frozen by a crash puts the old bundle back.
"""

from __future__ import annotations

import os
import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Self

from exporter.deliver.codec import dump_json
from exporter.deliver.folders import (
    describe_files,
    exchange,
    is_safe_relative,
    remove_tree,
    staging_folders,
    staging_name,
    sweep,
    sync,
    sync_tree,
)
from exporter.deliver.manifest import (
    MANIFEST,
    SIGNATURE,
    BundleFacts,
    Manifest,
    facts_of,
    foreign_files,
    read_manifest,
    verify_bundle,
    with_files,
)
from exporter.deliver.storage import Note, locked, storage_errors
from targets.errors import StorageError, UsageError

__all__ = ["BundleWriter", "check_output", "facts_of", "read_manifest", "verify_bundle"]

_MAX_LOOKS = 20
_REMEDY = "give another folder with --output"


def check_output(output: Path) -> Path:
    """Refuse an output folder that must not or cannot be written, before any long work.

    Returns:
        The absolute path with links followed.

    Raises:
        UsageError: it is a file, a mount point or around the working directory, holds
            files that are not a bundle's, or nothing can be made beside it.
    """
    try:
        path = output.expanduser().resolve()
        _refuse_unsuitable(output, path)
        _refuse_unwritable(output, path)
        if path.is_dir():
            _refuse_foreign(output, path)
    except OSError as error:
        why = error.strerror or str(error)
        raise UsageError(f"the output {output} cannot be made", why=why, hint=_REMEDY) from error
    return path


def _refuse_unsuitable(output: Path, path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise UsageError(f"the output {output} is a file, not a folder", hint=_REMEDY)
    if os.path.ismount(path):
        raise UsageError(
            f"the output {output} is a mount point",
            why="a bundle is swapped in by renaming, and a mount point cannot be renamed",
            hint=f"give a folder inside it: --output {output / 'bundle'}",
        )
    if Path.cwd().is_relative_to(path):
        raise UsageError(
            f"the output {output} is the working directory or around it",
            why="the folder is replaced as a whole, and you would be left in the removed one",
            hint="give a folder inside it, or run from elsewhere",
        )


def _refuse_unwritable(output: Path, path: Path) -> None:
    above = next(parent for parent in path.parents if parent.exists())
    if not above.is_dir():
        why = f"{above} is a file"
    elif not os.access(above, os.W_OK | os.X_OK):
        why = f"no permission to write in {above}"
    else:
        return
    raise UsageError(f"the output {output} cannot be made", why=why, hint=_REMEDY)


def _refuse_foreign(output: Path, path: Path) -> None:
    """Refuse a folder that holds more than a bundle.

    Another run may swap bundles while we look: a refusal counts only if the folder is
    still the same one afterwards.
    """
    refusal: UsageError | None = None
    for _ in range(_MAX_LOOKS):
        before = _identity(path)
        refusal = _foreign(output, path) if before else None
        if refusal is None or _identity(path) == before:
            break
    if refusal is not None:
        raise refusal


def _identity(path: Path) -> tuple[int, ...]:
    """Return what changes when another folder takes this one's place; empty for none."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return ()
    return (status.st_dev, status.st_ino, status.st_ctime_ns)


def _foreign(output: Path, path: Path) -> UsageError | None:
    try:
        strangers = foreign_files(path) if any(path.iterdir()) else ()
    except (StorageError, FileNotFoundError) as error:
        return UsageError(
            f"the output {output} is not empty and not a bundle",
            why=f"{error.what}: {error.why}" if isinstance(error, StorageError) else str(error),
            hint=f"nothing in it was touched: {_REMEDY}, or empty this one",
        )
    if not strangers:
        return None
    listed = ", ".join(strangers[:3]) + (", …" if len(strangers) > 3 else "")
    return UsageError(
        f"the output {output} holds files that are not the bundle's: {listed}",
        why="replacing the bundle would delete them",
        hint=f"move them away, or {_REMEDY}",
    )


class BundleWriter:
    """Context manager that writes one bundle; leaving it without `commit` discards it.

    Example:
        with BundleWriter(output) as bundle:
            bundle.add_file(model, "openvino/openvino_model.xml")
            bundle.commit(facts_of(record))
    """

    def __init__(self, output: Path, *, note: Note | None = None) -> None:
        """Check the output folder; nothing is written yet.

        Args:
            output: the bundle's folder, which need not exist.
            note: told when another run is writing to the same folder.

        Raises:
            UsageError: see `check_output`.
        """
        self.output = check_output(output)
        self._note = note or (lambda _: None)
        self._staging = self.output.with_name(staging_name(self._prefix))

    @property
    def directory(self) -> Path:
        """The staging folder; what is written into it becomes part of the bundle."""
        return self._staging

    @property
    def _prefix(self) -> str:
        return f".{self.output.name}."

    def __enter__(self) -> Self:
        with self._errors("cannot make the output folder"):
            self.output.parent.mkdir(parents=True, exist_ok=True)
            with self._locked():
                recover(self.output)
                sweep(self.output.parent, self._prefix)
            self._staging.mkdir()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        remove_tree(self._staging)
        if isinstance(error, OSError):
            self._explain(error)

    def _explain(self, error: OSError) -> None:
        """Name what the disk said to whoever wrote into `directory` by himself."""
        doing = "cannot write the bundle"
        with storage_errors(doing, self.output, remedy=_REMEDY, only_the_disk=True):
            raise error

    def add_file(self, source: Path, relative: str) -> Path:
        """Copy a file into the bundle; later changes to the source do not reach it.

        Args:
            source: the file; links are followed.
            relative: POSIX path below the bundle.

        Raises:
            StorageError: it would leave the bundle or replace a file of it, the source is
                missing, or it cannot be written.
        """
        place = self._place(relative)
        with self._errors(f"cannot copy {source} into the bundle"):
            shutil.copyfile(source, place)
        return place

    def add_bytes(self, data: bytes, relative: str) -> Path:
        """Write a file of the bundle; see `add_file`."""
        place = self._place(relative)
        with self._errors("cannot write into the bundle"):
            place.write_bytes(data)
        return place

    def _place(self, relative: str) -> Path:
        place = self._staging / relative
        if not is_safe_relative(relative) or relative in (MANIFEST, SIGNATURE):
            raise StorageError(f"{relative!r} is not a path for a file of the bundle")
        with self._errors("cannot write into the bundle"):
            inside = place.parent.resolve().is_relative_to(self._staging.resolve())
            if not inside or place.is_symlink():
                raise StorageError(f"{relative!r} leads out of the bundle through a link")
            if place.exists():
                raise StorageError(f"{relative!r} is in the bundle already")
            place.parent.mkdir(parents=True, exist_ok=True)
        return place

    def commit(self, facts: BundleFacts) -> Manifest:
        """Write the manifest and put the bundle in its place.

        Raises:
            StorageError: it cannot be written, or a link or special file lies in it.
            UsageError: meanwhile somebody put files into the output folder.
        """
        with self._errors("cannot write the bundle"):
            manifest = with_files(facts, describe_files(self._staging))
            sync_tree(self._staging)
            path = self._staging / MANIFEST
            path.write_bytes(dump_json(manifest, indent=2) + b"\n")
            sync(path)
            sync(self._staging)
            self._swap()
        return manifest

    def adopt(self) -> Manifest:
        """Put a bundle that came with its manifest, into `directory`, in its place.

        Whoever calls this has proven every file (`require_intact`).

        Raises:
            StorageError: it cannot be written, or the manifest cannot be read.
            UsageError: meanwhile somebody put files into the output folder.
        """
        manifest = read_manifest(self._staging)
        with self._errors("cannot write the bundle"):
            sync_tree(self._staging)
            self._swap()
        return manifest

    def _swap(self) -> None:
        with self._locked():
            recover(self.output)
            swap_in(self._staging, check_output(self.output))
            sync(self.output.parent)

    def _locked(self) -> AbstractContextManager[None]:
        path = self.output.with_name(f".{self.output.name}.lock")
        message = f"waiting for another run that writes {self.output}"
        return locked(path, lambda: self._note(message))

    def _errors(self, doing: str) -> AbstractContextManager[None]:
        return storage_errors(doing, self.output, remedy=_REMEDY)


def swap_in(staging: Path, output: Path) -> None:
    """Put a finished folder in the place of `output`; what was there is removed after.

    Raises:
        OSError: it could not be done; what was there is there still.
    """
    if output.exists() and exchange(staging, output):
        remove_tree(staging)
    elif output.exists():
        _swap_in_two_steps(staging, output)
    else:
        staging.rename(output)


def _swap_in_two_steps(staging: Path, output: Path) -> None:
    old = output.with_name(staging_name(f".{output.name}.", "old"))
    output.rename(old)
    try:
        staging.rename(output)
    except OSError:
        old.rename(output)
        raise
    remove_tree(old)


def recover(output: Path) -> None:
    """Mend what a crash between the two steps of a swap left: put the old bundle back.

    The caller holds the output's lock.
    """
    for old in reversed(staging_folders(output.parent, f".{output.name}.", "old")):
        if output.exists():
            remove_tree(old)
        else:
            old.rename(output)
