"""Imports of OpenVINO and NNCF on use, without their usage reports and without their chatter."""

from __future__ import annotations

import importlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata, util
from typing import Any

from targets.errors import NotInstalledError

EXTRA = "openvino"
INSTALL = f"pip install 'embedding-exporter[{EXTRA}]'"


def import_openvino() -> Any:  # noqa: ANN401 - openvino is untyped
    """Import OpenVINO.

    Raises:
        NotInstalledError: it is missing or broken.
    """
    return _import("openvino")


def import_nncf() -> Any:  # noqa: ANN401 - nncf is untyped
    """Import NNCF (seconds: it takes torch along).

    Raises:
        NotInstalledError: it is missing or broken.
    """
    with quiet():
        return _import("nncf")


def is_installed(package: str) -> bool:
    """Say whether a package is there, without importing it."""
    return util.find_spec(package) is not None


def versions() -> dict[str, str]:
    """Return the versions of OpenVINO and NNCF, as far as they are installed."""
    found = {}
    for package in ("openvino", "nncf"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Keep NNCF's log lines, progress bars and its libraries' warnings off the terminal.

    NNCF logs to stdout through a logger of its own and draws with rich's global console.
    """
    import rich

    logger, console = logging.getLogger("nncf"), rich.get_console()
    level, console_state = logger.level, dict(vars(console))
    rich.reconfigure(file=io.StringIO(), quiet=True)
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        console.__dict__ = console_state


def _import(package: str) -> Any:  # noqa: ANN401
    _silence_telemetry()
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise NotInstalledError(
            f"{package} cannot be imported", why=str(error), hint=INSTALL
        ) from error


def _silence_telemetry() -> None:
    """Keep both packages from reporting what they do to a web service.

    They do so unless the user opted out; a module that is None cannot be imported, and then
    both fall back to silent stubs (`openvino/tools/ovc/telemetry_utils.py`,
    `nncf/telemetry/wrapper.py`).
    """
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)
