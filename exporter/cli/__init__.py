"""The command line: prints and returns exit codes, decides nothing."""

from __future__ import annotations


def main() -> None:
    """Run `exporter COMMAND …` and exit with its code."""
    from exporter.cli.app import run

    raise SystemExit(run())


def main_export() -> None:
    """Run `export …`, short for `exporter export …`, and exit with its code."""
    from exporter.cli.app import run

    raise SystemExit(run(default_command="export"))
