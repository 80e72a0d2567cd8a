"""What every step shares: settings, cache, reporter, and what was done when."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock

from exporter.config import Settings
from exporter.deliver.cache import Cache, key_of
from exporter.optimize.budget import WorkClock
from exporter.progress import Reporter
from targets.contract import Progress
from targets.hashing import sha256_file, sha256_json


@cache
def code_fingerprint() -> str:
    """Hash this program's own sources: other code must not find this code's results."""
    root = Path(__file__).parents[2]
    files = sorted([*root.glob("exporter/**/*.py"), *root.glob("targets/**/*.py")])
    return sha256_json([(str(f.relative_to(root)), sha256_file(f)) for f in files])


def tool_versions(distributions: Iterable[str]) -> dict[str, str]:
    """Return the installed versions of distributions; those not installed are left out."""
    found = {}
    for name in distributions:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@dataclass(slots=True, kw_only=True)
class Workspace:
    """One run's surroundings. The only mutable thing that travels: it keeps the log.

    `device_builds` is held by whoever builds on a device: builders time what they try there.
    """

    settings: Settings
    cache: Cache
    reporter: Reporter
    stage_s: dict[str, float] = field(default_factory=dict)
    made_utc: dict[str, str] = field(default_factory=dict)
    work_clock: WorkClock = field(default_factory=WorkClock)
    device_builds: Lock = field(default_factory=Lock)

    @contextmanager
    def step(self, stage: str, title: str) -> Iterator[Progress]:
        """Report a step and keep how long it took."""
        started_s = time.monotonic()
        with self.work_clock.running(), self.reporter.step(title) as progress:
            yield progress
        took_s = time.monotonic() - started_s
        self.stage_s[stage] = self.stage_s.get(stage, 0.0) + took_s

    def cached(
        self,
        stage: str,
        title: str,
        parts: tuple[object, ...],
        build: Callable[[Path, Progress], None],
    ) -> Path:
        """Return the cache entry of a stage, built now unless the same was built before.

        Args:
            stage: name of the stage; also the log's.
            title: what the reporter shows while it is built.
            parts: everything the result depends on (the program's own code is added).
            build: writes the result into the empty folder that it is given.
        """
        key = _key_of(parts)
        found = self.cache.entry(stage, key)
        if found is not None:
            self.made_utc[title] = self.cache.created_utc(found)
            return found
        with self.step(stage, title) as progress:
            return self.cache.build(stage, key, lambda folder: build(folder, progress))

    def lacks(self, stage: str, parts: tuple[object, ...]) -> bool:
        """Say whether `cached` would have to build the entry; arguments as there."""
        return self.cache.entry(stage, _key_of(parts)) is None


def _key_of(parts: tuple[object, ...]) -> str:
    return key_of(code_fingerprint(), *parts)
