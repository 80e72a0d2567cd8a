"""How files reach a runner and come back: on this machine they are simply there."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class RunnerFiles(Protocol):
    """The way between this machine's files and those that a runner can open.

    What a method returns as text is a path on the runner's machine.
    """

    def install(
        self, path: Path, *, with_siblings: bool = False, parts: tuple[str, ...] = ()
    ) -> str:
        """Make a file available that others may use again.

        Args:
            path: the file; links stay links, because a model finds its weights beside it.
            with_siblings: the other files of its folder are needed beside it.
            parts: names of the files of its folder that are needed beside it.
        """

    def put(self, path: Path) -> str:
        """Make a file of this one runner available."""

    def place(self, name: str) -> str:
        """Say where the runner shall write a result of that name."""

    def fetch(self, place: str) -> Path:
        """Bring a result here; the caller removes it."""

    def close(self) -> None:
        """Remove what belonged to this one runner; never raises."""


class SameMachine:
    """Files of a runner that sees this machine's file system.

    Args:
        scratch: the folder of this runner's own files.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch

    def install(
        self, path: Path, *, with_siblings: bool = False, parts: tuple[str, ...] = ()
    ) -> str:
        """Name the file; its siblings are beside it."""
        return str(path.absolute())

    def put(self, path: Path) -> str:
        """Name the file."""
        return str(path)

    def place(self, name: str) -> str:
        """Name a file of the scratch folder."""
        return str(self._scratch / name)

    def fetch(self, place: str) -> Path:
        """Return the file itself."""
        return Path(place)

    def close(self) -> None:
        """Leave everything to the owner of the scratch folder."""
