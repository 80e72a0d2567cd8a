"""Loading a runtime's adapter by path, and holding it to its promises.

An adapter is one Python file that imports numpy and one runtime and defines
`open_session(model: Path, plan: SessionPlan) -> Session`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .batches import KNOWN_INPUTS
from .plan import ExecutedRow, Inputs, RunnerFailure, Session, SessionPlan

RunMany = Callable[[list[Inputs]], list[NDArray[np.float32]]]


@contextmanager
def adapter_errors(doing: str) -> Iterator[None]:
    """Turn whatever an adapter or its runtime raises into a `RunnerFailure` by name.

    An adapter's own exception may have an attribute `lacks`: the tool that the device does not
    have, and without which it could not do what the plan asks for.
    """
    try:
        yield
    except RunnerFailure:
        raise
    except MemoryError as error:
        raise RunnerFailure("memory", f"out of memory while {doing}: {error}") from error
    except ImportError as error:
        package = (error.name or "").split(".")[0]
        raise RunnerFailure("import", f"{package or 'a package'}: {error}", package) from error
    except Exception as error:  # a runtime may raise anything
        said = str(error).strip()
        if lacks := str(getattr(error, "lacks", "")):
            raise RunnerFailure("lacks", said, lacks) from error
        message = f"{type(error).__name__} while {doing}: {said}"
        raise RunnerFailure("adapter", message) from error


def open_checked_session(plan: SessionPlan) -> CheckedSession:
    """Load the adapter and let it open the model.

    Raises:
        RunnerFailure: "missing_file", "import", "memory", "command" for graph inputs that
            nobody can feed, or "adapter" for everything else.
    """
    if unknown := [name for name in plan.inputs if name not in KNOWN_INPUTS]:
        raise RunnerFailure("command", f"the graph's inputs {unknown} cannot be fed from token ids")
    for path in (plan.adapter, plan.model):
        if not path.is_file():
            raise RunnerFailure("missing_file", f"no file {path}", str(path))
    with adapter_errors(f"loading {plan.model.name}"):
        return CheckedSession(_find_open_session(plan.adapter)(plan.model, plan), plan)


def _find_open_session(path: Path) -> Callable[[Path, SessionPlan], Session]:
    spec = importlib.util.spec_from_file_location("runtime_adapter", path)
    if spec is None or spec.loader is None:
        raise RunnerFailure("adapter", f"{path.name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    open_session: Any = getattr(module, "open_session", None)
    if not callable(open_session):
        raise RunnerFailure("adapter", f"{path.name} defines no open_session(model, plan)")
    found: Callable[[Path, SessionPlan], Session] = open_session
    return found


class CheckedSession:
    """A session whose answers are checked; the run methods are left bare for the clock.

    `run_many` is None where the session embeds one batch at a time.
    """

    def __init__(self, session: Session, plan: SessionPlan) -> None:
        self._session = session
        self._plan = plan
        self.run = session.run
        self.run_many: RunMany | None = getattr(session, "run_many", None)

    def embed(self, inputs: Inputs) -> NDArray[np.float32]:
        """Run one batch.

        Raises:
            RunnerFailure: "shape" if the result is not float32 [batch, embedding_dim].
        """
        with adapter_errors("embedding a batch"):
            rows = self._session.run(inputs)
        return self._checked(rows, inputs)

    def embed_many(self, batches: list[Inputs]) -> list[NDArray[np.float32]]:
        """Run several batches, at once where the session can.

        Raises:
            RunnerFailure: "shape" as `embed`, or if there are not as many results as batches.
        """
        if self.run_many is None:
            return [self.embed(inputs) for inputs in batches]
        with adapter_errors("embedding batches at once"):
            results = list(self.run_many(batches))
        if len(results) != len(batches):
            found = f"{len(results)} results of {len(batches)} batches"
            raise RunnerFailure("shape", f"the adapter returned {found}")
        return [self._checked(*pair) for pair in zip(results, batches, strict=True)]

    def _checked(self, rows: NDArray[np.float32], inputs: Inputs) -> NDArray[np.float32]:
        batch_size = next(iter(inputs.values())).shape[0]
        expected = (batch_size, self._plan.embedding_dim)
        if getattr(rows, "shape", None) != expected or rows.dtype != np.float32:
            found = f"{getattr(rows, 'dtype', type(rows))} {getattr(rows, 'shape', '')}"
            raise RunnerFailure(
                "shape",
                f"output {self._plan.output!r} is {found}, expected float32 {expected}",
            )
        return rows

    def inspect(self, inputs: Inputs) -> list[ExecutedRow]:
        """Ask the runtime what it executed."""
        with adapter_errors("inspecting the compiled model"):
            return self._session.inspect(inputs)

    def versions(self) -> dict[str, str]:
        """Return the runtime's package versions."""
        with adapter_errors("reading versions"):
            return self._session.versions()

    def options(self) -> dict[str, str]:
        """Return the effective runtime options."""
        with adapter_errors("reading options"):
            return self._session.options()

    def option_warnings(self) -> tuple[str, ...]:
        """Name every option that the runtime did not take as asked."""
        asked, effective = self._plan.options, self.options()
        return tuple(
            f"{name}={asked[name]} was asked for, the runtime uses {effective[name]}"
            for name in sorted(asked.keys() & effective.keys())
            if asked[name].casefold() != effective[name].casefold()
        )

    def close(self) -> None:
        """Close the session."""
        with adapter_errors("closing the session"):
            self._session.close()
