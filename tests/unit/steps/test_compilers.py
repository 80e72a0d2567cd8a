"""Compilation in child processes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from multiprocessing.connection import wait
from types import SimpleNamespace

import pytest

from exporter.steps.compilers import compilers, side_by_side
from targets.errors import CompileError, UnknownTargetError


class Bomb:
    """A request that ends the process that unpacks it."""

    recipe = SimpleNamespace(name="int8")

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
