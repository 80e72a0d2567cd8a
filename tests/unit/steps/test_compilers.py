"""Compilation in child processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from multiprocessing.connection import wait
from pathlib import Path
from types import SimpleNamespace

import pytest

from exporter.steps.compilers import compilers, finish_apart, side_by_side
from exporter.steps.workers import Worker
from targets.errors import CompileError, UnknownTargetError


class Bomb:
    """A request that ends the process that unpacks it."""

    recipe = SimpleNamespace(name="int8")
    artifact = SimpleNamespace(recipe=recipe)

    def __reduce__(self):
        return os._exit, (3,)


def test_an_error_of_the_child_arrives_whole():
    with pytest.raises(UnknownTargetError) as raised, compilers("openvin", 1) as compile_:
        compile_(SimpleNamespace())
    assert "openvino" in raised.value.why
    assert raised.value.hint


def test_a_child_that_dies_ends_its_recipe_by_name():
    with compilers("openvino", 1) as compile_, pytest.raises(CompileError, match="int8 died"):
        compile_(Bomb())


class LoudBomb(Bomb):
    """Dies within the work: by a signal, after its last words, as the system ends it."""

    def __getattr__(self, name: str):
        assert multiprocessing.parent_process() is not None
        os.write(2, b"cannot allocate\nthe last straw\n")
        os.kill(os.getpid(), signal.SIGKILL)

    def __reduce__(self):
        return LoudBomb, ()


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx"])
def test_what_the_child_said_last_is_in_the_error(target):
    with compilers(target, 1) as compile_, pytest.raises(CompileError) as raised:
        compile_(LoudBomb())
    assert raised.value.why == "cannot allocate\nthe last straw"


def test_a_child_that_said_nothing_is_told_as_that():
    with compilers("openvino", 1) as compile_, pytest.raises(CompileError) as raised:
        compile_(Bomb())
    assert "it wrote nothing" in raised.value.why


def test_a_child_that_dies_ends_nobody_else_s_work():
    """One after it in the same place, and one at work beside it."""
    with compilers("openvin", 1) as compile_:
        with pytest.raises(CompileError):
            compile_(Bomb())
        with pytest.raises(UnknownTargetError):
            compile_(SimpleNamespace())
    with compilers("openvin", 2) as compile_:

        def attempt(request: object) -> str:
            try:
                compile_(request)
            except (CompileError, UnknownTargetError) as error:
                return type(error).__name__
            return "compiled"

        work = [lambda: attempt(Bomb()), *[lambda: attempt(SimpleNamespace())] * 3]
        told = side_by_side(work, 2)
    assert told == ["CompileError", *["UnknownTargetError"] * 3]


def test_what_a_child_writes_is_shown_where_it_goes_on(capfd):
    with tempfile.TemporaryDirectory() as folder:
        worker = Worker(Path(folder))
        worker.call(os.write, 2, b"a warning\n")
        assert capfd.readouterr().err == "a warning\n"
        assert list(Path(folder).iterdir()) == []
        worker.end()


def test_a_builder_that_dies_is_an_error_too():
    with pytest.raises(CompileError, match="the process that built int8 died") as raised:
        finish_apart("tensorrt", Bomb())
    assert "stays as it was" in raised.value.hint


def test_nothing_is_left_running():
    with pytest.raises(RuntimeError, match="ours"), compilers("openvino", 1) as compile_:
        with pytest.raises(CompileError):
            compile_(Bomb())
        raise RuntimeError("ours")
    for child in multiprocessing.active_children():  # ended, perhaps not yet reaped
        assert wait([child.sentinel], timeout=10)


def test_no_worker_outlives_a_killed_parent():
    """The worker holds the parent's stdout: its end is seen once both are gone."""
    program = (
        "import sys, types\n"
        "from exporter.steps.compilers import compilers\n"
        "if __name__ == '__main__':\n"
        "    with compilers('nobody', 1) as compile_:\n"
        "        try:\n"
        "            compile_(types.SimpleNamespace())\n"
        "        except Exception as error:\n"
        "            print('worker is up', flush=True)\n"
        "        sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "worker is up\n"
        parent.kill()
        assert parent.communicate(timeout=30)[0] == ""


def test_results_come_in_order_and_errors_are_raised():
    assert side_by_side([lambda: 1, lambda: 2, lambda: 3], 2) == [1, 2, 3]
    with pytest.raises(ZeroDivisionError):
        side_by_side([lambda: 1, lambda: 1 // 0], 2)
