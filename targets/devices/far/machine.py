"""What the machine there is, as raw facts: the caller makes sense of them."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

_SYSCTL = ("/usr/sbin/sysctl", "machdep.cpu", "hw.optional")


def describe_machine(folder: Path) -> dict[str, Any]:
    """Collect the facts.

    Args:
        folder: whose file system's free space counts.
    """
    return {
        "architecture": platform.machine(),
        "system": platform.system(),
        "cpuinfo": _read("/proc/cpuinfo"),
        "sysctl": _sysctl() if platform.system() == "Darwin" else "",
        "board": _read("/sys/firmware/devicetree/base/model").strip("\0 \n"),
        "num_cores": _num_cores(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "free_bytes": shutil.disk_usage(folder).free,
        "distributions": _versions(),
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _sysctl() -> str:
    answer = subprocess.run(_SYSCTL, stdout=subprocess.PIPE, check=False)  # noqa: S603 - fixed
    return answer.stdout.decode(errors="replace")


def _num_cores() -> int:
    """Count the CPUs that a process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _versions() -> dict[str, str]:
    """Return what a program here can import; of several versions the first on the path."""
    found: dict[str, str] = {}
    for one in distributions():
        if name := one.metadata["Name"]:
            found.setdefault(name, one.version)
    return found
