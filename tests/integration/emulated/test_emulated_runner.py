"""A runner on an emulated CPU: the numbers, the isolation, and that it never stays behind."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from contract.tiny_graph import make_tokens

from targets.contract import Batching, Workload
from targets.devices.emulated import EmulatedDevice, emulated_cpu
from targets.devices.local import LocalDevice
from targets.devices.userland import locate_userland
from targets.errors import DeviceError, RunnerFailedError

pytestmark = pytest.mark.qemu
ROOT = Path(__file__).parents[3]

IDENTIFY = """
import json, os, platform, sys
from numpy._core._multiarray_umath import __cpu_features__ as features
import numpy
if {with_runtime}:
    import onnxruntime
print(json.dumps({{
    "machine": platform.machine(), "prefix": sys.prefix, "path": sys.path,
    "features": [name for name, has in features.items() if has],
    "environment": dict(os.environ),
    "cpuinfo": open("/proc/cpuinfo").read(),
    "mapped": sorted({{line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}}),
}}))
"""


def identify(cpu: str, root: Path, *, with_runtime: bool = False) -> dict:
    """Ask the userland's Python on a CPU where it is, and what it has."""
    row, model = emulated_cpu(cpu)
    userland = locate_userland(row.architecture, root=root)
    command = [*userland.python(model), "-c", IDENTIFY.format(with_runtime=with_runtime)]
    environment = userland.environment()
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return json.loads(done.stdout)


def has_ended(process_fd: int, seconds: float = 20.0) -> bool:
    """Wait for a process that need not be our child."""
    poller = select.poll()
    poller.register(process_fd, select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def test_two_processes_share_many_texts_and_give_the_same_rows(emulate, tiny_plan):
    many = make_tokens(80)
    device = emulate("neoverse-n1")
    with device.start(tiny_plan, 1) as runner:
        alone = runner.embed(many)
    before = children()
    with device.start(tiny_plan, 2) as runner:
        runner.embed(many.select(range(40)))
        assert len(children() - before) == 1  # too few to call another in
        rows = runner.embed(many)
        assert len(children() - before) == 2
        np.testing.assert_allclose(rows, alone, atol=1e-6)
        one_by_one = runner.embed(many, Batching(max_batch=1))
        np.testing.assert_allclose(one_by_one, alone, atol=1e-6)
    assert not children() - before


def children() -> set[int]:
    return {one.pid for one in psutil.Process().children()}


def test_embeddings_are_those_of_the_same_graph_here(emulate, tiny, tiny_plan, texts):
    with LocalDevice().start(tiny_plan, 1) as runner:
        here = runner.embed(texts)
    device = emulate("neoverse-n1")
    with device.start(tiny_plan, 1) as runner:
        rows = runner.embed(texts)
        np.testing.assert_allclose(rows, here, atol=1e-5)
        np.testing.assert_allclose(rows, tiny.embed(texts), atol=1e-5)
        np.testing.assert_array_equal(runner.embed(texts), rows)  # emulation repeats bitwise
        info = runner.info()
        executed = runner.inspect(texts)
        with pytest.raises(DeviceError, match="no latency"):
            runner.time(Workload(name="1x16", kind="shape", sequence_length=16), 1)
        assert runner.embed(texts).shape == rows.shape  # the refusal left it alone
    assert {row.dtype for row in executed if row.op_type == "MatMul"} == {"float32"}
    assert {row.time_share for row in executed} == {None}
    assert info.tool_versions["onnxruntime"] == device.distributions(["onnxruntime"])["onnxruntime"]
    assert info.tool_versions["python"].startswith("3.11.")
    assert info.warnings[0].startswith("emulated by QEMU 10.")
    assert "no latency" in info.warnings[0]
    assert "cpus" not in info.options  # nothing is pinned: devices run side by side


def test_scrambled_rows_would_be_noticed(emulate, tiny, tiny_plan, texts):
    """The twin of the test above: its tolerance tells texts apart."""
    rows = tiny.embed(texts)
    assert np.abs(rows - rows[::-1]).max() > 1e-2


@pytest.mark.parametrize(
    ("cpu", "has", "lacks"),
    [
        ("cortex-a72", {"ASIMD"}, {"ASIMDDP", "ASIMDHP", "SVE"}),
        ("neoverse-v1", {"ASIMDDP", "ASIMDHP", "SVE"}, set()),
        ("max", {"ASIMDDP", "SVE"}, set()),
        ("haswell", {"AVX2", "FMA3"}, {"AVX512F", "X86_V4"}),
    ],
)
def test_the_cpu_is_the_one_asked_for(emulation, cpu, has, lacks):
    row, _ = emulated_cpu(cpu)
    found = identify(cpu, emulation(row.architecture))
    assert found["machine"] == row.architecture
    assert has <= set(found["features"])
    assert not lacks & set(found["features"])
    if row.architecture == "aarch64":  # on x86, QEMU shows the host's
        assert row.features <= set(found["cpuinfo"].split())


def test_nothing_of_the_host_gets_in(emulation, monkeypatch):
    """An x86 userland could take libraries, packages and settings of an x86 host unnoticed."""
    monkeypatch.setenv("QEMU_CPU", "max")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/usr/lib/x86_64-linux-gnu")
    monkeypatch.setenv("PYTHONHOME", sys.prefix)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    root = emulation("x86_64")
    found = identify("haswell", root, with_runtime=True)
    folder = str(locate_userland("x86_64", root=root).folder)
    assert all(path.startswith(folder) for path in (found["prefix"], *found["path"][1:]))
    assert any("onnxruntime" in name for name in found["mapped"])
    assert any(name.endswith("libstdc++.so.6.0.30") for name in found["mapped"])
    assert [name for name in found["mapped"] if not name.startswith(folder)] == []
    assert found["environment"]["ORT_DISABLE_TELEMETRY"] == "1"
    assert not {"QEMU_CPU", "LD_LIBRARY_PATH", "OMP_NUM_THREADS"} & set(found["environment"])


def test_a_runtime_that_is_not_in_the_userland_is_named(emulate, tiny_plan, tmp_path):
    adapter = tmp_path / "adapter.py"
    adapter.write_text("import openvino\n")
    device = emulate("neoverse-n1")
    assert device.distributions(["openvino"]) == {}
    with pytest.raises(RunnerFailedError, match="cannot import openvino"):
        device.start(replace(tiny_plan, adapter=adapter), 1)


def link_or_copy(source: str, destination: str) -> None:
    try:
        os.link(source, destination)
    except OSError:  # another file system
        shutil.copy2(source, destination)


def test_a_flipped_bit_in_the_userland_is_refused(emulate, emulation, tiny_plan, tmp_path):
    emulate("neoverse-n1")
    root = tmp_path / "devices"
    shutil.copytree(emulation("aarch64"), root, symlinks=True, copy_function=link_or_copy)
    device = EmulatedDevice("neoverse-n1", root=root)
    site_packages = locate_userland("aarch64", root=root).site_packages
    (library,) = site_packages.glob("onnxruntime/capi/*pybind11_state*.so")
    content = bytearray(library.read_bytes())
    content[len(content) // 2] ^= 1
    library.unlink()  # the link; the real one stays as it is
    library.write_bytes(content)
    with pytest.raises(DeviceError, match="are damaged") as caught:
        device.start(tiny_plan, 1)
    assert library.name in caught.value.why


PARENT = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from targets.contract import RunPlan, TokenSequences
from targets.devices.emulated import EmulatedDevice
plan = RunPlan(
    adapter=Path(sys.argv[2]), model=Path(sys.argv[3]), output="sentence_embedding",
    inputs=("input_ids", "attention_mask", "token_type_ids"), pad_token_id=0,
    embedding_dim=32, max_seq_length=64,
)
runner = EmulatedDevice("neoverse-n1", root=Path(sys.argv[4])).start(plan, 1)
print(runner.pid, flush=True)
texts = TokenSequences.from_lists([[5] * 64] * 200_000, 0)
runner.embed(texts, progress=lambda done, total=None: print(done, flush=True))
"""


@pytest.mark.parametrize("send", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_the_emulator_never_outlives_its_caller(emulation, tmp_path, send):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    model = tmp_path / "table.npy"
    np.save(model, np.zeros((1024, 32), np.float32))
    adapter = ROOT / "tests/unit/devices/numpy_adapter.py"
    arguments = [str(ROOT), str(adapter), str(model), str(emulation("aarch64"))]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(scratch)},
        text=True,
    )
    with parent:
        pid = int(parent.stdout.readline())
        assert "qemu-aarch64" in Path(f"/proc/{pid}/cmdline").read_text()
        process_fd = os.pidfd_open(pid)
        assert int(parent.stdout.readline()) > 0  # in the middle of a long request
        assert not has_ended(process_fd, 0)
        parent.send_signal(send)
        assert has_ended(process_fd)
        assert parent.wait(60) == (-signal.SIGKILL if send == signal.SIGKILL else -signal.SIGINT)
        os.close(process_fd)
    assert list(scratch.iterdir()) == []
