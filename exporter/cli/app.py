"""The command tree, and the one place where an error becomes a message and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import typer

from exporter.cli.build import build
from exporter.cli.calibrate import calibrate
from exporter.cli.check import check
from exporter.cli.ci import ci
from exporter.cli.compare import compare
from exporter.cli.compatibility import compatibility
from exporter.cli.devices import devices
from exporter.cli.encode import encode
from exporter.cli.export import export
from exporter.cli.gate import gate
from exporter.cli.pack import pack, unpack
from exporter.cli.report import report
from exporter.cli.sign import sign
from exporter.cli.targets import targets
from exporter.cli.train_aware import train_aware
from exporter.process import share_cores
from targets.errors import ExitCode, ExporterError

app = typer.Typer(
    help="Export one text-embedding encoder to every device, verified.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(export)
app.command()(build)
app.command()(calibrate)
app.command()(train_aware)
app.command()(targets)
app.command()(check)
app.command()(compatibility)
app.command()(encode)
app.command()(report)
app.command()(gate)
app.command()(compare)
app.command()(pack)
app.command()(unpack)
app.command()(sign)
app.add_typer(devices, name="devices")
app.add_typer(ci, name="ci")


def tool_version() -> str:
    """Return the installed distribution's version, "0+source" when run without one."""
    try:
        return version("embedding-exporter")
    except PackageNotFoundError:
        return "0+source"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"exporter {tool_version()}")
        raise typer.Exit


@app.callback()
def root(
    show_version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Export one text-embedding encoder to every device, verified."""


def run(arguments: Sequence[str] | None = None, *, default_command: str | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: command-line arguments; None: those of this process.
        default_command: command to assume (the `export` script).
    """
    share_cores()
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # 1.32 has a collector built in
    given = list(sys.argv[1:] if arguments is None else arguments)
    if default_command is not None:
        given = [default_command, *given]
    command = typer.main.get_command(app)
    try:
        result = command.main(given, prog_name="exporter", standalone_mode=False)
    except typer.TyperException as error:
        _show_usage(error)
        return int(ExitCode.USAGE)
    except (typer.Abort, KeyboardInterrupt):
        print("interrupted: finished steps are kept, run again to go on", file=sys.stderr)
        return int(ExitCode.INTERRUPTED)
    except BrokenPipeError:
        _silence_stdout()
        return int(ExitCode.STEP_FAILED)
    except ExporterError as error:
        print(f"error [{error.code}]: {error}", file=sys.stderr)
        return int(error.exit_code)
    except Exception:
        traceback.print_exc()
        print("this is a bug in exporter: please report the lines above", file=sys.stderr)
        return int(ExitCode.BUG)
    return int(result or 0)


def _show_usage(error: typer.TyperException) -> None:
    """Print a wrong command line's message as typer words it."""
    show = getattr(error, "show", None)
    if show is None:
        print(error, file=sys.stderr)
    else:
        show()


def _silence_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
