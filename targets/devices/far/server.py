"""Requests of one caller about one folder of lasting files and one of a run's own.

A request is one line of JSON, then as many raw bytes as it announces; an answer likewise. When
the caller is gone, stdin ends: the runner is ended and the run's files are removed.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from . import files, machine, process
from .files import FarError, Payload

Values = Any


class FarSide:
    """Does the requests; one method each."""

    def __init__(self) -> None:
        self._folder = Path()
        self._scratch: Path | None = None
        self._runner_pid = 0

    def hello(self, request: Values, _: Payload) -> Values:
        """Open the folders; say what the interpreter is."""
        folder = Path(request["folder"]).expanduser()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder = folder.resolve()
            files.remove_strays(self._folder)
            files.prune(self._folder)
            self._scratch = files.make_folder(self._folder, files.RUN)
        except OSError as error:
            raise FarError("storage", f"{folder} cannot be used: {error}") from error
        return {
            "python": platform.python_version(),
            "has_numpy": find_spec("numpy") is not None,
            "scratch": str(self._scratch),
        }

    def probe(self, _request: Values, _: Payload) -> Values:
        """Say what this machine is."""
        return machine.describe_machine(self._folder)

    def have(self, request: Values, _: Payload) -> Values:
        """Look for lasting files; a folder with a damaged one is removed."""
        folder = self._folder / request["key"]
        if not folder.is_dir():
            return {"path": ""}
        if files.damaged_files(folder, request["files"]):
            shutil.rmtree(folder, ignore_errors=True)
            return {"path": ""}
        os.utime(folder)
        return {"path": str(folder)}

    def install(self, request: Values, payload: Payload) -> Values:
        """Take lasting files: written aside, checked, then renamed in one piece."""
        folder = self._folder / request["key"]
        try:
            aside = files.make_folder(self._folder, files.INCOMING)
            try:
                for one in request["files"]:
                    files.receive(payload, aside / one["name"], one)
                files.swap_in(aside, folder)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        except OSError as error:
            raise files.storage_error(self._folder, error) from error
        return {"path": str(folder)}

    def put(self, request: Values, payload: Payload) -> Values:
        """Take one file of this run."""
        path = self._run_file(request["name"])
        try:
            files.receive(payload, path, request)
        except OSError as error:
            raise files.storage_error(self._folder, error) from error
        return {"path": str(path)}

    def fetch(self, request: Values, _: Payload) -> Values:
        """Give one file of this run and remove it."""
        path = self._run_file(request["name"])
        try:
            data = path.read_bytes()
            path.unlink()
        except OSError as error:
            raise FarError("storage", f"{path} cannot be read: {error}") from error
        return {"bytes": data}

    def adopt(self, request: Values, _: Payload) -> Values:
        """Take note of the runner."""
        self._runner_pid = request["pid"]
        return {}

    def end(self, _request: Values, _: Payload) -> Values:
        """End the runner now."""
        if self._runner_pid and self._scratch is not None:
            process.kill_runner(self._runner_pid, self._scratch)
        return {}

    def close(self) -> None:
        """Leave nothing of this run behind."""
        if self._scratch is None:
            return
        if self._runner_pid:
            process.wait_for_end(self._runner_pid, self._scratch)
            process.kill_runner(self._runner_pid, self._scratch)
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _run_file(self, name: str) -> Path:
        if self._scratch is None:
            raise FarError("storage", "no folder for this run's files")
        return self._scratch / Path(name).name


def _answer(far_side: FarSide, line: bytes, requests: BinaryIO) -> tuple[Values, bytes]:
    """Do one request; returns the answer and the raw bytes behind it."""
    request = json.loads(line)
    payload = Payload(requests, request.get("payload_bytes", 0))
    try:
        result = getattr(far_side, request["verb"])(request, payload)
    except FarError as error:
        payload.drain()
        return {"error": {"kind": error.kind, "message": str(error)}}, b""
    data = result.pop("bytes", b"")
    return {"result": result, "payload_bytes": len(data)}, data


def main() -> None:
    """Serve until the caller is gone."""
    for ignored in (signal.SIGINT, signal.SIGHUP):  # the caller's end is seen on stdin
        signal.signal(ignored, signal.SIG_IGN)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    far_side = FarSide()
    try:
        for line in requests:
            head, data = _answer(far_side, line, requests)
            answers.write(json.dumps(head).encode() + b"\n" + data)
            answers.flush()
    except (BrokenPipeError, EOFError):
        pass
    finally:
        far_side.close()
