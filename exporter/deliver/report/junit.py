"""`junit.xml`: one suite for each target on each device, one case for each check.

What was not run and what could not be decided are skipped cases with the reason, and failures
where the run's own exit code says that they do not pass.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET

from exporter.deliver.report import figures
from exporter.deliver.report.document import MISSING, Report, TargetSection
from exporter.deliver.report.headline import question, target_sentence
from exporter.deliver.report.text import one_line, visible
from targets.contract import Check

REPORT_JUNIT = "junit.xml"


def to_junit(report: Report) -> str:
    """Render the checks of all targets."""
    root = ET.Element("testsuites", name=_text(report.model.id))
    for target in report.targets:
        root.append(_suite(target))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _suite(target: TargetSection) -> ET.Element:
    name = f"{target.target} on {target.device}"
    cases = [_case(check, name) for check in target.checks] or [_whole(target, name)]
    suite = ET.Element("testsuite", name=_text(name), tests=str(len(cases)))
    suite.set("failures", str(sum(case.find("failure") is not None for case in cases)))
    suite.set("skipped", str(sum(case.find("skipped") is not None for case in cases)))
    suite.extend(cases)
    return suite


def _case(check: Check, suite: str) -> ET.Element:
    case = ET.Element("testcase", classname=_text(suite), name=_text(question(check)))
    said = one_line(check.reason) or check.verdict
    if check.verdict == "fail":
        value, asked = figures.check_value(check), figures.check_threshold(check)
        ET.SubElement(case, "failure", message=_text(f"{value}, asked {asked}: {said}"))
    elif check.verdict != "pass":
        ET.SubElement(case, "skipped", message=_text(f"{check.verdict}: {said}"))
    return case


def _whole(target: TargetSection, suite: str) -> ET.Element:
    """A target without checks: it failed, is missing, or nobody ran it."""
    case = ET.Element("testcase", classname=_text(suite), name=_text(target.status))
    kind = "failure" if target.status in ("failed", MISSING) else "skipped"
    ET.SubElement(case, kind, message=_text(one_line(target_sentence(target))))
    return case


def _text(text: str) -> str:
    """Leave out what XML cannot hold."""
    return visible(text)
