"""Reports rendered for a browser, and a page that has every fault that is looked for."""

from __future__ import annotations

import json
from dataclasses import replace

from unit.deliver.deliver_records import CASES

from exporter.deliver.report import Report, document_of, parse_report, to_html, to_json
from exporter.deliver.report.merge import merge_reports, source_of

ATTACK = "<script>window.owned = 1</script>\"'><img src=x onerror='window.owned = 2'>"
FAULTY = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>faulty</title>
<meta name="viewport" content="width=device-width"><style>p { color: #bbb; }</style></head><body>
<main><h1>faulty</h1><p>too faint</p><img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">
<div style="width: 1500px">too wide</div><div style="overflow: auto; height: 2em">not
<br>reached<br>by<br>keyboard</div><img alt="far" src="http://far.invalid/x.png"></main>
</body></html>"""


def report(name: str) -> Report:
    return parse_report(to_json(document_of(CASES[name])))


def whole() -> Report:
    """Everything that a page can show: sources, a missing device, a waiver, labels, a matrix."""
    first = report("several")
    capped = replace(
        first.targets[2], device="local:avx2", candidates=(), variants=(), quantization=None
    )
    first = replace(first, targets=(*first.targets[:2], capped))
    one = replace(first.targets[0], device="ssh://board")
    board = replace(report("pass"), targets=(one,), compatibility=None, workload=first.workload)
    named = [("out-server", first), ("out-board", board)]
    merged = merge_reports(named, [("onnxruntime-mobile", "emulated:cortex-a72")])
    target = merged.targets[0]
    check = target.checks[0]
    said = "waived until 2030-01-01: the board comes on Monday (was fail)"
    waived = replace(check, reason=said, details={**check.details, "waived": "fail"})
    targets = (replace(target, checks=(waived, *target.checks[1:])), *merged.targets[1:])
    sources = tuple(part for name, made in named for part in source_of(name, made, "5" * 64))
    return replace(merged, targets=targets, sources=sources, compatibility=first.compatibility)


def attacked() -> Report:
    """A report whose every foreign text tries to be an element."""
    document = json.loads(to_json(document_of(CASES["several"])))
    document["model"]["id"] = document["provenance"]["command"] = ATTACK
    for target in document["targets"]:
        target["target"] = target["device"] = target["reason"] = ATTACK
        for check in target["checks"]:
            check["reason"] = ATTACK
        for text in (target["fidelity"] or {"worst": ()})["worst"]:
            text["text"] = ATTACK
            for near in (*text["lost"], *text["gained"]):
                near["text"] = ATTACK
    return parse_report(json.dumps(document).encode())


PAGES = {
    "whole": lambda: to_html(whole()),
    "hostile": lambda: to_html(report("hostile")),
    "crashed": lambda: to_html(report("crashed")),
}
