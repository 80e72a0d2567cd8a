"""`exporter compare BASE NEW`: what became worse, beyond the noise?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from exporter.cli.options import JsonOption


def compare(
    base: Annotated[
        Path, typer.Argument(help="Earlier bundle, archive of one, or its report.json.")
    ],
    new: Annotated[Path, typer.Argument(help="New bundle, archive of one, or its report.json.")],
    as_json: JsonOption = False,
) -> int:
    """Compare fidelity, size and, on equal hardware, speed."""
    from exporter.cli.output import print_comparison, print_json
    from exporter.deliver.codec import to_plain
    from exporter.steps.compare import compare_bundles

    found = compare_bundles(base, new)
    if as_json:
        print_json(to_plain(found))
    else:
        print_comparison(found)
    return found.exit_code
