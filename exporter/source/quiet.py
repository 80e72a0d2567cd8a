"""Third parties kept from the terminal, with what they said kept for us."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Libraries that log to the terminal while they load or export a model.
_LIBRARIES = (
    "transformers",
    "sentence_transformers",
    "optimum",
    "huggingface_hub",
    "torch.onnx",
    "torch.export",
    # imported by Transformers where it is installed; says which CUDA extensions are not here
    "torchao",
    "torch.utils._pytree",
    "onnxscript",
    "onnx_ir",
)


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Silence logs, warnings and progress bars of the model libraries.

    Yields what they logged at warning level or above, so that the caller can still judge it.
    The warnings are other libraries' business with each other (deprecations inside
    Transformers, Optimum and torch's exporter); what matters to us is checked by parity.
    """
    collector = _Collector()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _import_noisy_libraries()
        loggers = [logging.getLogger(name) for name in _LIBRARIES]
        before = [(lg, lg.handlers, lg.level, lg.propagate) for lg in loggers]
        bars_shown = _hide_progress_bars()
        for logger in loggers:
            logger.handlers, logger.propagate = [collector], False
            logger.setLevel(logging.WARNING)
        try:
            yield collector.messages
        finally:
            for logger, handlers, level, propagate in before:
                logger.handlers, logger.propagate = handlers, propagate
                logger.setLevel(level)
            _restore_progress_bars(bars_shown)


def _import_noisy_libraries() -> None:
    """Import them first: their loggers take their handlers when they are imported."""
    import transformers.utils.logging  # noqa: F401


def _hide_progress_bars() -> bool:
    from transformers.utils import logging as transformers_logging

    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    return bool(shown)


def _restore_progress_bars(shown: bool) -> None:
    from transformers.utils import logging as transformers_logging

    if shown:
        transformers_logging.enable_progress_bar()
