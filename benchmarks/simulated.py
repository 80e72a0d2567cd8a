"""Fidelity of prepared bundles, gathered from their reports into one raw file.

    python -m benchmarks.simulated BUNDLE… -o benchmarks/results/tensorrt-simulated.json

Nothing is measured here: every figure is in the report of a bundle that `exporter export` wrote,
and the manifest of each is checked first. Folders are left out of commands and origins.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from exporter.deliver.codec import to_plain
from exporter.deliver.report.document import Report, TargetSection
from exporter.steps.recorded import read_recorded

SCHEMA_VERSION = 1
_CHECKS = ("finite", "mean_cosine", "p1_cosine", "overlap@", "stability", "precision")
_FOLDERS = re.compile(r"(?:/[\w.@-]+)+/(?=[\w.@-])")


def main(arguments: Sequence[str] | None = None) -> None:
    """Gather and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    asked = parser.parse_args(arguments)
    document = {"schema_version": SCHEMA_VERSION, "runs": gather(asked.bundles)}
    asked.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def gather(bundles: Sequence[Path]) -> list[dict[str, Any]]:
    """Return one entry for each simulated target of some bundles.

    Raises:
        StorageError: a bundle is not what its manifest says.
        ValueError: a bundle holds no simulated target.
    """
    entries = []
    for path in bundles:
        report = read_recorded(path).report
        found = [one for one in report.targets if one.numerics == "simulated"]
        if not found:
            raise ValueError(f"{path} holds no simulated target")
        entries += [_entry(report, section) for section in found]
    return entries


def _entry(report: Report, section: TargetSection) -> dict[str, Any]:
    fidelity = section.fidelity
    if fidelity is None:
        raise ValueError(f"{section.target} was not judged")
    test = report.evaluation.test
    return {
        "command": _FOLDERS.sub("", report.provenance.command),
        "target": section.target,
        "recipe": to_plain(section.recipe),
        "artifact_sha256": section.artifact.sha256 if section.artifact else None,
        "executed_precisions": to_plain(section.executed_precisions),
        "evaluation": {
            "name": test.name,
            "sha256": test.sha256,
            "num_queries": test.num_queries,
            "num_documents": test.num_documents,
            "num_truncated": test.num_truncated,
            "max_tokens": test.max_tokens,
        },
        "min_cosine": fidelity.min_cosine,
        "checks": [to_plain(one) for one in section.checks if one.name.startswith(_CHECKS)],
        "labels": to_plain(fidelity.labels),
        "attention_ranges": to_plain(
            section.quantization.attention if section.quantization else ()
        ),
        "tool_versions": to_plain(section.tool_versions),
    }


if __name__ == "__main__":
    main()
