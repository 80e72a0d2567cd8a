"""Entry point of the program on the device: `python runner.pyz --num-threads N`.

Needs Python and numpy. Only the standard library is imported before the threads are
limited, because numpy and runtimes size their thread pools when they are imported.
"""

from __future__ import annotations

import argparse
import faulthandler
import functools
import os
import signal
from pathlib import Path

from .channel import Channel, leave_at_once, take_standard_streams
from .machine import limit_threads


def main() -> int:
    """Serve one caller until it says `exit` or disappears."""
    arguments = _parser().parse_args()
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # 1.32 has a collector built in
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to act on
    faulthandler.enable()
    commands, answers = take_standard_streams()
    facts, warnings = limit_threads(arguments.num_threads, pin=not arguments.unpinned)
    channel = Channel(commands, answers, functools.partial(leave_at_once, arguments.scratch))
    from .server import Server

    Server(channel, arguments.num_threads, facts, warnings).serve()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="runner.pyz", description=__doc__)
    parser.add_argument("--num-threads", type=int, required=True, help="CPU threads and CPUs")
    parser.add_argument("--unpinned", action="store_true", help="let the system choose the CPUs")
    parser.add_argument(
        "--scratch", type=Path, help="folder to remove when the caller disappears without `exit`"
    )
    return parser
