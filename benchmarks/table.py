"""A comparison on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from benchmarks.contenders import BASELINE, OURS
from benchmarks.figures import Comparison, ContenderFigures, WorkloadFigures
from exporter.values import Estimate

_WIDTH = 118
"""Columns where the output goes to no terminal."""


def print_comparison(comparison: Comparison) -> None:
    """Print closeness, times and the verdict of every workload."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    console.print(closeness_table(comparison))
    console.print(times_table(comparison))
    for figures in comparison.workloads:
        if figures.verdict is not None:
            console.print(figures.verdict.line, highlight=False)
    for note in comparison.notes:
        console.print(f"note: {note}", style="dim", highlight=False)


def closeness_table(comparison: Comparison) -> Table:
    """Show each artifact's size and its distance from PyTorch's FP32."""
    what = f"{comparison.model_id} for {comparison.target}"
    title = f"{what} on {comparison.hardware.model_name}, {comparison.num_threads}"
    table = Table(
        *("artifact", "what", "MB", "mean cosine", "p1", "min", "overlap@10"),
        title=f"{title} threads; against PyTorch FP32",
    )
    for contender in comparison.contenders:
        table.add_row(*_closeness_row(contender))
    return table


def _closeness_row(contender: ContenderFigures) -> tuple[str, ...]:
    found = contender.closeness
    overlap = found.overlap_at_10
    return (
        contender.name,
        contender.title,
        f"{contender.size_bytes / 1e6:.0f}",
        f"{found.mean_cosine.value:.6f}",
        f"{found.p1_cosine.value:.5f}",
        f"{found.min_cosine:.5f}",
        "-" if overlap is None else _estimate(overlap, 3),
    )


def times_table(comparison: Comparison) -> Table:
    """Show every artifact on every workload, in ratios of the same rounds."""
    table = Table(
        *("workload", "artifact", "median ms", "texts/s"),
        *(f"x faster than {BASELINE}", "its time / ours"),
        title="interleaved on this machine, [95 % interval]",
    )
    for figures in comparison.workloads:
        for row in _times_rows(figures):
            table.add_row(*row)
        table.add_section()
    return table


def _times_rows(figures: WorkloadFigures) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, times in figures.artifacts.items():
        latency = times.latency
        rows.append(
            (
                figures.workload if name == OURS else "",
                name,
                f"{latency.median_ms:.2f}",
                f"{latency.texts_per_s:.0f}",
                _estimate(latency.speedup, 2),
                _estimate(times.time_to_ours, 2),
            )
        )
    return rows


def _estimate(estimate: Estimate | None, decimals: int) -> str:
    if estimate is None:
        return "1"
    low, high = estimate.interval.low, estimate.interval.high
    return f"{estimate.value:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"
