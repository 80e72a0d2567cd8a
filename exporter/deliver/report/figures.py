"""Figures as text. What promises quality or speed is rounded down, intervals outwards."""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from exporter.values import Estimate, LabelsSummary, Latency, TableSensitivity
from targets.contract import Check, Interval

NONE = "–"
_COSINE_DIGITS = 5
_MIN_SAMPLES = {"p90": 64, "p99": 662}
"""Fewest samples that support a percentile (MLPerf LoadGen's early-stopping bound)."""


def rounded(value: float, digits: int, rounding: str = ROUND_FLOOR, scale: int = 1) -> str:
    """Write `scale * value` with a fixed count of decimals, rounded down unless told otherwise.

    Computed in decimals: 100 × 0.29 is 29, not 28.999….
    """
    exact = Decimal(repr(float(value))) * scale
    return str(exact.quantize(Decimal(1).scaleb(-digits), rounding))


def cosine(value: float | None) -> str:
    """Write a cosine: only an exact 1 is shown as 1."""
    return NONE if value is None else rounded(value, _COSINE_DIGITS)


def drift(value: float) -> str:
    """Write 1 - mean cosine with two digits, rounded up, e.g. 2.5e-4."""
    if value <= 0.0:
        return "0"
    exact = Decimal(f"{value:.12g}")  # 7 × 1e-5 is 7e-5, not a little more
    up = exact.quantize(Decimal(1).scaleb(exact.adjusted() - 1), ROUND_CEILING)
    return f"{up.scaleb(-up.adjusted()):.1f}e{up.adjusted()}"


def percent(value: float | None) -> str:
    """Write a share in [0, 1] as a percentage."""
    return NONE if value is None else f"{rounded(value, 1, scale=100)} %"


def tables_in(tables: TableSensitivity) -> str:
    """Name embedding tables by what they are stored in, and their size then and in float32."""
    sizes = f"{megabytes(tables.num_bytes)} for {megabytes(tables.float_bytes)}"
    return f"embedding tables in {tables.precision} ({sizes})"


def class_accuracies(labels: LabelsSummary) -> str:
    """Say how well the classes of held-out training texts are told apart."""
    return (
        f"nearest of {labels.num_classes} class centres right for {percent(labels.accuracy_after)} "
        f"of {labels.num_held_out}, {percent(labels.accuracy_before)} before, "
        f"{percent(labels.accuracy_fp32)} in FP32"
    )


def ratio(value: float | None) -> str:
    """Write a ratio, e.g. a speed-up."""
    return NONE if value is None else f"{rounded(value, 2)}×"


def megabytes(value: float | None) -> str:
    """Write a size in bytes as MB (10^6 bytes); small ones in kB or bytes."""
    if value is None:
        return NONE
    if value < 100_000:
        return f"{value / 1e3:.1f} kB" if value >= 1000 else f"{value:.0f} bytes"
    return f"{value / 1e6:.1f} MB"


def milliseconds(value: float) -> str:
    """Write a time in ms with three significant digits."""
    if value >= 99.95:
        return f"{value:.0f} ms"
    return f"{value:.1f} ms" if value >= 9.995 else f"{value:.2f} ms"


def seconds(value: float | None) -> str:
    """Write a time in s."""
    return NONE if value is None else f"{value:.1f} s"


def percentile(name: str, value_ms: float | None, num_samples: int) -> str:
    """Write a percentile ("p90", "p99"), or how many samples there are and are needed."""
    if value_ms is not None:
        return milliseconds(value_ms)
    needed = _MIN_SAMPLES[name]
    enough = f"; {needed} needed" if num_samples < needed else ""
    return f"{NONE} ({num_samples} samples{enough})"


def interval(bounds: Interval | None, digits: int, scale: int = 1) -> str:
    """Write an interval, rounded outwards; another confidence than 95 % is named."""
    if bounds is None:
        return ""
    low = rounded(bounds.low, digits, scale=scale)
    high = rounded(bounds.high, digits, ROUND_CEILING, scale)
    other = "" if bounds.confidence == 0.95 else f" at {bounds.confidence:.0%}"
    return f"[{low}, {high}]{other}"


def ratio_estimate(estimate: Estimate | None) -> str:
    """Write a speed-up with its interval."""
    if estimate is None:
        return NONE
    return f"{ratio(estimate.value)} {interval(estimate.interval, 2)}"


def cosine_estimate(estimate: Estimate) -> str:
    """Write a cosine with its interval."""
    return f"{cosine(estimate.value)} {interval(estimate.interval, _COSINE_DIGITS)}"


def percent_estimate(estimate: Estimate | None) -> str:
    """Write a share with its interval, both as percentages."""
    if estimate is None:
        return NONE
    return f"{percent(estimate.value)} {interval(estimate.interval, 1, scale=100)}"


def beside_reference(value: float | None, reference: float | None) -> str:
    """Write a share with FP32's own behind it in brackets."""
    return NONE if value is None else f"{percent(value)} ({percent(reference)})"


def signed_estimate(estimate: Estimate, digits: int = 4) -> str:
    """Write a difference with its sign and interval."""
    return f"{estimate.value:+.{digits}f} {interval(estimate.interval, digits)}"


def speedup_of(latency: tuple[Latency, ...] | None, workload: str) -> float | None:
    """Return a workload's speed-up over FP32, where one was taken."""
    for one in latency or ():
        if one.workload == workload and one.speedup is not None:
            return one.speedup.value
    return None


# ------------------------------------------------------------------------------ checks

_Writer = Callable[[float], str]


def check_value(check: Check) -> str:
    """Write a check's value; never so short that it looks equal to a missed threshold."""
    if check.value is None:
        return NONE
    write = _writer(check)
    text = write(check.value)
    hides = check.threshold is not None and text == write(check.threshold)
    return f"{check.value:.9g}" if hides and check.verdict == "fail" else text


def check_interval(check: Check) -> str:
    """Write a check's interval in the unit of its value."""
    write = _writer(check)
    if check.interval is None or check.value is None:
        return NONE
    if write is percent:
        return interval(check.interval, 1, scale=100)
    return interval(check.interval, 2 if write is ratio else _COSINE_DIGITS)


def check_threshold(check: Check) -> str:
    """Write what the value is compared with, and how."""
    if check.threshold is None:
        return NONE
    write = _writer(check)
    asked = write(check.threshold)
    return asked if write is _yes_or_no else f"{comparison(check)} {asked}"


def comparison(check: Check) -> str:
    """Say on which side of the threshold a check passes, from how it came out."""
    if check.value is None or check.threshold is None or check.value == check.threshold:
        return "≥"
    passes_above = (check.value > check.threshold) == (check.verdict != "fail")
    undecided = check.verdict in ("inconclusive", "not_run")
    return "≥" if passes_above or undecided else "≤"


def _writer(check: Check) -> _Writer:
    if check.name == "finite":
        return _yes_or_no
    if check.unit == "bytes":
        return megabytes
    if check.unit in ("x", "×"):
        return ratio
    is_share = check.unit in ("share", "of FP32's") or check.name.startswith("overlap@")
    return percent if is_share else cosine


def _yes_or_no(value: float) -> str:
    return "yes" if value else "no"
