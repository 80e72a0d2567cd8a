"""The whole `export` command with a device behind a real SSH server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ssh_server import HOST, free_port, user_name
from tiny_models import BERT, build

from exporter.deliver.manifest import verify_bundle

pytestmark = pytest.mark.slow

WORDS = ("red", "green", "blue", "cat", "dog", "house", "tree", "river", "stone", "bird", "lamp")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A random two-layer BERT with calibration and evaluation texts, as flags."""
    folder = tmp_path_factory.mktemp("inputs")
    lines = [
        f"{WORDS[i % 11]} {WORDS[(i * 5 + 2) % 11]} number {i} at the {WORDS[(i * 7 + 4) % 11]}"
        for i in range(520)
    ]
    calibration, evaluation = folder / "calibration.txt", folder / "evaluation.txt"
    calibration.write_text("\n".join(lines[:120]))
    evaluation.write_text("\n".join(lines[120:]))
    model = build(BERT, tmp_path_factory.mktemp("tiny"))
    flags = ["--model", str(model), "--calibration", str(calibration), "--eval", str(evaluation)]
    return [*flags, "--target", "onnxruntime", "--precision", "float32"]


@pytest.fixture
def home(server, tmp_path: Path) -> Path:
    """A home folder whose ssh configuration knows a board, and one that is switched off."""
    ssh = tmp_path / "home" / ".ssh"
    ssh.mkdir(parents=True)
    common = f"  HostName {HOST}\n  User {user_name()}\n  IdentityFile {server.user_key}\n"
    (ssh / "config").write_text(
        f"Host board\n{common}  Port {server.port}\nHost gone\n{common}  Port {free_port()}\n"
    )
    server.known_hosts(ssh / "known_hosts")
    return ssh.parent


def export(inputs: list[str], home: Path, *flags: str) -> tuple[int, str, dict[str, Any]]:
    folder = home / "out"
    done = subprocess.run(
        [sys.executable, "-m", "exporter", "export", *inputs, "-o", str(folder), *flags],
        env=os.environ | {"HOME": str(home)},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    report = folder / "reports" / "report.json"
    found = json.loads(report.read_text("utf-8")) if report.exists() else {}
    return done.returncode, done.stdout + done.stderr, found


def test_a_board_is_verified_and_timed_like_this_machine(inputs, home, far):
    board = f"ssh://board{far}?python={sys.executable}"
    code, said, report = export(inputs, home, "--device", "local", "--device", board)
    assert code == 0, said
    rows = {row["device"]: row for row in report["targets"]}
    assert set(rows) == {"local", board}
    for row in rows.values():
        assert row["status"] == "verified"
        assert {one["workload"] for one in row["latency"]} >= {"mix-single", "mix-batched"}
        assert row["fidelity"]["mean_cosine"]["value"] > 0.9999
    assert (far / "files").is_dir() or any(far.iterdir())  # pushed there, and kept for next time
    verify_bundle(home / "out")


def test_a_board_that_is_gone_is_its_own_row_and_the_other_s_results_stay(inputs, home):
    code, said, report = export(inputs, home, "--device", "local", "--device", "ssh://gone")
    assert report, said
    rows = {row["device"]: row for row in report["targets"]}
    assert rows["local"]["status"] == "verified", said
    assert rows["ssh://gone"]["status"] in ("not_run", "failed")
    assert "refuses the connection" in rows["ssh://gone"]["reason"]
    assert code in (3, 4)
    assert report["exit_code"] == code
