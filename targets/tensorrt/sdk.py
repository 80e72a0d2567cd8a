"""Import of TensorRT's modules on use, and what to install where they are missing."""

from __future__ import annotations

import importlib
import importlib.util
from importlib import metadata
from typing import Any

from targets.errors import NotInstalledError

TENSORRT, RTX = "tensorrt", "tensorrt-rtx"
RTX_DISTRIBUTIONS = ("tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu13-bindings")
INSTALL_TENSORRT = (
    "pip install tensorrt-cu13 (11) or 'tensorrt-cu12<11' (10), from the package index that "
    "NVIDIA's installation guide names"
)
INSTALL_CUDA = f"pip install 'embedding-exporter[{TENSORRT}]'"
INSTALL_RTX = f"pip install 'embedding-exporter[{RTX}]'"


def import_tensorrt() -> Any:  # noqa: ANN401 - untyped
    """Import TensorRT, 10 or 11.

    Raises:
        NotInstalledError: it is missing or broken.
    """
    return _import(TENSORRT, INSTALL_TENSORRT)


def import_rtx() -> Any:  # noqa: ANN401 - untyped
    """Import TensorRT for RTX: the whole distribution, or its bindings beside its libraries.

    Raises:
        NotInstalledError: it is missing or broken.
    """
    try:
        return _import("tensorrt_rtx", INSTALL_RTX)
    except NotInstalledError:
        return _import("tensorrt_rtx_bindings", INSTALL_RTX)


def lacks_cuda_package() -> tuple[str, ...]:
    """Say what is missing to speak to CUDA; the session takes one of two packages."""
    if any(_is_there(name) for name in ("cuda.bindings", "pycuda")):
        return ()
    return (f"cuda-bindings is not installed: {INSTALL_CUDA}",)


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:  # the package around it is missing
        return False


def rtx_versions() -> dict[str, str]:
    """Return the versions of TensorRT for RTX, if it is installed."""
    return _versions(("tensorrt-rtx", *RTX_DISTRIBUTIONS))


def tensorrt_versions() -> dict[str, str]:
    """Return the versions of TensorRT, if it is installed."""
    return _versions(("tensorrt", "tensorrt-cu13", "tensorrt-cu12"))


def _import(name: str, install: str) -> Any:  # noqa: ANN401
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: a library that it loads is missing
        raise NotInstalledError(
            f"{name} cannot be imported", why=str(error), hint=install
        ) from error


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def rtx_source(module: Any) -> str:  # noqa: ANN401
    """Name the compiler that needs no GPU."""
    return f"TensorRT for RTX {module.__version__}, built without a GPU"
