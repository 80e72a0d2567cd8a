from __future__ import annotations

import numpy as np
import pytest
from judge_sets import (
    STABLE,
    estimate,
    fidelity,
    lengths_of,
    moved,
    retrieval_embeddings,
    retrieval_set,
)

from exporter.judge.fidelity import assess
from exporter.judge.policy import Policy
from exporter.judge.verdict import (
    combine,
    exit_code,
    judge_fidelity,
    judge_non_finite,
    judge_size,
)
from exporter.values import EvaluationEmbeddings, LabelMetric, Stability
from targets.contract import Check
from targets.errors import ConfigError, ExitCode, NonFiniteError, StepError


def by_name(checks):
    return {check.name: check for check in checks}


def made(verdict, name="a"):
    return Check(name=name, verdict=verdict, value=None, threshold=None, reason="because")


def verdicts_of(num_queries, num_documents, noise, scramble=False, **policy):
    evaluation = retrieval_set(num_queries, num_documents)
    reference = retrieval_embeddings(evaluation)
    candidate = moved(reference, noise) if noise else reference
    if scramble:
        rows = np.random.default_rng(0).permutation(num_documents)
        candidate = EvaluationEmbeddings(
            queries=candidate.queries, documents=candidate.documents[rows]
        )
    found = assess(
        evaluation, reference, candidate, lengths=lengths_of(evaluation), stability=STABLE
    )
    return {c.name: c.verdict for c in judge_fidelity(found, Policy(**policy))}


ALL_PASS = dict.fromkeys(("finite", "mean_cosine", "p1_cosine", "overlap@10", "stability"), "pass")


def test_a_thousand_perfect_queries_pass():
    assert verdicts_of(1000, 300, noise=0.0) == ALL_PASS


def test_five_perfect_queries_decide_nothing():
    found = verdicts_of(5, 40, noise=0.0)
    assert found["overlap@10"] == found["mean_cosine"] == found["p1_cosine"] == "inconclusive"
    assert combine(made(verdict) for verdict in found.values()) == "inconclusive"


def test_scrambled_rows_fail_by_name():
    found = verdicts_of(300, 300, noise=0.0, scramble=True)
    assert found["overlap@10"] == found["mean_cosine"] == found["p1_cosine"] == "fail"
    assert found["finite"] == "pass"


def test_even_five_scrambled_queries_fail():
    found = verdicts_of(5, 100, noise=0.0, scramble=True)
    assert found["overlap@10"] == found["mean_cosine"] == found["p1_cosine"] == "fail"


def test_noise_fails_the_overlap_before_the_cosine():
    found = verdicts_of(1000, 300, noise=0.13)
    assert found["overlap@10"] == "fail"
    assert found["mean_cosine"] == "pass"


def test_the_default_policy_passes_a_good_fidelity():
    checks = judge_fidelity(fidelity(), Policy())
    assert {check.name: check.verdict for check in checks} == ALL_PASS
    assert combine(checks) == "pass"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mean_cosine", {"mean_cosine": estimate(0.98, 0.975, 0.985)}),
        ("p1_cosine", {"p1_cosine": estimate(0.95, 0.94, 0.96)}),
        ("overlap@10", {"overlap_at_k": estimate(0.93, 0.92, 0.94)}),
        (
            "stability",
            {"stability": Stability(alone_vs_batched=0.98, padded=1, shuffled=1, num_texts=9)},
        ),
        ("finite", {"min_cosine": float("nan")}),
    ],
)
def test_each_promise_fails_by_its_name(name, change):
    checks = judge_fidelity(fidelity(**change), Policy())
    assert [check.name for check in checks if check.verdict == "fail"] == [name]
    assert by_name(checks)[name].reason
    assert exit_code(combine(checks)) is ExitCode.GATE_FAILED


def test_instability_names_the_company():
    unstable = Stability(alone_vs_batched=0.98, padded=1.0, shuffled=0.99, num_texts=9)
    check = by_name(judge_fidelity(fidelity(stability=unstable), Policy()))["stability"]
    assert check.value == 0.98
    assert "in a batch" in check.reason


def test_what_was_not_measured_is_not_run_with_a_reason():
    checks = by_name(judge_fidelity(fidelity(stability=None, overlap_at_k=None), Policy()))
    assert checks["stability"].verdict == checks["overlap@10"].verdict == "not_run"
    assert "fewer than 20 documents" in checks["overlap@10"].reason
    assert exit_code(combine(checks.values())) is ExitCode.INCONCLUSIVE


def test_another_k_than_the_policys_is_refused():
    with pytest.raises(StepError, match=r"k = 5.*k = 10"):
        judge_fidelity(fidelity(k=5), Policy())


def recall(reference, difference):
    metric = LabelMetric(
        name="recall@10",
        reference=reference,
        candidate=reference + difference.value,
        difference=difference,
    )
    checks = judge_fidelity(fidelity(labels=(metric,)), Policy(min_recall=0.98))
    return by_name(checks)["recall@10"]


def test_recall_on_labels_is_the_share_of_fp32s_own():
    kept = recall(0.5, estimate(-0.001, -0.003, 0.001, 3000))
    assert kept.verdict == "pass"
    assert kept.value == pytest.approx(0.998)
    assert kept.interval.low == pytest.approx(0.994)
    assert recall(0.5, estimate(-0.05, -0.06, -0.04)).verdict == "fail"
    assert recall(0.5, estimate(-0.01, -0.03, 0.01)).verdict == "inconclusive"
    assert recall(0.0, estimate(0.0, 0.0, 0.0)).verdict == "not_run"


def test_a_few_queries_without_loss_do_not_certify_recall():
    assert recall(0.5, estimate(0.0, 0.0, 0.0, 20)).verdict == "inconclusive"


def test_recall_without_labels_is_not_run():
    checks = by_name(judge_fidelity(fidelity(), Policy(min_recall=0.98)))
    assert checks["recall@10"].verdict == "not_run"
    assert "recall@10" not in by_name(judge_fidelity(fidelity(), Policy()))


def test_finite_may_be_switched_off():
    assert "finite" not in by_name(judge_fidelity(fidelity(), Policy(require_finite=False)))


def test_embeddings_that_cannot_be_compared_fail_the_gate():
    error = NonFiniteError("candidate queries: row 3 is not usable", why="it has NaN")
    check = judge_non_finite(error)
    assert (check.name, check.verdict) == ("finite", "fail")
    assert "row 3" in check.reason
    assert "NaN" in check.reason


def test_size_is_judged_only_against_a_limit():
    assert judge_size(10**9, Policy()) == ()
    (fits,) = judge_size(100, Policy(max_size_bytes=100))
    (too_big,) = judge_size(101, Policy(max_size_bytes=100))
    assert (fits.verdict, too_big.verdict) == ("pass", "fail")


@pytest.mark.parametrize(
    ("verdicts", "whole"),
    [
        (["pass", "pass"], "pass"),
        (["pass", "not_run"], "not_run"),
        (["not_run", "inconclusive", "pass"], "inconclusive"),
        (["inconclusive", "fail", "not_run"], "fail"),
        ([], "not_run"),
    ],
)
def test_the_worst_check_decides(verdicts, whole):
    assert combine(made(verdict) for verdict in verdicts) == whole


def test_harmless_names_excuse_only_what_was_not_run():
    checks = [made("pass"), made("not_run", "speedup")]
    assert combine(checks) == "not_run"
    assert combine(checks, {"speedup"}) == "pass"
    assert combine([made("pass"), made("fail", "speedup")], {"speedup"}) == "fail"
    assert combine([made("not_run", "speedup")], {"speedup"}) == "not_run"


def test_exit_codes():
    assert exit_code("pass") is ExitCode.PASS
    assert exit_code("fail") is ExitCode.GATE_FAILED
    assert exit_code("inconclusive") is ExitCode.INCONCLUSIVE
    assert exit_code("not_run") is ExitCode.INCONCLUSIVE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_overlap_at_k", 95.0),
        ("min_mean_cosine", float("nan")),
        ("min_recall", -0.1),
        ("k", 0),
        ("min_speedup", float("inf")),
        ("max_size_bytes", 0),
    ],
)
def test_a_threshold_out_of_range_is_refused(name, value):
    with pytest.raises(ConfigError, match=name) as caught:
        Policy(**{name: value})
    assert caught.value.exit_code is ExitCode.USAGE
