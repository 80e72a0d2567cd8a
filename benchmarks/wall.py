"""`python -m benchmarks.wall`: what the whole `export --target openvino` costs.

Once with an empty cache and several times with a warm one, each as a process of its own.
A fixed piece of arithmetic is timed before and after the cold run: shared machines were seen to run
at two thirds of their pace for minutes, which no other figure tells from a slower program.
Exit code 1 when a budget is exceeded: the cold run, the median of the warm runs, or the
peak resident memory of any single process of any run.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.bundles import DEFAULT_TARGET
from benchmarks.process_tree import Watched, watch
from exporter.deliver.cache import CACHE_VARIABLE
from exporter.deliver.codec import dump_json
from exporter.deliver.report import read_report
from exporter.steps.workspace import tool_versions
from targets.contract import Hardware
from targets.errors import ExitCode, ExporterError, StepError, UsageError

RESULTS = Path(__file__).with_name("results")
COLD_BUDGET_S = 120.0
WARM_BUDGET_S = 5.0
PEAK_BUDGET_BYTES = 2 * 10**9
_FINISHED = (ExitCode.PASS, ExitCode.GATE_FAILED, ExitCode.INCONCLUSIVE)
_TOOLS = ("embedding-exporter", "torch", "transformers", "onnxruntime", "openvino", "nncf")
_KEPT_STDERR_LINES = 20
_ADDITIONS = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One export: what it cost, and what its own report says of its stages.

    `pace_s` is what ten million additions in Python took before and after it.
    """

    cost: Watched
    stage_s: Mapping[str, float]
    stages_from_cache: int
    pace_s: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """What an export may cost."""

    cold_s: float = COLD_BUDGET_S
    warm_s: float = WARM_BUDGET_S
    peak_rss_bytes: int = PEAK_BUDGET_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Wall:
    """The whole document."""

    schema_version: int = 1
    exceeded: tuple[str, ...]
    created_utc: str
    command: str
    export_command: str
    hardware: Hardware
    hardware_fingerprint: str
    tool_versions: Mapping[str, str]
    budgets: Budgets
    cold: Run
    warm: tuple[Run, ...]

    @property
    def line(self) -> str:
        """The result in one line."""
        peak = max(run.cost.peak_rss_bytes for run in (self.cold, *self.warm))
        parts = (
            f"cold {self.cold.cost.wall_s:.1f} s (budget {self.budgets.cold_s:g})",
            f"warm {_median_s(self.warm):.2f} s (budget {self.budgets.warm_s:g})",
            f"peak of any process {peak / 1e9:.2f} GB "
            f"(budget {self.budgets.peak_rss_bytes / 1e9:g})",
            "pace {:.2f} to {:.2f} s".format(*self.cold.pace_s),
        )
        verdict = f"EXCEEDED: {', '.join(self.exceeded)}" if self.exceeded else "within budget"
        return f"{', '.join(parts)}: {verdict}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, save; return the exit code."""
    given = _parser().parse_args(arguments)
    try:
        if given.warm < 1:
            raise UsageError(f"--warm {given.warm} is too few", hint="run it at least once")
        wall = measure(given.warm, given.export_arguments)
    except ExporterError as error:
        print(f"error [{error.code}]: {error}", file=sys.stderr)
        return int(error.exit_code)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_bytes(dump_json(wall, indent=1) + b"\n")
    print(wall.line)
    print(f"saved {given.output}")
    return int(ExitCode.GATE_FAILED if wall.exceeded else ExitCode.PASS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wall", description=__doc__)
    parser.add_argument("--warm", type=int, default=3, help="runs with a warm cache [3]")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "wall.json")
    parser.add_argument("export_arguments", nargs="*", help="more flags for the export, after --")
    return parser


def measure(num_warm: int, more: Sequence[str] = (), budgets: Budgets | None = None) -> Wall:
    """Export once cold and `num_warm` times warm, in a folder and cache of their own.

    Args:
        num_warm: runs with the warm cache, at least one.
        more: further flags of the export.
        budgets: what it may cost; None: this project's promises.

    Raises:
        StepError: an export failed; carries its last lines of stderr.
        UsageError: memory cannot be measured on this system.
    """
    from targets.hardware.detect import detect_hardware

    limits = budgets or Budgets()
    export = ["-m", "exporter", "export", "--target", DEFAULT_TARGET, *more]
    with tempfile.TemporaryDirectory(prefix="export-wall-") as folder:
        cold, *warm = (_export_once(Path(folder), export) for _ in range(1 + num_warm))
    hardware = detect_hardware()
    return Wall(
        exceeded=exceeded_budgets(cold, warm, limits),
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        command=shlex.join(["python", "-m", "benchmarks.wall", *sys.argv[1:]]),
        export_command=shlex.join(["python", *export]),
        hardware=hardware,
        hardware_fingerprint=hardware.fingerprint,
        tool_versions=tool_versions(_TOOLS),
        budgets=limits,
        cold=cold,
        warm=tuple(warm),
    )


def _export_once(folder: Path, export: Sequence[str]) -> Run:
    stderr, output = folder / "stderr.txt", folder / "out"
    environment = os.environ | {CACHE_VARIABLE: str(folder / "cache")}
    before_s = _pace_s()
    cost = watch([sys.executable, *export, "-o", str(output)], environment, stderr)
    if cost.exit_code not in _FINISHED:
        lines = stderr.read_text("utf-8", "replace").splitlines()
        raise StepError(
            f"the export ended with exit code {cost.exit_code}",
            why="\n".join(lines[-_KEPT_STDERR_LINES:]),
        )
    provenance = read_report(output / "reports").provenance
    return Run(
        cost=cost,
        stage_s=provenance.stage_s,
        stages_from_cache=len(provenance.stages_from_cache),
        pace_s=(before_s, _pace_s()),
    )


def _pace_s() -> float:
    """Time arithmetic that never changes: what the machine gives at this moment."""
    started_s = time.perf_counter()
    total = 0
    for number in range(_ADDITIONS):
        total += number
    return time.perf_counter() - started_s


def exceeded_budgets(cold: Run, warm: Sequence[Run], budgets: Budgets) -> tuple[str, ...]:
    """Name the budgets that were exceeded."""
    peak = max(run.cost.peak_rss_bytes for run in (cold, *warm))
    over = {
        "cold": cold.cost.wall_s > budgets.cold_s,
        "warm": _median_s(warm) > budgets.warm_s,
        "peak": peak > budgets.peak_rss_bytes,
    }
    return tuple(name for name, is_over in over.items() if is_over)


def _median_s(runs: Sequence[Run]) -> float:
    return statistics.median(run.cost.wall_s for run in runs)


if __name__ == "__main__":
    raise SystemExit(main())
