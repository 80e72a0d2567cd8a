"""How this process shares its cores with the libraries and processes it starts."""

from __future__ import annotations

import gc
import os

_BLAS_WAITS = "OPENBLAS_THREAD_TIMEOUT"
_COLLECT_AFTER = (100_000, 20, 100)


def share_cores() -> None:
    """Set up what every process of a run wants; to be called before numpy is imported.

    Threads of OpenBLAS spin for some 2**26 clock cycles after each product, on cores that the
    runtime next to them needs: 2**4 are enough (exponents of `openblas_read_env`, OpenBLAS 0.3).
    Tracing makes a million objects that all stay alive; searching them for cycles as often as
    Python does by default takes a tenth of loading and exporting a model.

    What the user has set in the environment stands.
    """
    os.environ.setdefault(_BLAS_WAITS, "4")
    gc.set_threshold(*_COLLECT_AFTER)
