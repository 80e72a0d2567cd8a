"""The verdict in one sentence, the checks in the field's words, and what must be noted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from exporter.deliver.report.document import MISSING, Report, TargetSection
from exporter.deliver.report.figures import (
    check_threshold,
    check_value,
    cosine,
    interval,
    percent,
    ratio,
    ratio_estimate,
)
from exporter.deliver.report.text import name, one_line
from exporter.values import Latency, TextsSummary
from targets.contract import Check, Verdict

VERDICT_WORDS: dict[Verdict, str] = {
    "pass": "PASS",
    "fail": "FAIL",
    "inconclusive": "INCONCLUSIVE",
    "not_run": "NOT RUN",
}
VERDICT_SYMBOLS: dict[Verdict, str] = {
    "pass": "✓",
    "fail": "✗",
    "inconclusive": "?",
    "not_run": "–",
}
FRONT_SYMBOL = "◆"
FRONT_MEANING = "on the Pareto front: nothing judged is as fast and as close to FP32"
_WORST_FIRST: tuple[Verdict, ...] = ("fail", "inconclusive", "not_run")
_SPEEDUP = "speedup"
STATUS = "status"
"""The gate's check that an artifact was verified on its device at all."""
SIMULATED = "simulated: the same graph on this machine's CPU, with other kernels than the device's"
"""What stands beside fidelity that no device has given."""

# What each check of the policy asks, for readers who do not know its name.
_QUESTIONS = {
    "finite": "all embeddings finite",
    "mean_cosine": "mean cosine with FP32",
    "p1_cosine": "cosine of the worst 1 % of texts",
    "stability": "same text, other company: lowest cosine",
    "speedup": "speed over FP32 on mixed lengths",
    "precision": "linear operations in the claimed precision",
    "int8_gain": "speed of int8 over the best float",
    "size": "size of the artifact",
}


def question(check: Check) -> str:
    """Say what a check asks; its name where it is not one of the known ones."""
    if check.name.startswith("overlap@"):
        return f"FP32's own {check.name.removeprefix('overlap@')} nearest neighbours kept"
    if check.name.startswith("recall@"):
        return f"FP32's {check.name} on labels kept"
    return _QUESTIONS.get(check.name, check.name)


def sentence(report: Report) -> str:
    """Say the verdict's reason in one sentence, without the verdict itself."""
    if len(report.targets) == 1:
        return target_sentence(report.targets[0], report.verdict)
    if not report.targets:
        return "there was no target to export to"
    verdicts = [target_verdict(target) for target in report.targets]
    passed = f"{verdicts.count('pass')} of {len(verdicts)} targets pass"
    if report.verdict == "pass":
        return f"all {len(verdicts)} targets pass"
    worst = worst_of(verdicts)
    return f"{passed}; {target_sentence(report.targets[verdicts.index(worst)])}"


def target_verdict(target: TargetSection) -> Verdict:
    """Return the worst of a target's checks, or what its status alone says.

    A gate has made a check of the status, which a waiver may have let pass.
    """
    if target.status != "verified" and find_check(target, STATUS) is None:
        return "fail" if target.status in ("failed", MISSING) else "not_run"
    return worst_of([check.verdict for check in target.checks])


def worst_of(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the worst of several verdicts; none at all is `not_run`."""
    if not verdicts:
        return "not_run"
    return next((verdict for verdict in _WORST_FIRST if verdict in verdicts), "pass")


def target_sentence(target: TargetSection, verdict: Verdict | None = None) -> str:
    """Say in one sentence what became of a target; `verdict` where the run knows better."""
    place = place_name(target)
    if target.recipe is None or target.status in ("failed", "not_run", MISSING):
        became = {"failed": "failed", MISSING: "is missing"}.get(target.status, "was not run")
        return f"{place} {became}: {one_line(target.reason) or 'no reason was given'}"
    artifact = f"{name(target.recipe.name)} for {place}"
    if target.status == "prepared":
        return f"{artifact} is prepared but not measured: {one_line(target.reason)}"
    verdict = verdict or target_verdict(target)
    if verdict == "pass":
        return f"{artifact} {_promise(target)}"
    return f"{artifact} {_shortfall(target, verdict)}"


def place_name(target: TargetSection) -> str:
    """Name target and device, with what the device is, where that is known."""
    place = f"{name(target.target)} on {name(target.device)}"
    model_name = target.hardware.model_name if target.hardware else ""
    return f"{place} ({name(model_name)})" if model_name else place


def is_baseline(target: TargetSection) -> bool:
    """Say whether a target's artifact is FP32 itself."""
    return target.recipe is not None and target.recipe.precision == "float32"


def _promise(target: TargetSection) -> str:
    if is_baseline(target):
        return "is FP32 itself: no loss, and no gain in speed"
    speed, kept = _speed(target), _kept(target)
    return " and ".join(part for part in (speed, kept) if part) or "keeps every promise"


def _speed(target: TargetSection) -> str:
    check = find_check(target, _SPEEDUP)
    if check is None or check.value is None:
        return ""
    return f"runs {ratio(check.value)} {interval(check.interval, 2)} as fast as FP32"


def _kept(target: TargetSection) -> str:
    fidelity = target.fidelity
    if fidelity is None:
        return ""
    if fidelity.overlap_at_k is not None:
        return f"keeps {percent(fidelity.overlap_at_k.value)} of the neighbours"
    return f"keeps a mean cosine of {cosine(fidelity.mean_cosine.value)}"


def _shortfall(target: TargetSection, verdict: Verdict) -> str:
    checks = [check for check in target.checks if check.verdict == verdict]
    if not checks:
        return "was not judged: no check was made"
    if verdict == "fail":
        return f"misses {len(checks)} of {len(target.checks)} promises: {_misses(checks)}"
    cannot = "cannot be decided" if verdict == "inconclusive" else "is not fully judged"
    return f"{cannot}: {'; '.join(f'{check.name}: {one_line(check.reason)}' for check in checks)}"


def _misses(checks: list[Check]) -> str:
    return ", ".join(
        f"{check.name} {check_value(check)} (asked: {check_threshold(check)})"
        if check.value is not None and check.threshold is not None
        else f"{check.name} ({one_line(check.reason)})"
        for check in checks
    )


def find_check(target: TargetSection, name: str) -> Check | None:
    """Return the check of that name, if it is there."""
    return next((check for check in target.checks if check.name == name), None)


def open_checks(target: TargetSection) -> list[Check]:
    """Return the checks that did not pass."""
    return [check for check in target.checks if check.verdict != "pass"]


def is_mix(latency: Latency) -> bool:
    """Say whether a workload is a mix of real lengths and not one shape ("8x128")."""
    batch, _, length = latency.workload.partition("x")
    return not (batch.isdigit() and length.isdigit())


def mix_names(latencies: list[tuple[Latency, ...] | None]) -> list[str]:
    """Name every mix that was timed, in the order of first appearance."""
    names = [one.workload for latency in latencies for one in latency or () if is_mix(one)]
    return list(dict.fromkeys(names))


def speed_on_mixes(target: TargetSection) -> list[str]:
    """Write each mix's speed-up with its interval, one line a mix."""
    return [
        f"{one.workload} runs {ratio_estimate(one.speedup)} as fast as FP32"
        for one in target.latency or ()
        if is_mix(one) and one.speedup
    ]


# ------------------------------------------------------------------------------- notes


def notes(report: Report) -> list[str]:
    """Gather everything a reader must know before relying on the figures."""
    about = [
        f"{kind} texts ({texts.name}): {texts.note}"
        for kind, texts in text_sets(report)
        if texts.note
    ]
    return [*about, *warnings(report)]


def warnings(report: Report) -> list[str]:
    """Gather what is out of the ordinary, without the descriptions of the text sets."""
    return [*_model_notes(report), *_texts_cut(report), *_target_notes(report)]


def _model_notes(report: Report) -> Iterator[str]:
    if report.model.trust_remote_code:
        yield "remote code of the model was run (trust_remote_code is on)"
    yield from report.model.warnings


def _texts_cut(report: Report) -> Iterator[str]:
    for kind, texts in text_sets(report):
        if texts.num_truncated:
            limit = report.model.max_seq_length
            yield (
                f"{kind} texts ({texts.name}): {texts.num_truncated} of {texts.num_texts} "
                f"were cut at the model's limit of {limit} tokens"
            )


def _target_notes(report: Report) -> Iterator[str]:
    for target in report.targets:
        runner = target.runner
        for warning in runner.warnings if runner else ():
            yield f"{target.target} on {target.device}: {warning}"


def text_sets(report: Report) -> list[tuple[str, TextsSummary]]:
    """Return every text set with what it was used for; of merged reports each different one."""
    chose = [one.development for one in report.sources] or [report.evaluation.development]
    calibrated = [one.calibration for one in report.sources] or [report.calibration]
    return [
        *(("development", one) for one in _different(chose)),
        ("test", report.evaluation.test),
        *(("calibration", one) for one in _different(calibrated)),
        *(("workload", one) for one in _different([report.workload])),
    ]


def _different(texts: Sequence[TextsSummary | None]) -> list[TextsSummary]:
    return list({one.sha256: one for one in texts if one is not None}.values())
