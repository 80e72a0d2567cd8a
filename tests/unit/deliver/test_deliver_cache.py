"""The cache: whole entries only, built once, checked when read, bounded in size."""

import json
import os
import shutil
from pathlib import Path

import pytest
from deliver_children import child, expect, let_go, run
from deliver_records import BFLOAT16, INT8

from exporter.deliver.cache import IN_USE_S, Cache, default_root, key_of, temporary_cache
from exporter.deliver.entries import ENTRY_FILE
from exporter.deliver.folders import ORPHAN_AGE_S, machine_token, staging_name
from targets.errors import CompileError, NonFiniteError, StorageError

KEY = key_of("some inputs")
OTHER = key_of("other inputs")


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path, notes) -> Cache:
    return Cache(tmp_path / "cache", note=notes.append)


def build(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "data.bin").write_bytes(b"data")


def never(folder: Path) -> None:
    raise AssertionError("built although it was there")


def files_below(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


# ------------------------------------------------------------------------- the good case


def test_an_entry_is_built_once_and_read_after(cache, notes):
    assert cache.entry("stage", KEY) is None
    built = cache.build("stage", KEY, build)
    assert (built / "sub" / "data.bin").read_bytes() == b"data"
    assert cache.build("stage", KEY, never) == built
    assert cache.entry("stage", KEY, verify=True) == built
    assert built == cache.root / "stage" / KEY[:2] / KEY
    assert cache.created_utc(built).endswith("+00:00")
    assert notes == []


def test_stages_and_keys_do_not_meet(cache):
    first = cache.build("one", KEY, build)
    assert cache.entry("two", KEY) is None
    assert cache.entry("one", OTHER) is None
    assert cache.entry("one", KEY) == first


@pytest.mark.parametrize(
    ("stage", "key"), [("../up", KEY), ("", KEY), ("a/b", KEY), ("stage", "../../x"), ("stage", "")]
)
def test_a_stage_or_key_that_would_leave_the_cache_is_refused(cache, stage, key):
    with pytest.raises(ValueError, match="not a stage and a key"):
        cache.build(stage, key, build)


def test_no_cache_leaves_nothing():
    with temporary_cache() as cache:
        root = cache.build("stage", KEY, build).parents[2]
        assert root.exists()
    assert not root.exists()


def test_the_root_is_chosen_by_argument_then_environment_then_user(monkeypatch, tmp_path):
    monkeypatch.setenv("EMBEDDING_EXPORTER_CACHE", str(tmp_path / "env"))
    assert default_root(tmp_path / "argument") == tmp_path / "argument"
    assert default_root() == tmp_path / "env"
    monkeypatch.setenv("EMBEDDING_EXPORTER_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_root().name == "embedding-exporter"


# ------------------------------------------------------------------------------- the key


def test_a_key_depends_on_every_part_and_not_on_the_order_of_mappings():
    assert key_of(BFLOAT16, {"a": 1, "b": 2}) == key_of(BFLOAT16, {"b": 2, "a": 1})
    keys = {key_of(BFLOAT16), key_of(INT8), key_of(1), key_of(1.0), key_of("1"), key_of(1, 1)}
    assert len(keys) == 6
    assert key_of(Path("a/b")) == key_of("a/b")


def test_a_key_refuses_what_has_no_canonical_form():
    with pytest.raises(NonFiniteError, match=r"key\[1\]"):
        key_of("x", float("nan"))
    with pytest.raises(TypeError, match=r"key\[0\] is a bytes"):
        key_of(b"x")


# -------------------------------------------------------------------------------- damage


@pytest.mark.parametrize(
    ("damage", "verify", "said"),
    [
        (
            lambda e: (e / "sub/data.bin").write_bytes(b"longer"),
            False,
            "data.bin has the wrong size",
        ),
        (lambda e: (e / "sub/data.bin").unlink(), False, "data.bin is missing"),
        (lambda e: (e / ENTRY_FILE).unlink(), False, "entry.json is missing"),
        (lambda e: (e / ENTRY_FILE).write_text("{"), False, "entry.json is missing or unreadable"),
        (lambda e: (e / "sub/data.bin").write_bytes(b"DATA"), True, "data.bin has changed"),
    ],
    ids=["size", "missing", "no-list", "bad-list", "hash"],
)
def test_a_damaged_entry_is_named_and_built_again(cache, notes, damage, verify, said):
    entry = cache.build("stage", KEY, build)
    damage(entry)
    assert cache.entry("stage", KEY, verify=verify) is None
    assert said in notes[0]
    again = cache.build("stage", KEY, build, verify=verify)
    assert (again / "sub" / "data.bin").read_bytes() == b"data"
    assert cache.entry("stage", KEY, verify=True) == again
    assert len(notes) == 1


def test_an_entry_copied_under_another_key_is_not_believed(cache, notes):
    entry = cache.build("stage", KEY, build)
    place = cache.root / "stage" / OTHER[:2] / OTHER
    place.parent.mkdir(exist_ok=True)
    shutil.copytree(entry, place)
    assert cache.entry("stage", OTHER) is None
    assert "belongs to something else" in notes[0]


def test_same_size_damage_is_only_seen_by_verify(cache):
    entry = cache.build("stage", KEY, build)
    (entry / "sub" / "data.bin").write_bytes(b"DATA")
    assert cache.entry("stage", KEY) == entry
    assert cache.entry("stage", KEY, verify=True) is None


# -------------------------------------------------------------------------- failed builds


def test_the_build_functions_own_error_passes_and_leaves_nothing(cache):
    def fail(folder: Path) -> None:
        (folder / "half.bin").write_bytes(b"half")
        raise CompileError("the back end refused")

    with pytest.raises(CompileError, match="the back end refused"):
        cache.build("stage", KEY, fail)
    assert files_below(cache.root) == ["CACHEDIR.TAG"]
    assert cache.build("stage", KEY, build)


def test_a_missing_file_of_the_build_function_is_not_called_a_disk_error(cache):
    with pytest.raises(FileNotFoundError):
        cache.build("stage", KEY, lambda folder: (folder / "absent").read_bytes())


def test_a_link_in_an_entry_is_refused(cache):
    with pytest.raises(StorageError, match="link or a special file"):
        cache.build("stage", KEY, lambda folder: (folder / "link").symlink_to("/etc/passwd"))
    assert cache.entry("stage", KEY) is None


def test_a_file_named_as_the_list_is_refused(cache):
    with pytest.raises(ValueError, match=r"entry\.json"):
        cache.build("stage", KEY, lambda folder: (folder / ENTRY_FILE).write_text("{}"))


def test_a_root_under_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file" / "cache")
    assert cache.entry("stage", KEY) is None
    with pytest.raises(StorageError, match=str(tmp_path)) as error:
        cache.build("stage", KEY, build)
    assert "is a file" in error.value.why
    assert "EMBEDDING_EXPORTER_CACHE" in error.value.hint


# Root may write anywhere: the child gives its privileges away where it has them.
_AS_NOBODY = """
import os, sys, json
from pathlib import Path
from exporter.deliver.cache import Cache, key_of
from targets.errors import StorageError
import filelock, pydantic, tempfile
if os.getuid() == 0: os.setuid(65534)
try: Cache(Path(sys.argv[1]) / "cache").build("stage", "ab" * 32, lambda folder: None)
except StorageError as error: print(json.dumps([error.what, error.why, error.hint]))
"""


def test_no_permission_is_named(readonly_folder):
    what, why, hint = json.loads(run(_AS_NOBODY, readonly_folder))
    assert str(readonly_folder) in what
    assert why == "permission denied"
    assert "EMBEDDING_EXPORTER_CACHE" in hint


_FULL = """
import json, resource, sys
from pathlib import Path
from exporter.deliver.cache import Cache
from targets.errors import StorageError
cache = Cache(Path(sys.argv[1]))
def build(folder): (folder / "large.bin").write_bytes(bytes(1 << 20))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
try: cache.build("stage", "ab" * 32, build)
except StorageError as error: print(json.dumps([error.what, error.why, error.hint]))
"""


def test_a_write_that_the_system_refuses_is_named_and_leaves_nothing(tmp_path):
    what, why, hint = json.loads(run(_FULL, tmp_path))
    assert what == f"cannot write the cache entry of stage: {tmp_path}"
    assert "largest size" in why
    assert "ulimit" in hint
    assert files_below(tmp_path) == ["CACHEDIR.TAG"]


def test_a_full_disk_is_named(cache):
    def fill(folder: Path) -> None:
        # The kernel answers every write to this device with "no space left".
        with Path("/dev/full").open("wb", buffering=0) as disk:
            disk.write(b"data")

    with pytest.raises(StorageError) as error:
        cache.build("stage", KEY, fill)
    assert error.value.why == "the disk is full"
    assert "free some space" in error.value.hint


# ------------------------------------------------------------------ crashes and neighbours

_BUILDER = """
import sys
from pathlib import Path
from exporter.deliver.cache import Cache
root, key = Path(sys.argv[1]), sys.argv[2]
def build(folder):
    with (root / "builds").open("a") as log: log.write("x")
    (folder / "half.bin").write_bytes(b"half")
    print("building", flush=True)
    sys.stdin.readline()
    (folder / "data.bin").write_bytes(b"data")
cache = Cache(root / "cache", note=lambda text: print("waiting", flush=True))
print(cache.build("stage", key, build), flush=True)
"""


def test_two_processes_build_the_same_entry_once(tmp_path):
    with child(_BUILDER, tmp_path, KEY) as first:
        expect(first, "building")
        with child(_BUILDER, tmp_path, KEY) as second:
            expect(second, "waiting")
            let_go(first)
            entry = str(tmp_path / "cache" / "stage" / KEY[:2] / KEY)
            expect(first, entry)
            expect(second, entry)
    assert (tmp_path / "builds").read_text() == "x"


def test_different_entries_do_not_wait_for_each_other(tmp_path):
    with child(_BUILDER, tmp_path, KEY) as first:
        expect(first, "building")
        Cache(tmp_path / "cache", note=pytest.fail).build("stage", OTHER, build)


def test_a_killed_builder_leaves_no_half_entry_and_frees_the_lock(tmp_path):
    with child(_BUILDER, tmp_path, KEY) as builder:
        expect(builder, "building")
        builder.kill()
        builder.wait()
    shelf = tmp_path / "cache" / "stage" / KEY[:2]
    assert any(path.name.startswith(".tmp-") for path in shelf.iterdir())
    cache = Cache(tmp_path / "cache", note=pytest.fail)
    assert cache.entry("stage", KEY) is None
    cache.build("stage", KEY, build)
    assert [path.name for path in shelf.iterdir()] == [KEY]


def test_one_who_waits_takes_over_from_a_killed_builder(tmp_path):
    with child(_BUILDER, tmp_path, KEY) as first:
        expect(first, "building")
        with child(_BUILDER, tmp_path, KEY) as second:
            expect(second, "waiting")
            first.kill()
            expect(second, "building")
            let_go(second)
            expect(second, str(tmp_path / "cache" / "stage" / KEY[:2] / KEY))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a child per kill")
def test_killed_before_any_file_operation_the_next_run_works(tmp_path):
    tried = run("import sys, deliver_crash; deliver_crash.main(*sys.argv[1:])", "cache", tmp_path)
    assert int(tried) > 10


# ----------------------------------------------------------------------------- sweeping


def orphan(shelf: Path, name: str, age_s: float = 0.0) -> Path:
    folder = shelf / name
    folder.mkdir(parents=True)
    (folder / "half.bin").write_bytes(b"half")
    now = folder.stat().st_mtime
    os.utime(folder, (now - age_s, now - age_s))
    return folder


def test_only_folders_without_a_living_owner_are_swept(cache):
    shelf = cache.root / "stage" / "00"
    gone = run("import os; print(os.getpid())")
    mine = orphan(shelf, staging_name("."))
    elsewhere = orphan(shelf, f".tmp-{gone}-00000000-aaaaaaaa")
    dead = orphan(shelf, f".tmp-{gone}-{machine_token()}-aaaaaaaa")
    old = orphan(shelf, f".tmp-{os.getpid()}-{machine_token()}-bbbbbbbb", ORPHAN_AGE_S + 60)
    foreign = orphan(shelf, ".tmp-something-else", ORPHAN_AGE_S + 60)
    cache.build("stage", KEY, build)
    assert mine.exists()
    assert elsewhere.exists()
    assert foreign.exists()
    assert not dead.exists()
    assert not old.exists()


def make_old(entry: Path, age_s: float) -> None:
    file = entry / ENTRY_FILE
    used = file.stat().st_mtime - age_s
    os.utime(file, (used, used))


def test_the_entry_unused_for_longest_goes_first(tmp_path):
    keys = [key_of(number) for number in range(3)]
    cache = Cache(tmp_path, max_bytes=10)
    entries = [cache.build("stage", key, build) for key in keys]
    for entry, age in zip(entries, (3, 1, 2), strict=True):
        make_old(entry, IN_USE_S * age + 60)
    cache.entry("stage", keys[2])
    cache.build("stage", KEY, build)
    assert [entry.exists() for entry in entries] == [False, False, True]


def test_an_entry_in_use_stays_above_the_limit(tmp_path):
    cache = Cache(tmp_path, max_bytes=1)
    first = cache.build("stage", KEY, build)
    second = cache.build("stage", OTHER, build)
    assert first.exists()
    assert second.exists()


def test_usage_and_clear_count_and_touch_entries_only(cache):
    cache.build("one", KEY, build)
    cache.build("two", OTHER, build)
    precious = cache.root / "one" / "precious.txt"
    precious.write_text("not an entry")
    usage = cache.usage()
    assert (usage.num_entries, usage.size_bytes) == (2, 8)
    assert usage.stage_bytes == {"one": 4, "two": 4}
    assert cache.clear() == 8
    assert cache.usage().num_entries == 0
    assert files_below(cache.root) == ["CACHEDIR.TAG", "one/precious.txt"]


def test_importing_the_cache_is_light():
    code = "import sys, exporter.deliver.cache; print({'pydantic', 'filelock'} & set(sys.modules))"
    assert run(code) == "set()"
