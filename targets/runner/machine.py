"""The process itself: threads, CPUs, memory, versions. Standard library only."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def limit_threads(num_threads: int, *, pin: bool = True) -> tuple[dict[str, str], tuple[str, ...]]:
    """Pin this process to its first `num_threads` allowed CPUs and tell every thread pool.

    Must run before numpy or a runtime is imported: pools are sized at import.

    Args:
        num_threads: threads of every pool.
        pin: False: the system chooses the CPUs; for runners side by side that nobody times.

    Returns:
        What was set, by name, and warnings.
    """
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, str(num_threads)))
    facts = {"num_threads": str(num_threads)}
    cpus, warnings = _pin(num_threads) if pin else ((), ())
    if cpus:
        facts["cpus"] = ",".join(map(str, cpus))
    return facts, warnings


def _pin(num_threads: int) -> tuple[tuple[int, ...], tuple[str, ...]]:
    if sys.platform != "linux":
        return (), (f"{sys.platform} cannot pin a process to CPUs: threads may move",)
    try:
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[:num_threads])
    except OSError as error:
        return (), (f"the process could not be pinned to CPUs: {error}",)
    if len(allowed) < num_threads:
        few = f"{num_threads} threads were asked for, {len(allowed)} CPUs are allowed"
        return tuple(allowed), (few,)
    return tuple(allowed[:num_threads]), ()


def memory_bytes() -> tuple[int, int]:
    """Return the resident and the peak resident memory of this process.

    Linux's `ru_maxrss` starts with the size of the process that forked this one
    (kernel/fs/exec.c, `setmax_mm_hiwater_rss`), so /proc is read where there is one.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return _peak_by_rusage(), _peak_by_rusage()
    fields = dict(line.split(":", 1) for line in status.splitlines() if line.startswith("Vm"))
    if not fields.keys() >= {"VmRSS", "VmHWM"}:  # an emulator may leave them out
        return _peak_by_rusage(), _peak_by_rusage()
    return _kib(fields["VmRSS"]), _kib(fields["VmHWM"])


def _kib(field: str) -> int:
    return int(field.split()[0]) * 1024


def _peak_by_rusage() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere


def restart_peak() -> bool:
    """Let the kernel's peak begin again at the present size; False where it cannot.

    Writing 5 to clear_refs resets VmHWM (Linux 4.0, Documentation/filesystems/proc.rst).
    """
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def tool_versions() -> dict[str, str]:
    """Return the versions of Python, numpy and the system."""
    import numpy as np

    return {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.release()}",
    }
