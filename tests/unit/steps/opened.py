"""Bundles as they are after opening, without any files behind them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from exporter.deliver.report import document_of
from exporter.steps.bundled import OpenBundle
from exporter.values import TextsSummary
from tests.unit.deliver.deliver_records import RECORD

REPORT = document_of(RECORD)
SECTION = REPORT.targets[0]


def opened(path: str = "out", *, sections=(SECTION,), model=None, test=None, dev=None, **settings):
    """A bundle with a report about some targets.

    `test` and `dev` are the hashes of the texts that certified and that chose.
    """
    evaluation = REPORT.evaluation
    if test is not None:
        summary = TextsSummary(name="t", origin="o", sha256=test, num_texts=1)
        chosen = None if dev is None else replace(summary, sha256=dev)
        evaluation = replace(evaluation, test=summary, development=chosen)
    report = replace(
        REPORT,
        targets=tuple(sections),
        model=replace(REPORT.model, **(model or {})),
        evaluation=evaluation,
        provenance=replace(REPORT.provenance, settings=settings),
    )
    return OpenBundle(path=Path(path), source=Path(path), report=report, files=())
