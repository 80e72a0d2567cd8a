"""Workflow templates: valid by the published schemas, thin, and naming commands that exist."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fleets import OWN, ROOT

from exporter.ci.fleet import load_fleet
from exporter.ci.jobs import Places, job_commands, rollout_commands, stages_of
from exporter.ci.matrix import as_gitlab, jobs_of
from exporter.cli.app import run

CI = ROOT / "ci"
GITHUB, GITLAB, GITLAB_JOBS = (
    CI / name for name in ("github-actions.yml", "gitlab-ci.yml", "gitlab-jobs.yml")
)
SCHEMAS = {
    "github": ["--builtin-schema", "vendor.github-workflows"],
    "gitlab": ["--builtin-schema", "vendor.gitlab-ci", "--data-transform", "gitlab-ci"],
}
THIN = re.compile(
    r"""ci/install(\ "\$EXTRAS")?
    |   ci/run-job\ "\$DEVICE"(\ --stage\ finish)?
    |   python3\ -m\ exporter\ ci\ (matrix|rollout)\ [^;|&]*
    |   if\ \[\ -f\ (\S+)\ \];\ then\s+cat\ \4\ >>\ "\$GITHUB_STEP_SUMMARY"\s+fi\s*
    """,
    re.VERBOSE,
)


def check(kind: str, file: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("check_jsonschema", reason="pip install 'embedding-exporter[dev]'")
    command = [sys.executable, "-m", "check_jsonschema", *SCHEMAS[kind], str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def loaded(file: Path) -> dict[Any, Any]:
    return yaml.safe_load(file.read_text("utf-8"))


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    """What GitLab's first job hands to its second."""
    path = tmp_path_factory.mktemp("gitlab") / "fleet-pipeline.yml"
    path.write_text(as_gitlab(jobs_of(load_fleet(OWN))))
    return path


# --------------------------------------------------------------------------- the schemas


@pytest.mark.parametrize(
    ("kind", "file"), [("github", GITHUB), ("gitlab", GITLAB), ("gitlab", GITLAB_JOBS)]
)
def test_templates_obey_the_published_schemas(kind, file):
    done = check(kind, file)
    assert done.returncode == 0, done.stdout + done.stderr


def expanded(pipeline: Path, templates: Path, place: Path) -> Path:
    """Write the pipeline with its jobs' templates pasted in: nobody checks hidden jobs as such."""
    hidden = loaded(templates)

    def resolved(job: dict[str, Any]) -> dict[str, Any]:
        own = {key: value for key, value in job.items() if key != "extends"}
        return {**resolved(hidden[job["extends"]]), **own} if "extends" in job else own

    jobs = loaded(pipeline).items()
    whole = {name: resolved(job) if isinstance(job, dict) else job for name, job in jobs}
    place.write_text(json.dumps(whole))
    return place


def test_the_generated_pipeline_obeys_it_too(pipeline, tmp_path):
    for file in (pipeline, expanded(pipeline, GITLAB_JOBS, tmp_path / "whole.yml")):
        done = check("gitlab", file)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("old", "new"), [("when: always", "when: whenever"), ("  script:", "  scripts:")]
)
def test_a_mistake_in_a_hidden_job_is_found(old, new, pipeline, tmp_path):
    wrong = tmp_path / "jobs.yml"
    wrong.write_text(GITLAB_JOBS.read_text("utf-8").replace(old, new))
    done = check("gitlab", expanded(pipeline, wrong, tmp_path / "whole.yml"))
    assert done.returncode == 1, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("kind", "file", "old", "new"),
    [
        ("github", GITHUB, "runs-on: ubuntu-24.04", "run-on: ubuntu-24.04"),
        ("github", GITHUB, "fail-fast: false", "fail-fast: [no]"),
        ("gitlab", GITLAB, "strategy: depend", "strategy: depends"),
        ("gitlab", GITLAB, "artifact: fleet-pipeline.yml", "artefact: fleet-pipeline.yml"),
    ],
)
def test_a_mistake_in_a_template_is_found(kind, file, old, new, tmp_path):
    wrong = tmp_path / file.name
    wrong.write_text(file.read_text("utf-8").replace(old, new, 1))
    assert wrong.read_text() != file.read_text("utf-8")
    done = check(kind, wrong)
    assert done.returncode == 1, done.stdout + done.stderr


def test_the_generated_pipeline_extends_jobs_that_are_there(pipeline):
    there = loaded(GITLAB_JOBS)
    for name, job in loaded(pipeline).items():
        if name not in ("include", "stages"):
            template = there[job["extends"]]
            assert template["stage"] == name.split(":")[0]


# ------------------------------------------------------------------------- what they run


def github_steps() -> dict[str, list[str]]:
    jobs = loaded(GITHUB)["jobs"]
    return {name: [s["run"] for s in job["steps"] if "run" in s] for name, job in jobs.items()}


def gitlab_steps() -> dict[str, list[str]]:
    jobs = {**loaded(GITLAB), **loaded(GITLAB_JOBS)}
    lists = ("before_script", "script")
    return {
        name: [line for key in lists for line in job.get(key, ())]
        for name, job in jobs.items()
        if isinstance(job, dict)
    }


@pytest.mark.parametrize("steps", [github_steps(), gitlab_steps()], ids=["github", "gitlab"])
def test_templates_are_thin(steps):
    """All the work is in commands that run anywhere."""
    found = [step for job in steps.values() for step in job]
    assert found
    for step in found:
        assert THIN.fullmatch(step), step


def test_a_template_with_work_in_it_is_found_out():
    for step in ("exporter export --target openvino", 'ci/run-job "$DEVICE" && rm -r fleet'):
        assert not THIN.fullmatch(step)


def test_both_systems_run_the_same_jobs():
    def jobs(steps: dict[str, list[str]]) -> set[str]:
        found = [s for job in steps.values() for s in job if "run-job" in s or " rollout " in s]
        return {re.sub(r"--annotations \w+", "", step).strip() for step in found}

    assert jobs(github_steps()) == jobs(gitlab_steps())
    assert len(jobs(github_steps())) == 3


def test_no_expression_is_pasted_into_a_shell():
    """What a matrix or a branch is called must not become a command."""
    for steps in github_steps().values():
        for step in steps:
            assert "${{" not in step


def test_the_scripts_are_executable_and_plain_shell():
    for name in ("run-job", "fleet", "install"):
        assert os.access(CI / name, os.X_OK)
        done = subprocess.run(["sh", "-n", str(CI / name)], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


STAND_IN = """#!/bin/sh
echo "$*" >> "{log}"
case "$*" in
    *names) printf 'one\\ntwo\\n' ;;
    *"run one") exit 4 ;;
    *rollout*) exit 3 ;;
esac
"""


def test_the_whole_fleet_goes_through_every_job_and_ends_with_the_rollout(tmp_path):
    """The program is a stand-in that writes down what it was asked."""
    stand_in, log = tmp_path / "python", tmp_path / "log"
    stand_in.write_text(STAND_IN.format(log=log))
    stand_in.chmod(0o755)
    done = subprocess.run(
        [str(CI / "fleet"), "--annotations", "none"],
        env=os.environ | {"PYTHON": str(stand_in)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert log.read_text().splitlines() == [
        "-m exporter ci matrix --format names",
        "-m exporter ci run one",
        "-m exporter ci run two",
        "-m exporter ci rollout --annotations none",
    ]
    assert done.returncode == 3, "the rollout's code"
    assert "one: its job failed with code 4" in done.stderr


# ------------------------------------------------------------- the commands behind the jobs

LATER = ("build", "compare", "compatibility", "gate", "report")


def all_commands() -> dict[str, tuple[str, ...]]:
    fleet, places = load_fleet(OWN), Places(root=Path("fleet"))
    found = [
        command
        for name, device in fleet.device.items()
        for stage in stages_of(device)
        for command in job_commands(fleet, name, stage, places)
    ]
    found += rollout_commands(
        fleet,
        places,
        bundles={"server-x86": places.bundle("server-x86")},
        baselines={"server-x86": Path("ci/baselines/server-x86/0.json")},
        annotations="github",
    )
    return {command.arguments[0]: command.arguments for command in found}


@pytest.mark.parametrize(("name", "arguments"), sorted(all_commands().items()))
def test_every_command_and_flag_exists(name, arguments, capsys):
    known = run(["--help"]) == 0 and capsys.readouterr().out
    if name in LATER and not re.search(rf"^\s+{name}\s", known, flags=re.MULTILINE):
        pytest.skip(f"`exporter {name}` is no command of this version")
    words = [name, arguments[1]] if name == "devices" else [name]
    assert run([*words, "--help"]) == 0
    shown = capsys.readouterr().out
    for flag in (part for part in arguments if part.startswith("-")):
        assert re.search(rf"(?<![\w-]){flag}(?![\w-])", shown), f"{name} has no {flag}"


def test_jobs_are_listed_as_commands_that_can_be_copied():
    fleet = load_fleet(OWN)
    command, *_ = job_commands(fleet, "server-x86", "build", Places(root=Path("fleet")))
    assert str(command) == (
        "exporter export --target openvino --target onnxruntime --device local "
        "--output fleet/bundles/server-x86 --quiet"
    )
    assert json.loads(json.dumps(command.arguments))
