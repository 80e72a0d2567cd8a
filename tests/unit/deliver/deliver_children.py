"""Child processes that stop where a test wants them to; no sleeping, only pipes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(HERE)))}


@contextmanager
def child(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Start Python on `code` with pipes; kill it in the end if it still runs."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run(code: str, *arguments: object) -> str:
    """Run Python on `code` and return what it printed; it must succeed."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def expect(process: subprocess.Popen[str], line: str) -> None:
    """Wait until the child prints this line."""
    said = process.stdout.readline().strip()
    if said != line:
        process.kill()
        raise AssertionError(f"{said!r} instead of {line!r}: {process.stderr.read()}")


def let_go(process: subprocess.Popen[str]) -> None:
    """Let a child that waits for a line go on."""
    process.stdin.write("go\n")
    process.stdin.flush()
