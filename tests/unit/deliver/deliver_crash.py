"""Run in a process of its own: kill a child at every file operation, then look what is left.

`main` forks one child per file operation of the job (a cache build, or a bundle commit that
swaps by one exchange or by two renames); the child kills itself with SIGKILL right before
that operation. After each, the invariants must hold and the next run must work. Prints how
many points were tried.
"""

import contextlib
import os
import signal
import sys
from pathlib import Path

from deliver_records import RECORD

from exporter.deliver import bundle as bundle_module
from exporter.deliver.bundle import BundleWriter, facts_of, verify_bundle
from exporter.deliver.cache import Cache

STAGE, KEY, OTHER_KEY = "stage", "ab" * 32, "ab" * 16 + "cd" * 16
_FILE_EVENTS = ("open", "os.", "shutil.", "fcntl.", "ctypes.dlsym")


def die_before_operation(number: int) -> None:
    """Kill this process with SIGKILL when it starts its `number`-th file operation."""
    left = number

    def hook(event: str, _: tuple[object, ...]) -> None:
        nonlocal left
        if event.startswith(_FILE_EVENTS):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def was_killed(job, number: int) -> bool:
    pid = os.fork()
    if pid == 0:
        die_before_operation(number)
        job()
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed"
    return os.WIFSIGNALED(status)


# ------------------------------------------------------------------------------- cache


def build(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "data.bin").write_bytes(b"x" * 5000)
    (folder / "text.txt").write_text("done")


def build_again(root: Path) -> None:
    Cache(root).build(STAGE, KEY, build)


def check_cache(root: Path) -> None:
    entry = Cache(root, note=refuse_note).entry(STAGE, KEY, verify=True)
    assert entry is None or (entry / "text.txt").read_text() == "done"
    cache = Cache(root)
    assert (cache.build(STAGE, KEY, build) / "sub" / "data.bin").stat().st_size == 5000
    other = cache.build(STAGE, OTHER_KEY, build)
    assert {path.name for path in other.parent.iterdir()} == {KEY, OTHER_KEY}, "litter was left"
    cache.clear()


def refuse_note(text: str) -> None:
    raise AssertionError(f"a half entry was visible: {text}")


# ------------------------------------------------------------------------------ bundle


def write_bundle(output: Path, content: bytes) -> None:
    with BundleWriter(output) as bundle:
        bundle.add_bytes(content, "onnx/model.onnx")
        bundle.commit(facts_of(RECORD))


def check_bundle(output: Path, may_be_away: bool) -> None:
    if not may_be_away:
        assert output.exists(), "there was a moment without any bundle"
    if output.exists():
        assert verify_bundle(output) == ()
    # The next run mends what the crash left, even if it writes nothing itself.
    with BundleWriter(output):
        assert verify_bundle(output) == ()
        assert (output / "onnx/model.onnx").read_bytes() in (b"old", b"new")
    assert [path.name for path in output.parent.iterdir()] == [output.name], "litter was left"
    write_bundle(output, b"old")


def main(kind: str, place: str) -> None:
    folder = Path(place)
    output = folder / "out"
    os.fsync = lambda _: None  # matters to a power cut, not to a kill, and takes most of the time
    if kind == "rename":
        bundle_module.exchange = lambda _first, _second: False
    if kind == "cache":
        job, check = (lambda: build_again(folder)), (lambda: check_cache(folder))
    else:
        write_bundle(output, b"old")
        job = lambda: write_bundle(output, b"new")  # noqa: E731
        check = lambda: check_bundle(output, kind == "rename")  # noqa: E731
    with contextlib.redirect_stdout(sys.stderr):
        job(), check()  # loads every module before the first fork
        number = 1
        while was_killed(job, number):
            check()
            number += 1
    print(number - 1)
