from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys

import numpy as np
import pytest

from targets.runner.machine import memory_bytes, restart_peak, tool_versions

LIMIT = """
import json, os, sys
from targets.runner.machine import limit_threads
assert "numpy" not in sys.modules
facts, warnings = limit_threads({n}, pin={pin})
print(json.dumps([facts, warnings, os.environ["OMP_NUM_THREADS"], sorted(os.sched_getaffinity(0))]))
"""


def test_threads_are_limited_before_numpy_is_there():
    code = LIMIT.format(n=1, pin=True)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    facts, warnings, omp, cpus = json.loads(out.stdout)
    assert facts == {"num_threads": "1", "cpus": str(cpus[0])}
    assert (warnings, omp, len(cpus)) == ([], "1", 1)


def test_threads_can_be_limited_without_choosing_the_cpus():
    code = LIMIT.format(n=1, pin=False)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    facts, warnings, omp, cpus = json.loads(out.stdout)
    assert (facts, warnings, omp) == ({"num_threads": "1"}, [], "1")
    assert cpus == sorted(os.sched_getaffinity(0))


def test_memory_grows_with_what_is_held():
    before, _ = memory_bytes()
    ballast = np.ones(8_000_000)
    after, peak = memory_bytes()
    assert after - before > 0.9 * ballast.nbytes
    assert peak >= after


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can restart the peak")
def test_the_peak_can_begin_again():
    # mapped directly: malloc of a process that has run other tests may keep what is freed
    ballast = mmap.mmap(-1, 64_000_000)
    ballast.write(b"x" * len(ballast))
    assert restart_peak()
    high = memory_bytes()[1]
    ballast.close()
    assert restart_peak()
    assert memory_bytes()[1] < high - 50e6


def test_versions_name_python_and_numpy():
    versions = tool_versions()
    assert versions["numpy"] == np.__version__
    assert versions["python"].startswith("3.")
