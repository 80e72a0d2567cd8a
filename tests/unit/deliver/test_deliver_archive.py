"""Archives: equal bytes from equal bundles, whole ones only, and nothing written outside."""

import gzip
import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from deliver_records import RECORD

from exporter.cli.app import run
from exporter.deliver import archive as archive_module
from exporter.deliver.archive import opened_bundle, pack_bundle, unpack, unpack_bundle
from exporter.deliver.bundle import BundleWriter
from exporter.deliver.compression import BoundedReader
from exporter.deliver.manifest import MANIFEST, SIGNATURE, facts_of, read_manifest, verify_bundle
from targets.errors import ExitCode, StorageError, UsageError
from targets.hashing import sha256_file

LONG = "onnx/" + "a_name_longer_than_a_header_has_room_for" * 4 + ".onnx"
FILES = {"config.json": b"{}", "onnx/model.onnx": os.urandom(40_000), LONG: b"x" * 9}
ARCHIVES = ("a.tar.gz", "a.tgz", "a.tar.zst")
Rebuilt = Callable[[tarfile.TarInfo, bytes], tuple[tarfile.TarInfo, bytes] | None]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("bundle") / "out"
    with BundleWriter(output) as writer:
        for name, data in FILES.items():
            writer.add_bytes(data, name)
        writer.commit(facts_of(RECORD))
    return output


@pytest.fixture
def packed(bundle, tmp_path) -> Path:
    pack_bundle(bundle, tmp_path / "good.tar.gz")
    return tmp_path / "good.tar.gz"


def members_of(path: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(path) as archive:
        return [(one, archive.extractfile(one).read()) for one in archive]


def write_archive(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member, data in members:
            archive.addfile(member, io.BytesIO(data))
    return path


def added(name: str, data: bytes = b"data", **changes: object) -> tuple[tarfile.TarInfo, bytes]:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in changes.items():
        setattr(member, key, value)
    return member, data


# ------------------------------------------------------------------------- the good case


@pytest.mark.parametrize("name", ARCHIVES)
def test_there_and_back_it_is_the_same_bundle(name, bundle, tmp_path):
    packed = pack_bundle(bundle, tmp_path / name)
    assert (packed.sha256, packed.size_bytes) == (
        sha256_file(tmp_path / name),
        (tmp_path / name).stat().st_size,
    )
    unpack_bundle(tmp_path / name, tmp_path / "back")
    assert verify_bundle(tmp_path / "back") == ()
    assert (tmp_path / "back" / MANIFEST).read_bytes() == (bundle / MANIFEST).read_bytes()
    assert {n: (tmp_path / "back" / n).read_bytes() for n in FILES} == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "back"]


@pytest.mark.parametrize("name", ARCHIVES)
def test_the_same_bundle_gives_the_same_bytes(name, bundle, tmp_path):
    pack_bundle(bundle, tmp_path / name)
    again = shutil.copytree(bundle, tmp_path / "other" / "place")
    for number, path in enumerate(sorted(again.rglob("*"))):
        path.chmod(0o700)
        os.utime(path, (number, number))
    pack_bundle(again, tmp_path / "other" / f"another-{name}")
    assert (tmp_path / "other" / f"another-{name}").read_bytes() == (tmp_path / name).read_bytes()


def test_another_bundle_gives_other_bytes(bundle, packed, tmp_path):
    again = shutil.copytree(bundle, tmp_path / "other")
    manifest = (again / MANIFEST).read_text().replace("-o out", "-o elsewhere")
    (again / MANIFEST).write_text(manifest)
    assert pack_bundle(again, tmp_path / "b.tar.gz").sha256 != sha256_file(packed)


def test_nothing_of_this_machine_is_in_it(packed):
    found = [member for member, _ in members_of(packed)]
    assert found[0].name == "bundle/manifest.json"
    for member in found:
        assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
        assert (member.uname, member.gname) == ("", "")


def test_an_opened_archive_is_a_folder_for_a_while(packed, bundle):
    with opened_bundle(packed) as folder:
        assert read_manifest(folder) == read_manifest(bundle)
    assert not folder.exists()
    with opened_bundle(bundle) as folder:
        assert folder == bundle


def test_a_signature_travels_along(bundle, tmp_path):
    signed = shutil.copytree(bundle, tmp_path / "signed")
    (signed / SIGNATURE).write_bytes(b"a signature")
    pack_bundle(signed, tmp_path / "s.tar.gz")
    unpack_bundle(tmp_path / "s.tar.gz", tmp_path / "back")
    assert (tmp_path / "back" / SIGNATURE).read_bytes() == b"a signature"


# ------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("name", ["out.zip", "out.tar", "out"])
def test_a_name_without_a_known_compression_is_usage(name, bundle, tmp_path):
    with pytest.raises(UsageError, match="names no archive"):
        pack_bundle(bundle, tmp_path / name)


@pytest.mark.parametrize("kind", ["changed", "missing", "extra"])
def test_a_bundle_that_is_not_its_manifest_s_is_not_packed(kind, bundle, tmp_path):
    bad = shutil.copytree(bundle, tmp_path / "bad")
    if kind == "missing":
        (bad / "config.json").unlink()
    else:
        (bad / ("config.json" if kind == "changed" else "more.json")).write_text("[]")
    (tmp_path / "b.tar.gz").write_text("an earlier one")
    with pytest.raises(StorageError, match="not what its manifest says"):
        pack_bundle(bad, tmp_path / "b.tar.gz")
    assert (tmp_path / "b.tar.gz").read_text() == "an earlier one"


def test_a_file_that_changes_while_it_is_packed_is_found_out(bundle, tmp_path, monkeypatch):
    moving = shutil.copytree(bundle, tmp_path / "moving")

    def just_before(folder):
        (folder / "config.json").write_text("[]")

    monkeypatch.setattr(archive_module, "require_intact", just_before)
    with pytest.raises(StorageError, match="changed while it was packed"):
        pack_bundle(moving, tmp_path / "b.tar.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["moving"]


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_archive_is_a_clear_error(name, kept, bundle, tmp_path):
    pack_bundle(bundle, tmp_path / name)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * kept)])
    unpack_bundle_fails(tmp_path / name, tmp_path / "back", "archive of a bundle")


def unpack_bundle_fails(archive: Path, output: Path, message: str) -> None:
    """It is refused, and an earlier bundle is still there."""
    output.mkdir()
    with pytest.raises(StorageError, match=message) as caught:
        unpack_bundle(archive, output)
    assert caught.value.hint
    assert list(output.iterdir()) == []
    assert not list(output.parent.glob(".*"))


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04 a zip", gzip.compress(b"no tar")])
def test_another_file_is_no_archive(data, tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(data)
    unpack_bundle_fails(tmp_path / "a.tar.gz", tmp_path / "back", "archive of a bundle")


ESCAPES = (
    added("../escaped"),
    added("/tmp/escaped"),
    added("bundle/../../escaped"),
    added("bundle/onnx/../../../escaped"),
    added("escaped"),
    added("bundle/link", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    added("bundle/link", b"", type=tarfile.LNKTYPE, linkname="bundle/manifest.json"),
    added("bundle/pipe", b"", type=tarfile.FIFOTYPE),
    added("bundle/device", b"", type=tarfile.CHRTYPE),
    added("bundle/onnx", b"", type=tarfile.DIRTYPE),
)


@pytest.mark.parametrize("member", ESCAPES, ids=lambda member: member[0].name)
def test_nothing_escapes(member, packed, tmp_path):
    place = tmp_path / "deep" / "deeper"
    place.mkdir(parents=True)
    evil = write_archive(tmp_path / "evil.tar.gz", [*members_of(packed), member])
    with pytest.raises(StorageError, match=r"leads out of the bundle|link") as caught:
        unpack(evil, place)
    assert "whole archive" in caught.value.what
    assert not list(tmp_path.rglob("*escaped*"))
    assert not any(path.is_symlink() for path in place.rglob("*"))


def test_a_link_cannot_stand_in_for_a_listed_file(packed, tmp_path):
    members = [
        added(m.name, b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        if m.name.endswith("config.json")
        else (m, data)
        for m, data in members_of(packed)
    ]
    unpack_bundle_fails(write_archive(tmp_path / "e.tar.gz", members), tmp_path / "back", "whole")


def is_config(member: tarfile.TarInfo) -> bool:
    return member.name.endswith("config.json")


def without_config(member, data):
    return None if is_config(member) else (member, data)


def longer(member, data):
    return added(member.name, data + b"!") if is_config(member) else (member, data)


def other_bytes(member, data):
    return (member, b"[]") if is_config(member) else (member, data)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_config, "config.json is not in it"),
        (longer, "has 3 bytes in it and not 2"),
        (other_bytes, "config.json: not the bytes that the manifest lists"),
    ],
)
def test_missing_and_changed_files_are_named(change: Rebuilt, message, packed, tmp_path):
    members = [changed for one in members_of(packed) if (changed := change(*one))]
    evil = write_archive(tmp_path / "evil.tar.gz", members)
    with pytest.raises(StorageError) as caught:
        unpack_bundle(evil, tmp_path / "back")
    assert message in caught.value.why
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("name", ["bundle/more.json", "bundle/config.json", f"bundle/{MANIFEST}"])
def test_additional_and_repeated_files_are_named(name, packed, tmp_path):
    evil = write_archive(tmp_path / "evil.tar.gz", [*members_of(packed), added(name, b"{}")])
    with pytest.raises(StorageError) as caught:
        unpack_bundle(evil, tmp_path / "back")
    assert f"{name.removeprefix('bundle/')} is not listed in its manifest, or there twice" in (
        caught.value.why
    )


def test_the_manifest_must_come_first(packed, tmp_path):
    evil = write_archive(tmp_path / "evil.tar.gz", members_of(packed)[::-1])
    unpack_bundle_fails(evil, tmp_path / "back", "whole archive")


def test_a_bomb_is_not_unpacked(packed, tmp_path):
    """Terabytes of zeros fit into a small file: reading stops at what the manifest lists."""
    tail = gzip.compress(bytes(40_000_000))
    (tmp_path / "bomb.tar.gz").write_bytes(packed.read_bytes() + tail)
    with pytest.raises(StorageError) as caught:
        unpack_bundle(tmp_path / "bomb.tar.gz", tmp_path / "back")
    assert "unpacks to more than" in caught.value.why


def test_a_huge_manifest_is_not_read(tmp_path):
    bomb = write_archive(tmp_path / "bomb.tar.gz", [added(f"bundle/{MANIFEST}", bytes(40_000_000))])
    with pytest.raises(StorageError) as caught:
        unpack_bundle(bomb, tmp_path / "back")
    assert "40,000,000 bytes" in caught.value.why


def test_the_bound_is_exact():
    reader = BoundedReader(io.BytesIO(b"12345"), limit_bytes=5)
    assert reader.read(9) == b"12345"
    with pytest.raises(ValueError, match="more than 4"):
        BoundedReader(io.BytesIO(b"12345"), limit_bytes=4).read(9)


# ------------------------------------------------------------------------- the commands


def test_the_commands_pack_check_and_unpack(bundle, tmp_path, capsys):
    archive, back = str(tmp_path / "a.tar.zst"), str(tmp_path / "back")
    assert run(["pack", str(bundle), "-o", archive]) == ExitCode.PASS
    assert sha256_file(Path(archive)) in capsys.readouterr().out
    assert run(["check", archive]) == ExitCode.PASS
    assert "it is not signed" in capsys.readouterr().out
    assert run(["unpack", archive, "-o", back]) == ExitCode.PASS
    assert run(["check", back]) == ExitCode.PASS


def test_check_names_a_changed_file_of_an_archive(packed, tmp_path, capsys):
    members = [changed for one in members_of(packed) if (changed := other_bytes(*one))]
    evil = write_archive(tmp_path / "evil.tar.gz", members)
    assert run(["check", str(evil)]) == ExitCode.GATE_FAILED
    assert "FAIL config.json: not the bytes" in capsys.readouterr().out


def test_check_refuses_a_truncated_archive(packed, capsys):
    packed.write_bytes(packed.read_bytes()[:-100])
    assert run(["check", str(packed)]) == ExitCode.STEP_FAILED
    assert "is not a whole archive of a bundle" in capsys.readouterr().err


def test_unpacking_leaves_a_foreign_folder_alone(packed, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("keep me")
    assert run(["unpack", str(packed), "-o", str(tmp_path / "mine")]) == ExitCode.USAGE
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["precious.txt"]
