"""Reports: the JSON document is the record, every other form is rendered from it alone."""

from __future__ import annotations

from pathlib import Path

from exporter.deliver.report.document import (
    REPORT_JSON,
    REPORT_MARKDOWN,
    Report,
    parse_report,
    read_report,
)
from exporter.deliver.report.html import REPORT_HTML, to_html
from exporter.deliver.report.json_report import document_of, section_of, to_json
from exporter.deliver.report.junit import REPORT_JUNIT, to_junit
from exporter.deliver.report.markdown import to_markdown
from exporter.deliver.report.plot import plots_of
from exporter.deliver.report.table import terminal_table
from exporter.deliver.report.table_compatibility import compatibility_table, upgrade_line
from exporter.deliver.storage import storage_errors
from exporter.values import ExportRecord

__all__ = [
    "Report",
    "compatibility_table",
    "document_of",
    "parse_report",
    "plots_of",
    "read_report",
    "section_of",
    "terminal_table",
    "to_html",
    "to_json",
    "to_junit",
    "to_markdown",
    "upgrade_line",
    "write_report",
    "write_reports",
]


def write_reports(record: ExportRecord, directory: Path) -> None:
    """Write `report.json` and all other forms of a run's report into a folder.

    Raises:
        NonFiniteError: a figure is NaN or infinite; names it.
        StorageError: the files cannot be written.
    """
    write_report(document_of(record), directory)


def write_report(document: Report, directory: Path) -> None:
    """Write `report.json` and, from its bytes, all other forms and the plots into a folder.

    Raises:
        NonFiniteError: a figure is NaN or infinite; names it.
        StorageError: the files cannot be written.
    """
    data = to_json(document)
    # Reading it back proves that the document says everything the other forms show.
    report = parse_report(data)
    texts = {
        REPORT_MARKDOWN: to_markdown(report),
        REPORT_HTML: to_html(report),
        REPORT_JUNIT: to_junit(report),
        **plots_of(report),
    }
    with storage_errors("cannot write the reports", directory, remedy="choose another folder"):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / REPORT_JSON).write_bytes(data)
        for name, text in texts.items():
            (directory / name).write_text(text, encoding="utf-8", newline="\n")
