"""What ONNX Runtime says of a graph on phones, and the process that it says it in."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ort_reading import with_operator

from targets.errors import CompileError, StorageError
from targets.onnxruntime.tools import _PROGRAM, run_tool
from targets.onnxruntime.usability import write_usability


def test_an_operator_that_accelerators_lack_is_named(encoder, tmp_path):
    report = tmp_path / "usability.txt"
    write_usability(encoder.artifact.path, report)
    assert "NNAPI" in report.read_text()
    assert "CoreML" in report.read_text()
    assert "ai.onnx:Sign" not in report.read_text()
    write_usability(with_operator(encoder.artifact.path, "Sign", tmp_path), report)
    assert "ai.onnx:Sign" in report.read_text()


def test_the_report_does_not_depend_on_the_folder(encoder, tmp_path):
    moved = Path(shutil.copy(encoder.artifact.path, tmp_path))
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    write_usability(encoder.artifact.path, first)
    write_usability(moved, second)
    assert first.read_text() == second.read_text()
    assert str(tmp_path) not in second.read_text()


def test_a_broken_file_is_refused(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no graph")
    with pytest.raises(CompileError, match=r"checking broken\.onnx for phones"):
        write_usability(broken, tmp_path / "report.txt")


def test_a_report_that_cannot_be_written_is_a_storage_error(encoder, tmp_path):
    with pytest.raises(StorageError):
        write_usability(encoder.artifact.path, tmp_path / "missing" / "report.txt")


def test_a_tool_that_dies_without_a_word_is_an_error():
    with pytest.raises(CompileError, match="trying failed") as raised:
        run_tool("no_such_tool", [], "trying")
    assert "no_such_tool" in raised.value.why


def test_a_tool_ends_with_the_process_that_started_it():
    program = (sys.executable, "-P", "-c", _PROGRAM, "http.server", "--bind", "127.0.0.1", "0")
    server = subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            server.wait(timeout=0.5)
        server.stdin.close()
        assert server.wait(timeout=10) == 1
    finally:
        server.kill()
        server.wait()
