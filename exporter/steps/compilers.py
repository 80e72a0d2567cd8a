"""Compilation in processes of their own: side by side, and a crash ends one recipe only.

Quantization keeps one core busy for seconds, so several recipes are compiled at once; and
what a compiler allocates is gone with its process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from exporter.steps.compiled import check_compiled
from targets.contract import CompiledArtifact, CompileRequest
from targets.errors import CompileError, ExporterError

_GRACE_S = 10.0

T = TypeVar("T")
Compile = Callable[[CompileRequest], CompiledArtifact]


@contextmanager
def compilers(target_name: str, num_processes: int) -> Iterator[Compile]:
    """Yield a function that compiles in a child process; callable from several threads.

    Args:
        target_name: the target that compiles, by its registered name.
        num_processes: how many compile at once.
    """
    pool = ProcessPoolExecutor(
        max_workers=max(1, num_processes),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_live_and_die_with_the_parent,
    )

    def compile_in_child(request: CompileRequest) -> CompiledArtifact:
        return _result(pool.submit(_compile, target_name, request), request)

    try:
        yield compile_in_child
        pool.shutdown()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        end_children()
        raise


def side_by_side(work: Sequence[Callable[[], T]], num_threads: int) -> list[T]:
    """Run several pieces of work in threads; results in order, the first error is raised."""
    with ThreadPoolExecutor(max(1, num_threads), initializer=block_interrupts) as threads:
        futures = [threads.submit(piece) for piece in work]
        try:
            return [future.result() for future in futures]
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            end_children()
            raise


def block_interrupts() -> None:
    """Keep Ctrl-C from processes that this thread starts, from their first moment on."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def end_children() -> None:
    """Kill every process that compiles, and wait until it is gone."""
    for child in multiprocessing.active_children():
        child.kill()
        child.join(_GRACE_S)


def _result(future: Future[CompiledArtifact], request: CompileRequest) -> CompiledArtifact:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise CompileError(
            f"the process that compiled {request.recipe.name} died",
            why="it crashed, or the system ended it, often for want of memory",
            hint="free memory, or leave the recipe out with --precision",
        ) from error


def _compile(target_name: str, request: CompileRequest) -> CompiledArtifact:
    from targets.registry import BUILT_IN, load_target

    target = load_target(target_name)
    try:
        artifact = target.compile(request)
    except ExporterError:
        raise
    except Exception as error:
        if target_name in BUILT_IN:
            raise  # our own bug, with its traceback
        raise CompileError(
            f"target {target_name} broke while it compiled {request.recipe.name}",
            why=f"{type(error).__name__}: {error}",
            hint=f"report it to {target.spec.vendor}",
        ) from error
    check_compiled(artifact, request, target.spec)
    return artifact


def _live_and_die_with_the_parent() -> None:
    """Leave interrupts to the parent, and end when it is killed.

    A worker waits on a queue whose other end it holds itself, so a parent that was killed
    does not show there.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_after_the_parent, daemon=True).start()


def _end_after_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
