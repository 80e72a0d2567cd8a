"""The output folder: refused early, written whole, swapped in at once, proven by hashes."""

import json
import os
import threading
from pathlib import Path

import pytest
from deliver_children import child, expect, let_go, run
from deliver_records import RECORD

from exporter.deliver import bundle as bundle_module
from exporter.deliver.bundle import BundleWriter, check_output, swap_in
from exporter.deliver.folders import exchange, staging_name
from exporter.deliver.manifest import MANIFEST, facts_of, read_manifest, verify_bundle
from exporter.deliver.report import write_reports
from exporter.deliver.storage import locked
from targets.errors import ModelError, StorageError, UsageError

FACTS = facts_of(RECORD)


def write(output: Path, content: bytes = b"graph", **files: bytes) -> None:
    with BundleWriter(output) as bundle:
        bundle.add_bytes(content, "onnx/model.onnx")
        for name, data in files.items():
            bundle.add_bytes(data, name)
        bundle.commit(FACTS)


def beside(output: Path) -> list[str]:
    return sorted(path.name for path in output.parent.iterdir())


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / "out"


# ------------------------------------------------------------------------- the good case


def test_a_bundle_holds_its_files_and_a_manifest_that_proves_them(output, tmp_path):
    source = tmp_path / "vocab.txt"
    source.write_text("[PAD]\n")
    with BundleWriter(output) as bundle:
        bundle.add_file(source, "vocab.txt")
        bundle.add_bytes(b"graph", "onnx/model.onnx")
        (bundle.directory / "reports").mkdir()
        (bundle.directory / "reports" / "report.md").write_text("# fine\n")
        manifest = bundle.commit(FACTS)
        assert [file.path for file in manifest.files] == [
            "onnx/model.onnx",
            "reports/report.md",
            "vocab.txt",
        ]
    source.write_text("changed later")
    assert (output / "vocab.txt").read_text() == "[PAD]\n"
    assert verify_bundle(output) == ()
    assert read_manifest(output) == manifest
    assert beside(output) == ["out", "vocab.txt"]


def test_the_reports_plots_are_proven_like_any_other_file(output):
    with BundleWriter(output) as bundle:
        write_reports(RECORD, bundle.directory / "reports")
        bundle.commit(FACTS)
    assert verify_bundle(output) == ()
    (output / "reports" / "pareto-openvino.svg").write_text("<svg/>")
    (output / "reports" / "sensitivity-openvino.svg").unlink()
    assert [problem.path for problem in verify_bundle(output)] == [
        "reports/pareto-openvino.svg",
        "reports/sensitivity-openvino.svg",
    ]


def test_a_linked_source_is_copied_as_a_plain_file(output, tmp_path):
    (tmp_path / "blob").write_bytes(b"weights")
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blob")
    with BundleWriter(output) as bundle:
        bundle.add_file(tmp_path / "model.safetensors", "model.safetensors")
        bundle.commit(FACTS)
    assert not (output / "model.safetensors").is_symlink()
    assert (output / "model.safetensors").read_bytes() == b"weights"


def test_parents_are_made_and_an_empty_folder_is_filled(tmp_path):
    write(tmp_path / "a" / "b" / "out")
    assert verify_bundle(tmp_path / "a" / "b" / "out") == ()
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")
    assert verify_bundle(tmp_path / "empty") == ()


def test_a_bundle_replaces_a_bundle_as_a_whole(output):
    write(output, **{"old.txt": b"old"})
    write(output, b"new")
    assert not (output / "old.txt").exists()
    assert (output / "onnx" / "model.onnx").read_bytes() == b"new"
    assert verify_bundle(output) == ()
    assert beside(output) == ["out"]


def test_a_link_to_the_output_folder_is_followed(output, tmp_path):
    write(output)
    (tmp_path / "link").symlink_to(output)
    write(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (output / "onnx" / "model.onnx").read_bytes() == b"new"


# --------------------------------------------------------------------------- refused early


def test_a_file_is_no_output(output):
    output.write_text("")
    with pytest.raises(UsageError, match="is a file, not a folder"):
        check_output(output)


def test_a_folder_below_a_file_is_no_output(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made") as error:
        check_output(tmp_path / "file" / "out")
    assert error.value.why


def test_a_foreign_folder_is_no_output_and_stays_as_it_was(output):
    output.mkdir()
    (output / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="is not empty and not a bundle"):
        BundleWriter(output)
    assert [path.name for path in output.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("manifest", ["", "{}", '{"manifest_version": 3, "name": "an extension"}'])
def test_somebody_elses_manifest_makes_no_bundle(output, manifest):
    output.mkdir()
    (output / MANIFEST).write_text(manifest)
    with pytest.raises(UsageError, match="is not empty and not a bundle"):
        check_output(output)


def test_files_put_into_a_bundle_are_not_deleted_with_it(output):
    write(output)
    (output / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"not the bundle's: notes\.txt"):
        check_output(output)
    assert (output / "notes.txt").read_text() == "mine"


def test_what_a_file_manager_leaves_is_nobodys_work(output):
    write(output)
    (output / ".DS_Store").write_bytes(b"")
    write(output, b"new")
    assert verify_bundle(output) == ()


def test_a_mount_point_is_no_output():
    with pytest.raises(UsageError, match="mount point") as error:
        check_output(Path("/proc"))
    assert "/proc/bundle" in error.value.hint


def test_the_working_directory_is_no_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="working directory"):
        check_output(Path())
    with pytest.raises(UsageError, match="working directory"):
        check_output(tmp_path)


_AS_NOBODY = """
import json, os, sys
from pathlib import Path
from exporter.deliver.bundle import check_output
from targets.errors import UsageError
if os.getuid() == 0: os.setuid(65534)
os.chdir("/")
try: check_output(Path(sys.argv[1]) / "sub" / "out")
except UsageError as error: print(json.dumps([error.what, error.why, error.hint]))
"""


def test_a_folder_without_permission_is_no_output(readonly_folder):
    what, why, hint = json.loads(run(_AS_NOBODY, readonly_folder))
    assert f"{readonly_folder}/sub/out" in what
    assert why == f"no permission to write in {readonly_folder}"
    assert "--output" in hint


# --------------------------------------------------------------------- paths of its files


@pytest.mark.parametrize(
    "relative", ["../evil", "/etc/passwd", "a/../../evil", "", ".", "a\\b", "a\0b", MANIFEST]
)
def test_a_path_that_leaves_the_bundle_is_refused(output, tmp_path, relative):
    with BundleWriter(output) as bundle, pytest.raises(StorageError, match="not a path"):
        bundle.add_bytes(b"evil", relative)
    assert beside(output) == []


def test_a_link_inside_the_bundle_is_not_followed_out_of_it(output, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    with BundleWriter(output) as bundle:
        (bundle.directory / "onnx").symlink_to(outside)
        with pytest.raises(StorageError, match="leads out of the bundle"):
            bundle.add_bytes(b"evil", "onnx/model.onnx")
        with pytest.raises(StorageError, match="link or a special file"):
            bundle.commit(FACTS)
    assert list(outside.iterdir()) == []
    assert not output.exists()


def test_a_special_file_is_refused(output):
    with BundleWriter(output) as bundle:
        os.mkfifo(bundle.directory / "pipe")
        with pytest.raises(StorageError, match="special file"):
            bundle.commit(FACTS)


def test_a_file_is_added_once_and_must_be_there(output, tmp_path):
    with BundleWriter(output) as bundle:
        bundle.add_bytes(b"1", "a.txt")
        with pytest.raises(StorageError, match="in the bundle already"):
            bundle.add_bytes(b"2", "a.txt")
        with pytest.raises(StorageError, match=r"absent\.bin"):
            bundle.add_file(tmp_path / "absent.bin", "b.txt")


# -------------------------------------------------------------------------------- failures


def test_a_failure_keeps_the_earlier_bundle_and_leaves_nothing(output):
    write(output, b"old")
    with pytest.raises(ModelError), BundleWriter(output) as bundle:
        bundle.add_bytes(b"new", "onnx/model.onnx")
        raise ModelError("the step failed")
    assert (output / "onnx" / "model.onnx").read_bytes() == b"old"
    assert verify_bundle(output) == ()
    assert beside(output) == ["out"]


def test_leaving_without_commit_writes_nothing(output):
    with BundleWriter(output) as bundle:
        bundle.add_bytes(b"graph", "onnx/model.onnx")
    assert beside(output) == []


_FULL = """
import json, resource, sys
from pathlib import Path
from deliver_records import RECORD
from exporter.deliver.bundle import BundleWriter, facts_of
from targets.errors import StorageError
output, large = map(Path, sys.argv[1:])
try:
    with BundleWriter(output) as bundle:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
        bundle.add_file(large, "large.bin")
        bundle.commit(facts_of(RECORD))
except StorageError as error: print(json.dumps([error.what, error.why, error.hint]))
"""


def test_a_write_that_the_system_refuses_keeps_the_earlier_bundle(output, tmp_path):
    write(output, b"old")
    (tmp_path / "large.bin").write_bytes(bytes(1 << 20))
    what, why, hint = json.loads(run(_FULL, output, tmp_path / "large.bin"))
    assert "large.bin" in what
    assert "largest size" in why
    assert "--output" in hint
    assert verify_bundle(output) == ()
    assert beside(output) == ["large.bin", "out"]


def test_a_full_disk_is_named_whoever_wrote_into_the_folder(output):
    # The kernel answers every write to this device with "no space left".
    full = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115  # closed below
    with full, pytest.raises(StorageError) as error, BundleWriter(output):
        full.write(b"data")
    assert error.value.why == "the disk is full"
    assert "--output" in error.value.hint
    with pytest.raises(FileNotFoundError), BundleWriter(output) as bundle:
        (bundle.directory / "absent").read_bytes()
    assert beside(output) == []


def test_files_put_there_meanwhile_are_not_replaced(output):
    with BundleWriter(output) as bundle:
        bundle.add_bytes(b"graph", "onnx/model.onnx")
        output.mkdir()
        (output / "notes.txt").write_text("mine")
        with pytest.raises(UsageError, match="not a bundle"):
            bundle.commit(FACTS)
    assert (output / "notes.txt").read_text() == "mine"


# ------------------------------------------------------------------ crashes and neighbours

_WRITER = """
import sys
from pathlib import Path
from deliver_records import RECORD
from exporter.deliver.bundle import BundleWriter, facts_of
output, content = Path(sys.argv[1]), sys.argv[2].encode()
with BundleWriter(output) as bundle:
    bundle.add_bytes(content, "onnx/model.onnx")
    print("staged", flush=True)
    sys.stdin.readline()
    bundle.add_bytes(content, "second.bin")
    bundle.commit(facts_of(RECORD))
print("done", flush=True)
"""


def test_a_writer_killed_halfway_changes_nothing_and_the_next_run_sweeps(output):
    write(output, b"old")
    with child(_WRITER, output, "new") as writer:
        expect(writer, "staged")
        assert len(beside(output)) == 2
        writer.kill()
        writer.wait()
    assert verify_bundle(output) == ()
    assert (output / "onnx" / "model.onnx").read_bytes() == b"old"
    write(output, b"newer")
    assert beside(output) == ["out"]


def test_two_runs_at_once_do_not_mix_and_the_later_one_wins(output):
    with child(_WRITER, output, "first") as first, child(_WRITER, output, "second") as second:
        expect(first, "staged")
        expect(second, "staged")
        let_go(second)
        expect(second, "done")
        let_go(first)
        expect(first, "done")
    assert verify_bundle(output) == ()
    assert (output / "onnx" / "model.onnx").read_bytes() == b"first"
    assert (output / "second.bin").read_bytes() == b"first"
    assert beside(output) == ["out"]


_HAMMER = """
import sys
from pathlib import Path
from deliver_records import RECORD
from exporter.deliver.bundle import BundleWriter, facts_of
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    with BundleWriter(Path(sys.argv[1])) as bundle:
        bundle.add_bytes(f"{sys.argv[2]}{number}".encode(), "a.bin")
        bundle.add_bytes(f"{sys.argv[2]}{number}".encode(), "b.bin")
        bundle.commit(facts_of(RECORD))
print("done", flush=True)
"""


@pytest.fixture
def has_exchange(tmp_path) -> None:
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
    if not exchange(tmp_path / "x", tmp_path / "y"):
        pytest.skip("this file system cannot exchange two folders")
    for name in ("x", "y"):
        (tmp_path / name).rmdir()


def test_many_writes_at_once_never_show_a_half_bundle(output, has_exchange):
    write(output)
    with child(_HAMMER, output, "x") as first, child(_HAMMER, output, "y") as second:
        expect(first, "ready")
        expect(second, "ready")
        let_go(first)
        let_go(second)
        while first.poll() is None or second.poll() is None:
            assert output.is_dir(), "there was a moment without any bundle"
        expect(first, "done")
        expect(second, "done")
    assert verify_bundle(output) == ()
    assert (output / "a.bin").read_bytes() == (output / "b.bin").read_bytes()
    assert beside(output) == ["out"]


def test_a_writer_waits_for_the_one_that_is_swapping_and_says_so(output):
    noted, told = threading.Event(), []

    def note(text: str) -> None:
        told.append(text)
        noted.set()

    def write_noting() -> None:
        with BundleWriter(output, note=note) as bundle:
            bundle.commit(FACTS)

    with locked(output.with_name(".out.lock")):
        thread = threading.Thread(target=write_noting)
        thread.start()
        assert noted.wait(timeout=30)
        assert not output.exists()
    thread.join(timeout=30)
    assert verify_bundle(output) == ()
    assert "waiting for another run" in told[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a child per kill")
@pytest.mark.parametrize("kind", ["exchange", "rename"])
def test_killed_before_any_file_operation_the_earlier_bundle_is_kept(tmp_path, kind):
    tried = run("import sys, deliver_crash; deliver_crash.main(*sys.argv[1:])", kind, tmp_path)
    assert int(tried) > 20


# -------------------------------------------------------------------------------- swapping


def test_without_exchange_two_renames_do(output, monkeypatch):
    monkeypatch.setattr(bundle_module, "exchange", lambda first, second: False)
    write(output, b"old")
    write(output, b"new")
    assert verify_bundle(output) == ()
    assert (output / "onnx" / "model.onnx").read_bytes() == b"new"
    assert beside(output) == ["out"]


def test_a_failing_second_rename_puts_the_old_bundle_back(output, monkeypatch, tmp_path):
    monkeypatch.setattr(bundle_module, "exchange", lambda first, second: False)
    write(output, b"old")
    with pytest.raises(FileNotFoundError):
        swap_in(tmp_path / "absent", output)
    assert verify_bundle(output) == ()
    assert beside(output) == ["out"]


def test_a_crash_between_two_renames_is_mended(output):
    write(output, b"old")
    output.rename(output.with_name(staging_name(".out.", "old")))
    with BundleWriter(output):
        assert verify_bundle(output) == ()
    assert beside(output) == ["out"]


def test_exchange_swaps_two_folders(tmp_path, has_exchange):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "name").write_text(name)
    assert exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "name").read_text() == "b"
    assert (tmp_path / "b" / "name").read_text() == "a"
    with pytest.raises(FileNotFoundError):
        exchange(tmp_path / "a", tmp_path / "absent")
