"""What PyTorch as a target is made of, imported on use and without its chatter."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata, util
from typing import Any

from targets.errors import NotInstalledError

EXTRA = "torch"
INSTALL = f"pip install 'embedding-exporter[{EXTRA}]'"

RUNTIME = ("torch", "transformers", "safetensors")
"""Distributions that every artifact needs."""
TORCHAO, BITSANDBYTES = ("torchao",), ("bitsandbytes", "accelerate")
"""Distributions that quantizers need besides (Transformers loads bitsandbytes with accelerate)."""


def import_torch() -> Any:  # noqa: ANN401 - torch is untyped here
    """Import torch.

    Raises:
        NotInstalledError: it is missing or broken.
    """
    return _import("torch")


def import_transformers() -> Any:  # noqa: ANN401 - transformers is untyped here
    """Import Transformers.

    Raises:
        NotInstalledError: it is missing or broken.
    """
    return _import("transformers")


def import_torchao() -> Any:  # noqa: ANN401 - torchao is untyped here
    """Import torchao's quantization package.

    Raises:
        NotInstalledError: it is missing or broken.
    """
    return _import("torchao.quantization")


def lacking(distributions: tuple[str, ...]) -> tuple[str, ...]:
    """Return those that are not installed, without importing any."""
    return tuple(name for name in distributions if util.find_spec(name) is None)


def lacks_cuda() -> str:
    """Say what mends a torch that was built without CUDA, without importing it; "": it has it."""
    found = metadata.version("torch")
    if not found.endswith("+cpu"):
        return ""
    return f"torch {found} is built for CPUs: install the build for CUDA from pytorch.org"


def versions() -> dict[str, str]:
    """Return the versions of everything that takes part, as far as it is installed."""
    found = {}
    for name in (*RUNTIME, *TORCHAO, *BITSANDBYTES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Keep logs, warnings and progress bars of the libraries off the terminal.

    torchao logs every CUDA extension that a CPU build of torch cannot load; what matters of a
    model's loading is checked afterwards, layer by layer.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from transformers.utils import logging as transformers_logging

            shown = transformers_logging.is_progress_bar_enabled()
            transformers_logging.disable_progress_bar()
            try:
                yield
            finally:
                if shown:
                    transformers_logging.enable_progress_bar()
    finally:
        logging.disable(before)


def first_line(error: Exception) -> str:
    """Return the first line of a library's message that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))


def _import(module: str) -> Any:  # noqa: ANN401
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise NotInstalledError(
            f"{package} cannot be imported", why=str(error), hint=INSTALL
        ) from error
