"""Awkward paths of `export`, on a tiny model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from export_command import environment

from exporter.deliver.manifest import verify_bundle

pytestmark = [pytest.mark.openvino, pytest.mark.slow]


def test_json_is_all_that_stdout_carries(export_tiny):
    ran = export_tiny("--precision", "float32", "--json")
    document = json.loads(ran.out)
    assert document == ran.report
    assert document["exit_code"] == ran.code
    assert ran.err == ""


def test_quiet_shows_no_progress_but_the_result(export_tiny):
    ran = export_tiny("--precision", "float32", "--quiet")
    assert ran.err == ""
    assert "float32" in ran.out


def test_the_forced_baseline_need_not_be_faster_than_itself(export_tiny):
    ran = export_tiny("--precision", "float32")
    assert ran.code == 0, ran.out + ran.err
    assert ran.report["verdict"] == "pass"
    assert ran.report["evaluation"]["development"] is None


def test_a_gate_that_cannot_hold_fails_by_name(export_tiny):
    ran = export_tiny("--precision", "int8", "--min-overlap", "1.0", "--max-drift", "1e-9")
    assert ran.code == 1, ran.out + ran.err
    failed = {c["name"] for c in ran.report["targets"][0]["checks"] if c["verdict"] == "fail"}
    assert "mean_cosine" in failed


def test_killed_at_any_point_the_next_run_goes_on(tiny_model, tiny_texts, export_tiny, tmp_path):
    """Kill it right after each stage lies in the cache; the next run starts behind it."""
    cache, folder = tmp_path / "cache", tmp_path / "bundle"
    calibration, evaluation = tiny_texts
    command = [sys.executable, "-m", "exporter", "export", "-o", str(folder), "-t", "openvino"]
    command += ["--model", str(tiny_model), "--calibration", str(calibration)]
    command += ["--eval", str(evaluation), "--precision", "float32"]
    for done_before in ("PyTorch", "compile"):
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, env=environment(cache), cwd=tmp_path, text=True
        ) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if done_before in line:
                    process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert not folder.exists()
    ran = export_tiny("--precision", "float32", folder=folder, cache=cache)
    assert ran.code == 0, ran.err
    from_cache = ran.report["provenance"]["stages_from_cache"]
    assert any("ONNX" in stage for stage in from_cache)
    assert any("compile" in stage for stage in from_cache)
    assert verify_bundle(folder) == ()


def test_two_runs_at_once_on_one_output(tiny_model, tiny_texts, tmp_path, shared_cache):
    calibration, evaluation = tiny_texts
    folder = tmp_path / "bundle"
    command = [sys.executable, "-m", "exporter", "export", "-o", str(folder), "-t", "openvino"]
    command += ["--model", str(tiny_model), "--calibration", str(calibration), "--quiet"]
    command += ["--eval", str(evaluation), "--precision", "float32"]
    running = [
        subprocess.Popen(command, env=environment(shared_cache), cwd=tmp_path) for _ in range(2)
    ]
    assert [process.wait(timeout=300) for process in running] == [0, 0]
    assert verify_bundle(folder) == ()


def test_a_failed_run_leaves_the_earlier_bundle(export_tiny, tmp_path):
    export_tiny("--precision", "float32")
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    ran = export_tiny("--precision", "int4")
    assert ran.code == 2
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    assert verify_bundle(tmp_path / "out") == ()


def test_texts_of_one_s_own_are_timed_and_named(export_tiny, tmp_path):
    own = tmp_path / "service.txt"
    own.write_text("\n".join(f"where is parcel {i}" for i in range(40)))
    ran = export_tiny("--precision", "float32", "--workload", str(own))
    assert ran.code == 0, ran.err
    assert ran.report["workload"]["num_texts"] == 40
    assert "service" in (ran.folder / "reports" / "report.md").read_text("utf-8")
    timed = {row["workload"] for row in ran.report["targets"][0]["latency"]}
    assert {"mix-single", "mix-batched"} <= timed


def test_a_workload_of_queries_times_nothing_in_batches(export_tiny):
    ran = export_tiny("--precision", "float32", "--workload", "queries")
    timed = {row["workload"] for row in ran.report["targets"][0]["latency"]}
    assert "mix-single" in timed
    assert "mix-batched" not in timed
    assert ran.report["workload"] is None


def test_an_empty_workload_is_usage(export_tiny, tmp_path):
    (tmp_path / "empty.txt").write_text("")
    ran = export_tiny("--workload", str(tmp_path / "empty.txt"))
    assert ran.code == 2
    assert "empty.txt has no texts" in ran.err


def test_a_spent_budget_leaves_candidates_and_variants_untried(export_tiny):
    ran = export_tiny("--search-budget", "0.001", "--no-cache")
    assert ran.code in (0, 1, 3), ran.err
    target = ran.report["targets"][0]
    untried = "not tried: the search budget of 0.001 s was spent"
    tried = [c["recipe"]["name"] for c in target["candidates"] if c["compile_s"] is not None]
    assert tried[0] == "float32"
    assert len(tried) == 2
    left = [c["reason"] for c in target["candidates"] if c["compile_s"] is None]
    # a CPU without integer products backs no third recipe
    assert [
        one for one in left if not one.startswith((untried, "nothing here accelerates it"))
    ] == []
    assert untried in left or len(target["candidates"]) - len(left) == 2
    assert {v["reason"] for v in target["variants"][1:]} == {untried}


BAD_INPUT = {
    "no such model": (["--model", "nowhere/at-all"], "nowhere"),
    "unknown target": (["--target", "tensorrtt"], "openvino"),
    "unknown recipe": (["--precision", "int4"], "float32"),
    "unknown device": (["--device", "toaster"], "local"),
    "no such calibration file": (["--calibration", "gone.txt"], "gone.txt"),
    "no such evaluation": (["--eval", "gone"], "gone"),
    "no such configuration": (["--config", "gone.toml"], "gone.toml"),
    "no such workload": (["--workload", "gone.jsonl"], "gone.jsonl"),
    "misspelled workload": (["--workload", "query"], "queries"),
    "unknown objective": (["--objective", "sped"], "throughput"),
    "no time at all": (["--search-budget", "0"], "search_budget"),
    "malformed layer": (["--layer-precision", "ffn"], "PATTERN=PRECISION"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_ends_in_one_clear_message(case, export_tiny):
    flags, named = BAD_INPUT[case]
    ran = export_tiny(*flags)
    assert ran.code in (2, 4)
    assert "error [" in ran.err
    assert named in ran.err
    assert "Traceback" not in ran.err
    assert not ran.folder.exists()


def test_evaluation_texts_inside_the_calibration_set_are_refused(export_tiny, tiny_texts):
    ran = export_tiny("--calibration", str(tiny_texts[1]))
    assert ran.code == 2
    assert "evaluation.txt, line 1" in ran.err


@pytest.mark.parametrize(
    ("data", "named"),
    [(b"", "bad.txt"), (b"fine\n\xff\xfe broken\n", "bad.txt, line 2"), (b"one\ntwo\n", "2 ")],
)
def test_bad_calibration_files_are_refused_by_line(data, named, export_tiny, tmp_path):
    (tmp_path / "bad.txt").write_bytes(data)
    ran = export_tiny("--calibration", str(tmp_path / "bad.txt"))
    assert ran.code == 2
    assert named in ran.err


def test_a_runtime_that_is_not_installed_names_the_extra(tmp_path):
    program = (
        "import sys; sys.modules['openvino'] = None; from exporter.cli.app import run;"
        f"sys.exit(run(['export', '-t', 'openvino', '-o', {str(tmp_path / 'o')!r}, '-q']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "embedding-exporter[openvino]" in done.stderr


def test_a_full_disk_is_said_and_leaves_nothing(tiny_model, tiny_texts, tmp_path, shared_cache):
    """A real write error: no file may grow beyond 200 kB, the weights need more."""
    resource = pytest.importorskip("resource")
    calibration, evaluation = tiny_texts
    command = [sys.executable, "-m", "exporter", "export", "-o", str(tmp_path / "o"), "-q"]
    command += ["--model", str(tiny_model), "--calibration", str(calibration), "-t", "openvino"]
    command += ["--eval", str(evaluation), "--precision", "float32"]
    done = subprocess.run(
        command,
        env=environment(tmp_path / "cache"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "o").exists()


def test_ctrl_c_is_130_and_leaves_no_process(tiny_model, tiny_texts, tmp_path):
    calibration, evaluation = tiny_texts
    command = [sys.executable, "-m", "exporter", "export", "-o", str(tmp_path / "o"), "-t"]
    command += ["openvino", "--model", str(tiny_model), "--calibration", str(calibration)]
    command += ["--eval", str(evaluation)]
    with subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        env=environment(tmp_path / "cache"),
        cwd=tmp_path,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        message = ""
        for line in process.stderr:
            if "compile" in line and "float32" in line:
                os.killpg(process.pid, signal.SIGINT)
            message += line
        assert process.wait(timeout=60) == 130, message
    assert "Traceback" not in message
    assert not running_in_group(process.pid)


def running_in_group(group: int) -> list[str]:
    """Command lines of living processes of a process group."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
            command = (stat.parent / "cmdline").read_text().replace("\0", " ")
            # a process that has let go of its memory is on its way out: no command line
            if int(fields[2]) == group and fields[0] != "Z" and command:
                found.append(command)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
