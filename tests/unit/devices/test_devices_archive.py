from __future__ import annotations

import subprocess
import sys
import zipfile

from targets.devices.archive import build_runner_archive


def test_the_archive_holds_the_package_and_nothing_else(tmp_path):
    names = set(zipfile.ZipFile(build_runner_archive(tmp_path / "runner.pyz")).namelist())
    assert "__main__.py" in names
    assert {"runner/__init__.py", "runner/main.py", "runner/server.py"} <= names
    assert all(name == "__main__.py" or name.startswith("runner/") for name in names)
    assert all(name.endswith(".py") for name in names)


def test_equal_sources_give_equal_bytes(tmp_path):
    first = build_runner_archive(tmp_path / "first.pyz").read_bytes()
    assert build_runner_archive(tmp_path / "second.pyz").read_bytes() == first


def test_the_archive_runs_far_from_this_project(tmp_path):
    archive = build_runner_archive(tmp_path / "runner.pyz")
    answer = subprocess.run(
        [sys.executable, "-I", str(archive), "--num-threads", "1"],
        input=b'{"command": "info"}\n{"command": "exit"}\n',
        capture_output=True,
        check=True,
        cwd=tmp_path,
    )
    assert b"nothing is loaded yet" in answer.stdout
    assert answer.stderr == b""


def test_the_archive_says_how_it_is_used(tmp_path):
    archive = build_runner_archive(tmp_path / "runner.pyz")
    answer = subprocess.run([sys.executable, str(archive)], capture_output=True, check=False)
    assert answer.returncode == 2
    assert b"--num-threads" in answer.stderr
