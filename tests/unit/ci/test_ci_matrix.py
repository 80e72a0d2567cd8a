"""The job matrix in the words of GitHub and GitLab."""

from __future__ import annotations

import json

import pytest
from fleets import OWN, TWO, write_fleet

from exporter.ci.fleet import load_fleet
from exporter.ci.matrix import as_github, as_gitlab, as_json, as_names, jobs_of
from exporter.cli.app import run
from targets.errors import ExitCode


@pytest.fixture
def jobs(tmp_path):
    return jobs_of(load_fleet(write_fleet(tmp_path)))


def outputs(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def test_every_device_has_its_jobs(jobs):
    assert [(job.device, job.stage, job.runner) for job in jobs] == [
        ("server", "build", ("linux", "x64")),
        ("gpu-t4", "build", ("linux",)),
        ("gpu-t4", "finish", ("gpu", "t4")),
    ]
    assert [job["extras"] for job in json.loads(as_json(jobs))] == [
        "openvino,demo",
        "tensorrt,demo",
        "tensorrt,demo",
    ]
    assert as_names(jobs).split() == ["server", "gpu-t4"]


def test_github_gets_one_line_for_each_stage(jobs):
    found = outputs(as_github(jobs))
    assert found["extras"] == "openvino,demo,tensorrt"
    assert [job["device"] for job in json.loads(found["build"])["include"]] == ["server", "gpu-t4"]
    (finish,) = json.loads(found["finish"])["include"]
    assert (finish["device"], finish["runner"]) == ("gpu-t4", ["gpu", "t4"])


def test_a_stage_without_jobs_is_the_empty_matrix_that_the_template_looks_for(jobs):
    found = outputs(as_github([job for job in jobs if job.device == "server"]))
    assert found["finish"] == '{"include":[]}'
    template = (OWN.parent / "github-actions.yml").read_text("utf-8")
    assert f"needs.plan.outputs.finish != '{found['finish']}'" in template


def test_gitlab_gets_a_pipeline_whose_jobs_extend_the_templates(jobs):
    pipeline = json.loads(as_gitlab(jobs))
    assert set(pipeline) == {
        *("include", "stages", "build:server", "build:gpu-t4", "finish:gpu-t4", "rollout"),
    }
    finish = pipeline["finish:gpu-t4"]
    assert finish["needs"] == ["build:gpu-t4"]
    assert finish["tags"] == ["gpu", "t4"]
    assert finish["variables"]["DEVICE"] == "gpu-t4"
    (included,) = pipeline["include"]
    assert (OWN.parents[1] / included["local"]).is_file()


# ---------------------------------------------------------------------------- cache keys


def keys(folder, text: str) -> dict[str, str]:
    jobs = jobs_of(load_fleet(write_fleet(folder, text)))
    return {job.device: job.cache_key for job in jobs}


def test_the_same_content_has_the_same_key_wherever_it_lies(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    assert keys(tmp_path, TWO) == keys(tmp_path / "elsewhere", TWO)
    moved = TWO.replace('["linux", "x64"]', '["other", "machine"]')
    assert keys(tmp_path, moved) == keys(tmp_path, TWO), "what runs a job is not its content"


@pytest.mark.parametrize(
    ("old", "new"), [('"a/model"', '"b/model"'), ('"--seed", "1"', '"--seed", "2"')]
)
def test_what_all_have_in_common_changes_every_key(old, new, tmp_path):
    before, after = keys(tmp_path, TWO), keys(tmp_path, TWO.replace(old, new))
    assert all(before[name] != after[name] for name in before)


def test_a_device_s_own_content_changes_its_key_only(tmp_path):
    before = keys(tmp_path, TWO)
    after = keys(tmp_path, TWO.replace('"latency"', '"size"'))
    assert before["server"] != after["server"]
    assert before["gpu-t4"] == after["gpu-t4"]
    path = write_fleet(tmp_path)
    (tmp_path / "strict.toml").write_text("[policy]\nk = 6\n")
    assert jobs_of(load_fleet(path))[0].cache_key != before["server"], "its policy's content"


# --------------------------------------------------------------------------- the command


@pytest.mark.parametrize("form", ["json", "github", "gitlab", "names"])
def test_the_command_prints_the_project_s_own_matrix(form, capsys):
    assert run(["ci", "matrix", "--devices", str(OWN), "--format", form]) == ExitCode.PASS
    assert "server-x86" in capsys.readouterr().out


def test_an_unknown_format_is_usage(capsys):
    assert run(["ci", "matrix", "--devices", str(OWN), "--format", "circle"]) == ExitCode.USAGE
    assert "gitlab" in capsys.readouterr().err
