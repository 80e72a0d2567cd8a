"""Jobs, command by command: what stops one, what is a verdict, what is missing.

The commands themselves are a stand-in here, which writes down what it was asked and answers with
the code it was told; that they work is shown where they are run on a model.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from fleets import TWO, write_fleet
from unit.deliver.deliver_records import HARDWARE, RECORD

from exporter.ci import running
from exporter.ci.baselines import accept, baseline_file
from exporter.ci.fleet import load_fleet
from exporter.ci.jobs import Places, job_commands, stages_of
from exporter.ci.running import run_job, run_rollout
from exporter.cli.app import app, run
from exporter.deliver.archive import pack_bundle
from exporter.deliver.bundle import BundleWriter
from exporter.deliver.manifest import facts_of
from exporter.deliver.report import write_reports
from targets.errors import ConfigError, ExitCode, StepError, StorageError

STAND_IN = """#!{python}
import json, pathlib, sys
folder = pathlib.Path({folder!r})
arguments = sys.argv[3:]
with (folder / "asked.jsonl").open("a") as log:
    log.write(json.dumps(arguments) + chr(10))
codes = json.loads((folder / "codes.json").read_text())
makes = arguments[0] in ("export", "build") and codes.get("makes", 1)
if makes:
    flag = "--output" if arguments[0] == "export" else "-o"
    output = pathlib.Path(arguments[arguments.index(flag) + 1])
    output.mkdir(parents=True, exist_ok=True)
    (output / "manifest.json").write_text(str(len((folder / "asked.jsonl").read_text())))
if arguments[0] == "compatibility" and codes.get("matrix"):
    pathlib.Path(arguments[arguments.index("-o") + 1]).write_text("a matrix")
sys.exit(codes.get(arguments[0], 0))
"""


@dataclass(frozen=True)
class StandIn:
    folder: Path

    def answers(self, **codes: int) -> None:
        (self.folder / "codes.json").write_text(json.dumps(codes))

    @property
    def asked(self) -> list[list[str]]:
        log = self.folder / "asked.jsonl"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    @property
    def commands(self) -> list[str]:
        return [arguments[0] for arguments in self.asked]


@pytest.fixture
def program(tmp_path, monkeypatch) -> StandIn:
    folder = tmp_path / "stand-in"
    folder.mkdir()
    script = folder / "python"
    script.write_text(STAND_IN.format(python=sys.executable, folder=str(folder)))
    script.chmod(0o755)
    monkeypatch.setattr(running.sys, "executable", str(script))
    stand_in = StandIn(folder)
    stand_in.answers()
    return stand_in


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("made") / "out"
    with BundleWriter(output) as writer:
        writer.add_bytes(b"graph", "onnx/model.onnx")
        write_reports(RECORD, writer.directory / "reports")
        writer.commit(facts_of(RECORD))
    return output


@pytest.fixture
def fleet(tmp_path):
    return load_fleet(write_fleet(tmp_path))


@pytest.fixture
def places(tmp_path) -> Places:
    (tmp_path / "fleet" / "prepared").mkdir(parents=True)
    return Places(root=tmp_path / "fleet")


class Log(list):
    def __call__(self, line: str) -> None:
        self.append(line)

    def __contains__(self, text: object) -> bool:
        return any(str(text) in line for line in self)


# ------------------------------------------------------------------------------ one job


def test_a_job_exports_and_packs(program, fleet, places, tmp_path):
    log = Log()
    assert run_job(fleet, "server", "build", places, log) == ExitCode.PASS
    export, pack = program.asked
    bundle = str(tmp_path / "fleet" / "bundles" / "server")
    assert export == [
        *("export", "--target", "openvino", "--target", "onnxruntime", "--device", "local"),
        *("--model", "a/model", "--revision", "abc", "--eval", "texts"),
        *("--config", str(tmp_path / "strict.toml"), "--output", bundle, "--quiet"),
        *("--seed", "1", "--objective", "latency"),
    ]
    assert pack == ["pack", bundle, "-o", str(tmp_path / "fleet" / "server.tar.zst")]
    assert "+ exporter export --target openvino" in log


def test_what_must_be_finished_elsewhere_is_packed_as_prepared(program, fleet, places):
    run_job(fleet, "gpu-t4", "build", places, Log())
    assert program.asked[-1][-1].endswith("prepared/gpu-t4.tar.zst")
    run_job(fleet, "gpu-t4", "finish", places, Log())
    unpack, build, pack = program.asked[2:]
    assert unpack[:2] == ["unpack", program.asked[1][-1]]
    assert build == ["build", unpack[-1], "-o", pack[1]]
    assert pack[-1].endswith("fleet/gpu-t4.tar.zst")


def test_an_emulated_device_is_set_up_first(program, places, tmp_path):
    text = TWO.replace('device = "local"', 'device = "emulated:neoverse-n1"')
    run_job(load_fleet(write_fleet(tmp_path, text)), "gpu-t4", "build", places, Log())
    assert program.asked[0] == ["devices", "setup", "emulated:neoverse-n1", "--quiet"]


@pytest.mark.parametrize("code", [ExitCode.GATE_FAILED, ExitCode.INCONCLUSIVE])
def test_a_verdict_is_the_rollout_s_to_judge(code, program, fleet, places):
    program.answers(export=int(code))
    assert run_job(fleet, "server", "build", places, Log()) == ExitCode.PASS
    assert program.commands == ["export", "pack"]


@pytest.mark.parametrize(("device", "stage"), [("server", "build"), ("gpu-t4", "finish")])
def test_a_verdict_without_a_bundle_is_a_failure(device, stage, program, fleet, places):
    """No GPU there: nothing was made, and what an earlier job made must not be taken for it."""
    program.answers(export=3, build=3, makes=0)
    places.bundle(device).mkdir(parents=True)
    (places.bundle(device) / "manifest.json").write_text("an earlier one")
    assert run_job(fleet, device, stage, places, Log()) == ExitCode.INCONCLUSIVE
    assert "pack" not in program.commands


def test_a_failed_job_leaves_no_earlier_archive_behind(program, fleet, places):
    program.answers(export=4)
    for archive in (places.archive("gpu-t4"), places.prepared("gpu-t4")):
        archive.write_text("an earlier one")
    run_job(fleet, "gpu-t4", "build", places, Log())
    assert not places.archive("gpu-t4").exists()
    assert not places.prepared("gpu-t4").exists()
    places.prepared("gpu-t4").write_text("what this job begins with")
    run_job(fleet, "gpu-t4", "finish", places, Log())
    assert places.prepared("gpu-t4").exists()


@pytest.mark.parametrize("code", [ExitCode.USAGE, ExitCode.STEP_FAILED, ExitCode.BUG])
def test_a_failure_ends_the_job(code, program, fleet, places):
    program.answers(export=int(code))
    assert run_job(fleet, "server", "build", places, Log()) == code
    assert program.commands == ["export"]


def test_codes_of_the_system_are_failures(program, fleet, places):
    program.answers(export=137)
    assert run_job(fleet, "server", "build", places, Log()) == ExitCode.STEP_FAILED


def test_packing_is_no_verdict(program, fleet, places):
    program.answers(pack=3)
    assert run_job(fleet, "server", "build", places, Log()) == ExitCode.INCONCLUSIVE


def test_a_device_without_a_second_stage_has_none(program, fleet, places):
    with pytest.raises(ConfigError, match="nothing to finish"):
        run_job(fleet, "server", "finish", places, Log())
    assert program.asked == []


# ---------------------------------------------------------------------------- the rollout


def leave(bundle: Path, *archives: Path) -> None:
    for archive in archives:
        pack_bundle(bundle, archive)


def test_all_devices_are_judged_together(program, fleet, places, bundle, tmp_path):
    leave(bundle, places.archive("server"), places.archive("gpu-t4"))
    code = run_rollout(fleet, places, tmp_path / "baselines", "github", Log())
    assert code == ExitCode.PASS
    assert program.commands == ["compatibility", "report", "gate"]
    gate = program.asked[-1]
    folders = [str(places.bundle(name)) for name in ("server", "gpu-t4")]
    assert gate[1:3] == folders == program.asked[1][1:3]
    expected = [gate[i + 1] for i, word in enumerate(gate) if word == "--expect"]
    assert expected == ["openvino=local", "onnxruntime=local", "tensorrt=local"]
    assert gate[gate.index("--policy") + 1] == str(tmp_path / "gate.toml")
    assert gate[gate.index("--annotations") + 1] == "github"


def test_a_missing_device_is_said_and_left_to_the_gate(program, fleet, places, bundle, tmp_path):
    leave(bundle, places.archive("server"))
    log = Log()
    program.answers(gate=1)
    code = run_rollout(fleet, places, tmp_path / "baselines", "none", log)
    assert code == ExitCode.GATE_FAILED
    assert "gpu-t4: MISSING" in log
    assert program.commands == ["compatibility", "report", "gate"]
    assert "tensorrt=local" in program.asked[-1]
    program.answers(gate=0)  # a waiver speaks of it
    assert run_rollout(fleet, places, tmp_path / "baselines", "none", log) == ExitCode.PASS


def test_what_was_only_prepared_is_judged_as_that(program, fleet, places, bundle, tmp_path):
    leave(bundle, places.archive("server"), places.prepared("gpu-t4"))
    log = Log()
    assert run_rollout(fleet, places, tmp_path / "baselines", "none", log) == ExitCode.PASS
    assert "gpu-t4: prepared, not finished" in log
    leave(bundle, places.archive("gpu-t4"))
    log = Log()
    run_rollout(fleet, places, tmp_path / "baselines", "none", log)
    assert "gpu-t4: there" in log


def test_a_damaged_archive_stops_the_rollout(program, fleet, places, bundle, tmp_path):
    leave(bundle, places.archive("server"), places.archive("gpu-t4"))
    data = places.archive("gpu-t4").read_bytes()
    places.archive("gpu-t4").write_bytes(data[:-50])
    log = Log()
    code = run_rollout(fleet, places, tmp_path / "baselines", "none", log)
    assert code == ExitCode.STEP_FAILED
    assert "not a whole archive" in log


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ({"compatibility": 3}, 0),  # what is not compared is not verified: the gate's to judge
        ({"compatibility": 3, "gate": 3}, 3),
        ({"compatibility": 4}, 4),
        ({"report": 4}, 4),
        ({"gate": 1}, 1),
        ({"compatibility": 2, "gate": 1}, 2),
    ],
)
def test_the_gate_decides_and_failures_count(codes, code, program, fleet, places, bundle, tmp_path):
    leave(bundle, places.archive("server"), places.archive("gpu-t4"))
    program.answers(**codes)
    assert run_rollout(fleet, places, tmp_path / "baselines", "none", Log()) == code
    assert program.commands == ["compatibility", "report", "gate"]


def test_the_report_gets_this_rollout_s_matrix_and_the_gate_s_policy(
    program, fleet, places, bundle, tmp_path
):
    leave(bundle, places.archive("server"), places.archive("gpu-t4"))
    program.answers(matrix=1)
    run_rollout(fleet, places, tmp_path / "baselines", "none", Log())
    report = program.asked[1]
    assert report[report.index("--compatibility") + 1] == str(places.matrix)
    assert report[report.index("--policy") + 1] == str(tmp_path / "gate.toml")
    program.answers(compatibility=4)  # and leaves nothing: an earlier matrix is not taken for it
    run_rollout(fleet, places, tmp_path / "baselines", "none", Log())
    assert "--compatibility" not in program.asked[4]
    assert program.asked[4][0] == "report"


def test_nothing_at_all_is_an_error(program, fleet, places, tmp_path):
    with pytest.raises(StepError, match="no device of the fleet") as caught:
        run_rollout(fleet, places, tmp_path / "baselines", "none", Log())
    assert "server.tar.zst" in caught.value.why
    assert program.asked == []


# -------------------------------------------------------------------------- the baselines


def test_a_baseline_is_kept_by_hardware_and_compared_with(program, fleet, places, bundle, tmp_path):
    leave(bundle, places.archive("server"), places.archive("gpu-t4"))
    baselines, log = tmp_path / "baselines", Log()
    place = accept(baselines, "server", bundle)
    assert place == baselines / "server" / f"{HARDWARE.fingerprint[:16]}.json"
    assert place.read_bytes() == (bundle / "reports" / "report.json").read_bytes()
    run_rollout(fleet, places, baselines, "none", log)
    assert ["compare", str(place), str(places.bundle("server"))] in program.asked
    assert program.commands.count("compare") == 1
    assert "gpu-t4: no baseline of its hardware" in log


def test_other_hardware_has_another_baseline(bundle, tmp_path):
    manifest = json.loads((bundle / "manifest.json").read_text())
    for stamp in manifest["devices"]:
        stamp["fingerprint"] = "another machine" if stamp["fingerprint"] else None
    other = shutil.copytree(bundle, tmp_path / "other")
    (other / "manifest.json").write_text(json.dumps(manifest))
    assert baseline_file(tmp_path, "server", other) != baseline_file(tmp_path, "server", bundle)
    for stamp in manifest["devices"]:
        stamp["fingerprint"] = None
    (other / "manifest.json").write_text(json.dumps(manifest))
    assert baseline_file(tmp_path, "server", other) is None
    with pytest.raises(StorageError, match="which hardware"):
        accept(tmp_path / "baselines", "server", other)


def test_a_tampered_bundle_is_not_accepted(bundle, tmp_path):
    bad = shutil.copytree(bundle, tmp_path / "bad")
    (bad / "reports" / "report.json").write_text("{}")
    with pytest.raises(StorageError, match="not what its manifest says"):
        accept(tmp_path / "baselines", "server", bad)
    assert not (tmp_path / "baselines").exists()


def test_the_command_accepts_what_a_job_left(bundle, places, tmp_path, capsys):
    shutil.copytree(bundle, places.bundle("server"))
    where = ["--devices", str(tmp_path / "devices.toml"), "--fleet", str(places.root)]
    where += ["--baselines", str(tmp_path / "baselines")]
    write_fleet(tmp_path)
    assert run(["ci", "accept", "server", *where]) == ExitCode.PASS
    assert "baselines/server/" in capsys.readouterr().out
    assert run(["ci", "accept", "serve", *where]) == ExitCode.USAGE
    assert "'server'" in capsys.readouterr().err


def parsed(arguments: list[str]) -> None:
    """Let the program's own parser read a command; nothing is run."""
    command = typer.main.get_command(app)
    group = command.commands[arguments[0]]
    rest = arguments[1:]
    if hasattr(group, "commands"):
        group, rest = group.commands[rest[0]], rest[1:]
    group.make_context(arguments[0], rest)


def test_every_command_of_every_job_is_one_of_this_program(fleet, tmp_path):
    """The stand-in takes anything; the program does not."""
    places, asked = Places(root=tmp_path), set()
    for name, device in fleet.device.items():
        for stage in stages_of(device):
            for one in job_commands(fleet, name, stage, places):
                parsed(list(one.arguments))
                asked.add(one.arguments[0])
    assert asked == {"export", "pack", "unpack", "build"}
    with pytest.raises(typer.TyperException):
        parsed(["build", "bundle", "--no-such-flag"])
