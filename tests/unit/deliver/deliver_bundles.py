"""Bundles whose reports are made up, and whose manifests are true."""

from __future__ import annotations

from pathlib import Path

from deliver_records import RECORD

from exporter.deliver.bundle import BundleWriter
from exporter.deliver.manifest import facts_of
from exporter.deliver.report import Report, write_report


def write_bundle(report: Report, folder: Path) -> Path:
    with BundleWriter(folder) as writer:
        writer.add_bytes(b"graph", "onnx/model.onnx")
        write_report(report, writer.directory / "reports")
        writer.commit(facts_of(RECORD))
    return folder
