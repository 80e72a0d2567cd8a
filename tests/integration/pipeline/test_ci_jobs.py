"""The steps of the workflow templates, run here as CI runs them, on the project's own fleet.

Only the fleet's common settings are other ones, so that it is short: a tiny model, few texts,
a forced recipe.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from export_command import ROOT

from exporter.ci.fleet import load_fleet
from exporter.ci.jobs import Places
from exporter.deliver.archive import opened_bundle
from exporter.deliver.report import read_report
from targets.registry import target_names

pytestmark = [pytest.mark.openvino, pytest.mark.slow]

FLEET = load_fleet(ROOT / "ci" / "devices.toml")
TEMPLATES = [
    yaml.safe_load((ROOT / "ci" / name).read_text("utf-8"))
    for name in ("github-actions.yml", "gitlab-jobs.yml")
]


def steps_with(words: str) -> list[str]:
    """Return the different steps of both templates that contain some words."""
    github, gitlab = TEMPLATES
    found = [s.get("run", "") for job in github["jobs"].values() for s in job["steps"]]
    found += [line for job in gitlab.values() for line in job.get("script", ())]
    return sorted({step for step in found if words in step})


def targets_missing(name: str) -> list[str]:
    return [target for target in FLEET.device[name].targets if target not in target_names()]


@dataclass
class Site:
    """A CI machine: a short fleet, and a folder for what its jobs leave."""

    folder: Path
    cache: Path
    results: dict[str, subprocess.CompletedProcess[str]] = field(default_factory=dict)

    @property
    def places(self) -> Places:
        return Places(root=self.folder / "fleet")

    def run(self, step: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "EMBEDDING_EXPORTER_CACHE": str(self.cache),
            "EMBEDDING_EXPORTER_CI_DEVICES": str(self.folder / "ci" / "devices.toml"),
            "EMBEDDING_EXPORTER_CI_FLEET": str(self.places.root),
            "EMBEDDING_EXPORTER_CI_BASELINES": str(self.folder / "baselines"),
            "HF_HUB_OFFLINE": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHON": sys.executable,
        }
        return subprocess.run(
            ["bash", "-e", "-c", step],
            cwd=ROOT,
            env=environment | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )

    def job(self, device: str) -> subprocess.CompletedProcess[str]:
        """Run a device's build job once, by the template's own step."""
        if device not in self.results:
            (step,) = [one for one in steps_with("ci/run-job") if "--stage" not in one]
            self.results[device] = self.run(step, DEVICE=device)
        return self.results[device]


@pytest.fixture(scope="module")
def site(tmp_path_factory, shared_cache, tiny_model, tiny_texts) -> Site:
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "ci", folder / "ci")
    calibration, evaluation = tiny_texts
    short = {
        "model": str(tiny_model),
        "calibration": str(calibration),
        "eval": str(evaluation),
        "arguments": ["--precision", "float32", "--num-samples", "60"],
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in short.items()]
    path = folder / "ci" / "devices.toml"
    path.write_text("\n".join([*lines, path.read_text("utf-8")]))
    return Site(folder=folder, cache=shared_cache)


@pytest.mark.parametrize(
    "device", [name for name in FLEET.device if not FLEET.device[name].device.startswith("emu")]
)
def test_each_build_job_leaves_an_archive(device, site):
    if missing := targets_missing(device):
        pytest.skip(f"{', '.join(missing)}: no target of this version")
    check_job(device, site)


@pytest.mark.qemu
@pytest.mark.parametrize(
    "device", [name for name in FLEET.device if FLEET.device[name].device.startswith("emu")]
)
def test_each_emulated_build_job_leaves_an_archive(device, site, emulation):
    emulation("aarch64")
    check_job(device, site)


def check_job(device: str, site: Site) -> None:
    done = site.job(device)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "+ exporter export" in done.stderr
    asked = FLEET.device[device]
    place = site.places.prepared(device) if asked.finish_runner else site.places.archive(device)
    with opened_bundle(place) as folder:
        report = read_report(folder / "reports")
        assert (folder / "sbom.cdx.json").is_file()
    assert {one.target for one in report.targets} == set(asked.targets)
    assert {one.device for one in report.targets} == {asked.device}


def test_a_device_that_the_fleet_does_not_have_is_usage(site):
    done = site.run('ci/run-job "$DEVICE"', DEVICE="; touch pwned")
    assert done.returncode == 2
    assert "has no device '; touch pwned'" in done.stderr
    assert not (ROOT / "pwned").exists()


def test_a_job_that_fails_says_so_and_leaves_nothing(site):
    path = site.folder / "ci" / "broken.toml"
    good = (site.folder / "ci" / "devices.toml").read_text()
    path.write_text(good.replace('"float32"', '"no-such-recipe"'))
    (step,) = [one for one in steps_with("ci/run-job") if "--stage" not in one]
    places = Places(root=site.folder / "broken")
    variables = {
        "EMBEDDING_EXPORTER_CI_DEVICES": str(path),
        "EMBEDDING_EXPORTER_CI_FLEET": str(places.root),
    }
    done = site.run(step, DEVICE="server-x86", **variables)
    assert done.returncode in (2, 4), done.stderr
    assert "no-such-recipe" in done.stderr
    assert not places.archive("server-x86").exists()


def test_the_plan_is_what_the_next_jobs_read(site, tmp_path):
    steps = steps_with("ci matrix")
    assert len(steps) == 1, "GitLab's is in a file of its own"
    done = site.run(steps[0], GITHUB_OUTPUT=str(tmp_path / "output"))
    assert done.returncode == 0, done.stderr
    found = dict(line.split("=", 1) for line in (tmp_path / "output").read_text().splitlines())
    matrix = [job["device"] for job in json.loads(found["build"])["include"]]
    assert matrix == list(FLEET.device)


def test_gitlab_s_plan_is_a_pipeline(site, tmp_path):
    template = yaml.safe_load((ROOT / "ci" / "gitlab-ci.yml").read_text("utf-8"))
    step = template["plan"]["script"][-1]
    target = tmp_path / "fleet-pipeline.yml"
    done = site.run(step.replace("> fleet-pipeline.yml", f"> {target}"))
    assert done.returncode == 0, done.stderr
    assert f"build:{next(iter(FLEET.device))}" in yaml.safe_load(target.read_text())


def test_an_accepted_bundle_is_the_next_one_s_baseline(site):
    assert site.job("server-x86").returncode == 0
    done = site.run("python3 -m exporter ci accept server-x86")
    assert done.returncode == 0, done.stderr
    (kept,) = (site.folder / "baselines" / "server-x86").iterdir()
    read_report(kept)
    done = site.run(next(iter(steps_with("ci rollout"))))
    assert f"+ exporter compare {kept}" in done.stderr


@pytest.mark.parametrize("step", steps_with("ci rollout"))
def test_the_rollout_judges_what_the_jobs_left(step, site):
    assert site.job("server-x86").returncode == 0
    done = site.run(step)
    log = done.stdout + done.stderr
    assert "server-x86: there" in log
    assert "gpu: MISSING" in log or site.places.prepared("gpu").is_file()
    assert done.returncode != 0, "a device is missing or only prepared"
    if "No such command 'report'" in log:
        pytest.skip("`exporter report`, `gate` and others are no commands of this version")
    assert done.returncode in (1, 3), log
    for name in ("compatibility.json", "summary.md", "junit.xml", "report/report.json"):
        assert (site.places.rollout / name).is_file(), name
    shown = read_report(site.places.rollout / "report")
    assert {"missing", "prepared"} & {one.status for one in shown.targets}
    assert shown.compatibility is not None
    assert shown.exit_code == done.returncode
