"""The rollout gate: rules for each device, waivers that end, and nothing that passes unseen."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from deliver_bundles import write_bundle
from deliver_records import CASES

from exporter.cli.app import run
from exporter.deliver.report import document_of, parse_report, read_report, to_json
from exporter.deliver.report.annotations import (
    github_annotations,
    gitlab_code_quality,
    job_summary,
)
from exporter.steps.gate import RolloutPolicy, judge_report, load_policy
from exporter.steps.reports import merged_report
from targets.errors import ConfigError

TODAY = date(2026, 11, 26)


def made(name: str = "pass", **changes):
    """A report with one target of one run."""
    report = parse_report(to_json(document_of(CASES[name])))
    target = replace(report.targets[0], **changes)
    return replace(report, targets=(target,), compatibility=None)


@pytest.fixture
def bundle(tmp_path):
    def write(name: str = "pass", folder: str = "out", **changes) -> Path:
        return write_bundle(made(name, **changes), tmp_path / folder)

    return write


@pytest.fixture
def policy(tmp_path):
    def write(text: str) -> RolloutPolicy:
        path = tmp_path / "gate.toml"
        path.write_text(text)
        return load_policy(path, TODAY)

    return write


def run_gate(bundles, expected, policy):
    return judge_report(merged_report(bundles, expected), policy)


def names(report, verdict: str) -> set[str]:
    return {c.name for t in report.targets for c in t.checks if c.verdict == verdict}


# ------------------------------------------------------------------------------- rules


def test_without_a_policy_the_run_s_own_checks_stand(bundle):
    judged = run_gate([bundle()], [], RolloutPolicy())
    assert (judged.verdict, judged.exit_code) == ("pass", 0)
    assert judged.targets[0].checks == made().targets[0].checks


def test_a_failed_check_stops_the_rollout(bundle):
    judged = run_gate([bundle("fail")], [], RolloutPolicy())
    assert (judged.verdict, judged.exit_code) == ("fail", 1)


def test_a_stricter_rule_judges_the_same_figures_anew(bundle, policy):
    strict = policy("[[rule]]\nmin_overlap_at_k = 1.0\n")
    judged = run_gate([bundle()], [], strict)
    assert judged.exit_code in (1, 3)
    assert "overlap@10" in names(judged, "fail") | names(judged, "inconclusive")
    assert run_gate([bundle()], [], policy("[[rule]]\nmin_overlap_at_k = 0.5\n")).exit_code == 0


def test_the_last_rule_that_fits_counts(bundle, policy):
    text = (
        '[[rule]]\nmin_mean_cosine = 1.0\n[[rule]]\ntarget = "open*"\ndevice = "local"\n'
        "min_overlap_at_k = 0.5\n"
    )
    assert run_gate([bundle(device="local")], [], policy(text)).exit_code == 0
    other = run_gate([bundle(device="ssh://board")], [], policy(text))
    assert "mean_cosine" in names(other, "fail") | names(other, "inconclusive")


def test_a_slice_has_thresholds_of_its_own(bundle, policy):
    judged = run_gate([bundle()], [], policy("[[rule]]\nmin_slice_mean_cosine = 1.0\n"))
    assert any(name.startswith("mean_cosine, ") for name in names(judged, "fail"))
    loose = run_gate([bundle()], [], policy("[[rule]]\nmin_slice_mean_cosine = 0.5\n"))
    assert loose.exit_code == 0


def test_what_no_rule_speaks_of_stays_as_it_was_found(bundle, policy):
    found = [check for check in made().targets[0].checks if check.name == "precision"]
    judged = run_gate([bundle()], [], policy("[[rule]]\nmin_overlap_at_k = 0.5\n"))
    assert [c for c in judged.targets[0].checks if c.name == "precision"] == found != []


# ------------------------------------------------------------------- what is not there


def test_a_missing_device_is_no_pass(bundle):
    judged = run_gate([bundle()], ["tensorrt=gpu"], RolloutPolicy())
    assert (judged.verdict, judged.exit_code) == ("fail", 1)
    assert names(judged, "fail") == {"status"}
    assert judged.targets[-1].status == "missing"


def test_a_missing_device_may_be_waived(bundle, policy):
    text = WAIVER.format(check="status", reason="it is being repaired", expires="2026-12-01")
    judged = run_gate([bundle()], ["tensorrt=gpu"], policy(text))
    assert (judged.verdict, judged.exit_code) == ("pass", 0)
    assert "it is being repaired" in judged.targets[-1].checks[0].reason
    other = WAIVER.format(check="speedup", reason="x", expires="2026-12-01")
    assert run_gate([bundle()], ["tensorrt=gpu"], policy(other)).exit_code == 1


@pytest.mark.parametrize(("status", "code"), [("prepared", 3), ("not_run", 3), ("failed", 4)])
def test_what_was_not_verified_is_no_pass_whatever_its_checks_say(bundle, status, code):
    judged = run_gate([bundle(status=status, reason="no GPU")], [], RolloutPolicy())
    assert judged.exit_code == code
    assert "status" in names(judged, "fail") | names(judged, "not_run")


# ----------------------------------------------------------------------------- waivers


WAIVER = '[[waiver]]\ncheck = "{check}"\nreason = "{reason}"\nexpires = {expires}\n'


def test_a_waiver_lets_a_check_pass_and_says_so(bundle, policy):
    failing = names(made("fail"), "fail").pop()
    text = WAIVER.format(check="*", reason="the board comes on Monday", expires="2026-12-01")
    judged = run_gate([bundle("fail")], [], policy(text))
    assert judged.exit_code == 0
    check = next(c for c in judged.targets[0].checks if c.name == failing)
    assert "waived until 2026-12-01: the board comes on Monday" in check.reason
    assert check.details["waived"] == "fail"
    assert "waived until" in job_summary(judged)


def test_a_waiver_is_for_its_check_only(bundle, policy):
    text = WAIVER.format(check="stability", reason="x", expires="2026-12-01")
    assert run_gate([bundle("fail")], [], policy(text)).exit_code == 1


def test_an_expired_waiver_is_an_error(policy):
    with pytest.raises(ConfigError, match="expired on 2026-11-25"):
        policy(WAIVER.format(check="*", reason="x", expires="2026-11-25"))
    policy(WAIVER.format(check="*", reason="x", expires="2026-11-26"))  # the last day holds


def test_a_waiver_without_a_reason_is_an_error(policy):
    with pytest.raises(ConfigError, match="gives no reason"):
        policy(WAIVER.format(check="*", reason=" ", expires="2026-12-01"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[rules]]\n", "unknown key 'rules'"),
        ("[[rule]]\nmin_overlap = 1.0\n", "unknown key 'min_overlap'"),
        ('[[rule]]\nmin_overlap_at_k = "much"\n', "is not valid"),
        ("[[rule]]\nmin_overlap_at_k = 7.0\n", "is not valid"),
        ("[rule]\nk = 10\n", "must be tables"),
        ('[[waiver]]\ncheck = "x"\n', "is not valid"),
        ("nonsense", "not valid TOML"),
    ],
)
def test_a_wrong_policy_is_named(policy, text, said):
    with pytest.raises(ConfigError, match=said):
        policy(text)


def test_a_missing_policy_is_named(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_policy(tmp_path / "none.toml", TODAY)


# ------------------------------------------------------------------------- for CI


def test_github_gets_a_line_for_each_check_that_does_not_pass(bundle):
    judged = run_gate([bundle("fail", reason="a\nb")], [], RolloutPolicy())
    lines = github_annotations(judged).splitlines()
    open_checks = names(judged, "fail") | names(judged, "inconclusive") | names(judged, "not_run")
    assert len(lines) == len(open_checks)
    assert all(line.startswith(("::error title=", "::warning title=")) for line in lines)
    assert github_annotations(run_gate([bundle()], [], RolloutPolicy())) == ""


def test_gitlab_gets_issues_with_steady_fingerprints(bundle):
    judged = run_gate([bundle("fail")], [], RolloutPolicy())
    issues = json.loads(gitlab_code_quality(judged, "ci/gate.toml"))
    again = json.loads(gitlab_code_quality(judged, "ci/gate.toml"))
    assert issues == again
    assert {one["severity"] for one in issues} <= {"blocker", "major"}
    assert len({one["fingerprint"] for one in issues}) == len(issues) > 0


def test_the_summary_says_the_verdict_first(bundle):
    judged = run_gate([bundle("fail")], [], RolloutPolicy())
    assert job_summary(judged).splitlines()[0] == "# Rollout gate: ✗ FAIL"
    passed = job_summary(run_gate([bundle()], [], RolloutPolicy()))
    assert passed.splitlines()[0] == "# Rollout gate: ✓ PASS"


# -------------------------------------------------------------------- the commands


def test_the_commands_write_what_ci_reads(bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed = str(bundle("fail"))
    arguments = ["gate", failed, "--annotations", "gitlab", "--summary", "s/summary.md"]
    assert run([*arguments, "--junit", "junit.xml"]) == 1
    assert "✗ FAIL: 1 artifacts, exit code 1" in capsys.readouterr().out
    assert "<failure" in Path("junit.xml").read_text("utf-8")
    assert Path("s/summary.md").read_text("utf-8").startswith("# Rollout gate")
    assert json.loads(Path("gl-code-quality-report.json").read_text("utf-8"))
    assert run(["gate", failed, "--annotations", "github"]) == 1
    assert "::error title=" in capsys.readouterr().out
    assert run(["gate", failed, "--annotations", "jenkins"]) == 2


def test_one_report_of_two_bundles(bundle, tmp_path, capsys):
    first, second = bundle(folder="a", device="local"), bundle(folder="b", device="ssh://board")
    output = tmp_path / "all"
    assert run(["report", str(first), str(second), "-o", str(output)]) == 0
    assert (output / "report.html").is_file()
    capsys.readouterr()


def test_a_written_report_is_no_verdict(bundle, tmp_path, capsys):
    """What is missing or fails is shown; the gate's code is what stops a rollout."""
    output, failed = tmp_path / "all", str(bundle("fail"))
    assert run(["report", failed, "-o", str(output), "--expect", "tensorrt=gpu"]) == 0
    shown = read_report(output)
    assert (shown.verdict, shown.exit_code) == ("fail", 1)
    assert shown.targets[-1].status == "missing"
    assert "is missing" in (output / "report.md").read_text("utf-8")
    assert run(["report", str(tmp_path / "nowhere"), "-o", str(output)]) == 4
    assert run(["report", failed, failed, "-o", str(output)]) == 2
    capsys.readouterr()


def test_the_page_shows_the_gate_s_verdict_where_it_has_its_policy(bundle, tmp_path, capsys):
    rules = tmp_path / "gate.toml"
    rules.write_text(WAIVER.format(check="*", reason="it comes on Monday", expires="2999-12-01"))
    output, failed = tmp_path / "all", str(bundle("fail"))
    both = [failed, "--policy", str(rules), "--expect", "tensorrt=gpu"]
    assert run(["gate", *both]) == 0
    assert run(["report", *both, "-o", str(output)]) == 0
    assert (read_report(output).verdict, read_report(output).exit_code) == ("pass", 0)
    page = (output / "report.html").read_text("utf-8")
    assert "waived until 2999-12-01: it comes on Monday" in page
    assert "FAIL" not in page
    assert run(["report", failed, "-o", str(output), "--policy", str(tmp_path / "none")]) == 2
    capsys.readouterr()
