"""Compilation in processes of their own: side by side, and a crash ends one recipe only.

Quantization keeps one core busy for seconds, so several recipes are compiled at once; and
what a compiler allocates is gone with its process.
"""

from __future__ import annotations

import queue
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from exporter.steps.compiled import check_compiled
from exporter.steps.workers import Worker, WorkerDiedError, block_interrupts, end_children
from targets.contract import CompiledArtifact, CompileRequest, FinishRequest, Preparable, Target
from targets.errors import CompileError, ExporterError

T = TypeVar("T")
Compile = Callable[[CompileRequest], CompiledArtifact]


@contextmanager
def compilers(target_name: str, num_processes: int) -> Iterator[Compile]:
    """Yield a function that compiles in a child process; callable from several threads.

    Args:
        target_name: the target that compiles, by its registered name.
        num_processes: how many compile at once.
    """
    with _workers(max(1, num_processes)) as free:

        def compile_in_child(request: CompileRequest) -> CompiledArtifact:
            worker = free.get()
            try:
                return worker.call(_compile, target_name, request)
            except WorkerDiedError as error:
                raise CompileError(
                    f"the process that compiled {request.recipe.name} died",
                    why=str(error),
                    hint="free memory, or leave the recipe out with --precision",
                ) from error
            finally:
                free.put(worker)

        yield compile_in_child


def finish_apart(target_name: str, request: FinishRequest) -> CompiledArtifact:
    """Let a target finish an artifact in a child process: a builder that crashes ends there.

    Args:
        target_name: the target, by its registered name.
        request: what is finished; its `progress` must be one that a process can be handed.

    Raises:
        CompileError: the process died; carries its last lines of stderr.
        ExporterError: see `Preparable.finish`.
    """
    with _workers(1) as free:
        try:
            return free.get().call(_finish, target_name, request)
        except WorkerDiedError as error:
            raise CompileError(
                f"the process that built {request.artifact.recipe.name} died",
                why=str(error),
                hint="free memory and build again; what was there stays as it was",
            ) from error


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


@contextmanager
def _workers(number: int) -> Iterator[queue.SimpleQueue[Worker]]:
    """Yield the processes that have nothing to do; none outlives the body."""
    with tempfile.TemporaryDirectory(prefix="exporter-compile-") as folder:
        workers = [Worker(Path(folder)) for _ in range(number)]
        free = queue.SimpleQueue[Worker]()
        for worker in workers:
            free.put(worker)
        try:
            yield free
        except ExporterError:  # others may be at work in processes of their own
            _end(workers)
            raise
        except BaseException:
            _end(workers, wait=False)
            end_children()
            raise
        _end(workers)


def _end(workers: Sequence[Worker], *, wait: bool = True) -> None:
    for worker in workers:
        worker.end(wait=wait)


# --------------------------------------------------------------------- within the process


def _compile(target_name: str, request: CompileRequest) -> CompiledArtifact:
    from targets.registry import load_target

    target = load_target(target_name)
    with _told_whose_fault(target, f"compiled {request.recipe.name}"):
        artifact = target.compile(request)
    check_compiled(artifact, request, target.spec)
    return artifact


def _finish(target_name: str, request: FinishRequest) -> CompiledArtifact:
    from targets.registry import load_target

    target = load_target(target_name)
    maker: object = target
    assert isinstance(maker, Preparable)  # the caller's check
    with _told_whose_fault(target, f"finished {request.artifact.recipe.name}"):
        return maker.finish(request)


@contextmanager
def _told_whose_fault(target: Target, did: str) -> Iterator[None]:
    """Tell a break of somebody else's code from a bug of ours, which keeps its traceback."""
    from targets.registry import BUILT_IN

    name = target.spec.name
    try:
        yield
    except ExporterError:
        raise
    except Exception as error:
        if name in BUILT_IN:
            raise
        raise CompileError(
            f"target {name} broke while it {did}",
            why=f"{type(error).__name__}: {error}",
            hint=f"report it to {target.spec.vendor}",
        ) from error
