"""A bundle as one file: the same bundle gives the same bytes, and nothing escapes on unpacking.

The manifest comes first in it, so that a reader knows every name and size before it writes
anything else. Everything lies below one folder, whose name says nothing of the machine.
"""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from exporter.deliver.bundle import BundleWriter
from exporter.deliver.compression import (
    compressed_writer,
    compression_of_name,
    decompressed_reader,
)
from exporter.deliver.folders import is_safe_relative, staging_name, sync
from exporter.deliver.manifest import (
    MANIFEST,
    SIGNATURE,
    Manifest,
    read_manifest,
    require_intact,
)
from exporter.deliver.storage import Note, storage_errors
from exporter.values import ShippedFile
from targets.errors import StorageError
from targets.hashing import HashingReader, sha256_file

_TOP = "bundle/"
_REMEDY = "give another place with --output"
_MAX_MANIFEST_BYTES = 16 << 20
_MAX_SIGNATURE_BYTES = 16 << 20
_HEADERS_BYTES = 4096
"""Room for what tar writes around one file: its header, its padding, a longer name."""


# -------------------------------------------------------------------------------- packing


def pack_bundle(bundle: Path, output: Path) -> ShippedFile:
    """Write a bundle as one archive, the same bytes for the same bundle.

    Times, owners, permissions and order are fixed; what is packed is hashed on the way, so
    that a file that changes meanwhile is found out. An earlier archive is replaced whole.

    Args:
        bundle: its folder.
        output: `.tar.gz` or `.tar.zst` file.

    Returns:
        Path, SHA-256 and size of the archive.

    Raises:
        UsageError: the name says no compression that is known.
        StorageError: the bundle is not what its manifest says, or the disk refuses.
    """
    compression = compression_of_name(output)
    require_intact(bundle)
    staging = output.with_name(staging_name(f".{output.name}."))
    with storage_errors("cannot write the archive", output, remedy=_REMEDY):
        try:
            with compressed_writer(staging, compression) as stream:
                _write_members(bundle, read_manifest(bundle), stream)
            sync(staging)
            staging.replace(output)
        finally:
            staging.unlink(missing_ok=True)
        return ShippedFile(
            path=str(output), sha256=sha256_file(output), size_bytes=output.stat().st_size
        )


def _write_members(bundle: Path, manifest: Manifest, stream: BinaryIO) -> None:
    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name in (MANIFEST, SIGNATURE):
            if (bundle / name).is_file():
                _add(archive, bundle / name, name)
        for file in manifest.files:
            if _add(archive, bundle / file.path, file.path) != file.sha256:
                raise StorageError(
                    f"{bundle / file.path} changed while it was packed",
                    hint="wait until nothing writes to the bundle, and pack again",
                )


def _add(archive: tarfile.TarFile, path: Path, name: str) -> str:
    """Add one file and return the SHA-256 of what went in."""
    with path.open("rb") as source:
        member = tarfile.TarInfo(_TOP + name)
        member.size = os.fstat(source.fileno()).st_size
        member.mode = 0o644
        reader = HashingReader(source)
        archive.addfile(member, reader)
        return reader.sha256


# ------------------------------------------------------------------------------ unpacking


@contextmanager
def opened_bundle(path: Path, *, intact: bool = True) -> Iterator[Path]:
    """Yield the folder of a bundle, which may be given as a folder or as an archive of one.

    An archive is unpacked into a temporary folder, removed afterwards.

    Args:
        path: folder or archive.
        intact: hash every file first; without it nothing of the contents is proven.

    Raises:
        StorageError: it is neither, is truncated or damaged, or not what its manifest says.
    """
    with _folder_of(path) as folder:
        if intact:
            require_intact(folder, name=path)
        yield folder


@contextmanager
def _folder_of(path: Path) -> Iterator[Path]:
    if not path.is_file():
        yield path
        return
    place = Path(tempfile.gettempdir())
    with storage_errors("cannot make a temporary folder", place, remedy="set TMPDIR"):
        temporary = tempfile.TemporaryDirectory(prefix="embedding-exporter-")
    with temporary as folder:
        unpack(path, Path(folder))
        yield Path(folder)


def unpack_bundle(archive: Path, output: Path, *, note: Note | None = None) -> Manifest:
    """Unpack an archive to a bundle's folder, swapped in whole once every hash is right.

    Raises:
        UsageError: the output folder must not be written; see `check_output`.
        StorageError: see `opened_bundle`; an earlier bundle is left as it was.
    """
    with BundleWriter(output, note=note) as writer:
        unpack(archive, writer.directory)
        require_intact(writer.directory, name=archive)
        return writer.adopt()


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive into an empty folder; whether the bytes are right is not looked at.

    Only plain files that its manifest lists, each once and of the size that is listed there,
    are written; reading stops where an archive holds more than that.

    Raises:
        StorageError: it is no archive of a bundle, is truncated or damaged, or holds other
            files than its manifest lists.
    """
    with (
        storage_errors("cannot unpack", archive, remedy="set TMPDIR", only_the_disk=True),
        _archive_errors(archive),
        decompressed_reader(archive, limit_bytes=_MAX_MANIFEST_BYTES + _HEADERS_BYTES) as stream,
        # A stream needs `read` alone; the stubs ask for more.
        tarfile.open(fileobj=stream, mode="r|") as members,  # type: ignore[call-overload]
    ):
        expected = _read_manifest(members, folder)
        stream.limit_bytes = sum(expected.values()) + _HEADERS_BYTES * (len(expected) + 8)
        while member := members.next():  # iterating would begin with the first one again
            _write(members, member, folder, expected)
        stream.read_to_the_end()
        expected.pop(SIGNATURE, None)
        if expected:
            raise ValueError(f"{min(expected)} is not in it, though its manifest lists it")


@contextmanager
def _archive_errors(archive: Path) -> Iterator[None]:
    """Say of everything that is wrong with an archive's contents whose contents they are."""
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's; what decompresses raises its own without a number
        raise StorageError(
            f"{archive} is not a whole archive of a bundle",
            why=str(error),
            hint="fetch it again, or pack the bundle again with `exporter pack`",
        ) from error


def _read_manifest(members: tarfile.TarFile, folder: Path) -> dict[str, int]:
    """Unpack the manifest, the first member, and return what may follow: name → bytes."""
    first = members.next()
    if first is None or first.name != _TOP + MANIFEST:
        raise ValueError(f"it does not begin with {_TOP}{MANIFEST}")
    _write(members, first, folder, {MANIFEST: min(first.size, _MAX_MANIFEST_BYTES)})
    expected = {file.path: file.size_bytes for file in read_manifest(folder).files}
    return expected | {SIGNATURE: _MAX_SIGNATURE_BYTES}


def _write(
    members: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, expected: dict[str, int]
) -> None:
    """Write one member and strike it from what may follow.

    Raises:
        ValueError: it must not be there, or not like this.
    """
    name = member.name.removeprefix(_TOP)
    if not (member.name.startswith(_TOP) and is_safe_relative(name) and member.isreg()):
        raise ValueError(f"{member.name!r} is a link, a special file or leads out of the bundle")
    size_bytes = expected.pop(name, None)
    if size_bytes is None:
        raise ValueError(f"{name} is not listed in its manifest, or there twice")
    if member.size != size_bytes and not (name == SIGNATURE and member.size < size_bytes):
        raise ValueError(f"{name} has {member.size:,} bytes in it and not {size_bytes:,}")
    source = members.extractfile(member)
    place = folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("xb") as target:
        shutil.copyfileobj(source, target)  # type: ignore[arg-type]  # a plain file has one
