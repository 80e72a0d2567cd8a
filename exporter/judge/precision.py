"""Whether the precision that a recipe claims is the one that the runtime executed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from exporter.judge.gate import not_run
from targets.contract import Check, ExecutedPrecision, Recipe

PRECISION = "precision"

# Where the work of an encoder is, under the names that runtimes give it: MatMul,
# MatMulInteger, QLinearMatMul, FusedMatMul, Gemm, QGemm, FullyConnected, Convolution, …
_LINEAR_PARTS = ("matmul", "gemm", "fullyconnected", "fully_connected", "convolution", "matrix")
_LINEAR_NAMES = ("conv", "convinteger", "qlinearconv", "linear")
# Attention's own MatMuls stay in float in most int8 recipes (12 of 48 in a six-layer
# encoder), so not all can be asked for; recipes with overrides leave any number out.
_MIN_SHARE = 0.5
_INTEGERS = ("int8", "int4")
_WEIGHTS_ONLY = ("nncf_weight_only", "torchao_weight_only", "bnb_nf4")


def judge_precision(recipe: Recipe, executed: Sequence[ExecutedPrecision]) -> Check:
    """Prove the claimed precision from what the runtime really executed.

    The share of the linear operations (by count) that ran in the claimed precision must
    be above zero, and at least one half where the recipe has no overrides. A recipe that
    quantizes weights only claims its float precision; int8 is accepted there too,
    because runtimes may quantize the activations on the fly. Block weights claim their own
    width: the kernel that multiplies them is another one than float's, and says how wide
    they are.

    Args:
        recipe: what was claimed.
        executed: rows of the runtime's execution graph; empty where it does not tell.
    """
    linear = [row for row in executed if is_linear(row.op_type)]
    claimed = _claimed(recipe)
    if not linear:
        told = "no linear operation" if executed else "nothing"
        return not_run(PRECISION, None, f"the runtime told {told} of what it executed")
    counts = _count_by_dtype(linear)
    share = sum(counts[dtype] for dtype in claimed) / counts.total()
    passed = share > 0 if recipe.overrides else share >= _MIN_SHARE
    return Check(
        name=PRECISION,
        verdict="pass" if passed else "fail",
        value=share,
        threshold=None if recipe.overrides else _MIN_SHARE,
        unit="share",
        reason="" if passed else _fallback(claimed[0], share, counts),
        details={dtype: str(count) for dtype, count in counts.most_common()},
    )


def is_linear(op_type: str) -> bool:
    """Say whether an operation type is a matrix product, whatever the runtime calls it."""
    name = op_type.lower()
    return name in _LINEAR_NAMES or any(part in name for part in _LINEAR_PARTS)


def _claimed(recipe: Recipe) -> tuple[str, ...]:
    if recipe.quantizer in _WEIGHTS_ONLY:
        return tuple(dict.fromkeys((recipe.float_precision, "int8", recipe.precision)))
    return (recipe.precision,)


def _count_by_dtype(rows: Sequence[ExecutedPrecision]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for row in rows:
        counts["int8" if row.dtype == "uint8" else row.dtype] += row.count
    return counts


def _fallback(claimed: str, share: float, counts: Counter[str]) -> str:
    ran = ", ".join(f"{count} in {dtype}" for dtype, count in counts.most_common())
    if share > 0:
        return f"most of {claimed} fell back: the linear operations ran {ran}"
    fell_to = "float" if claimed in _INTEGERS else counts.most_common(1)[0][0]
    return f"{claimed} fell back to {fell_to}: the linear operations ran {ran}"
