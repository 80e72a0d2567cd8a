"""How far the embeddings of the same texts lie apart."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exporter.values import Stability
from targets.contract import FloatArray
from targets.errors import NonFiniteError, StepError

Float64Array = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

# Half decades: bfloat16 drifts by about 1e-5 and int8 by 1e-3 to 1e-1, so linear bins
# would put one of them into a single bar. The first bin starts at 0, the last ends at 2.
HISTOGRAM_EDGES = (0.0, *(float(10.0**exponent) for exponent in np.arange(-7.0, 0.5, 0.5)), 2.0)


class ShapeMismatchError(StepError):
    """Two arrays that must hold the same texts differ in shape."""

    code = "shape-mismatch"


def require_same_shape(what: str, reference: FloatArray, candidate: FloatArray) -> None:
    """Refuse two embedding matrices that cannot hold the same texts.

    Raises:
        ShapeMismatchError: if the shapes differ or are not [num_texts, dim].
    """
    if reference.ndim != 2 or reference.shape != candidate.shape:
        raise ShapeMismatchError(
            f"{what}: embeddings of shape {candidate.shape} cannot be compared with "
            f"the reference's {reference.shape}",
            why="both must be [num_texts, dim] with the same texts in the same order",
            hint="embed the same evaluation set with both models again",
        )


def unit_rows(embeddings: FloatArray | Float64Array, what: str = "embeddings") -> Float64Array:
    """Scale every row to length one, in float64.

    Args:
        embeddings: shape [num_texts, dim].
        what: whose embeddings these are, for the error.

    Returns:
        shape [num_texts, dim], float64.

    Raises:
        NonFiniteError: if a row has NaN, infinity or zero norm; names the first such row.
    """
    rows = np.asarray(embeddings, np.float64)
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    usable = np.isfinite(norms) & (norms > 0.0)
    if not usable.all():
        raise _degenerate(rows, np.flatnonzero(~usable), what)
    unit: Float64Array = rows / norms[:, None]
    return unit


def cosines(
    reference: FloatArray,
    candidate: FloatArray,
    *,
    reference_name: str = "reference",
    candidate_name: str = "candidate",
) -> Float64Array:
    """Return the cosine similarity row by row, shape [num_texts], float64, in [-1, 1].

    Raises:
        ShapeMismatchError: if the shapes differ.
        NonFiniteError: if a row has NaN, infinity or zero norm.
    """
    require_same_shape(candidate_name, reference, candidate)
    left, right = unit_rows(reference, reference_name), unit_rows(candidate, candidate_name)
    clipped: Float64Array = np.clip(np.einsum("ij,ij->i", left, right), -1.0, 1.0)
    return clipped


def cosine_drift(reference: FloatArray, candidate: FloatArray) -> FloatArray:
    """Measure the per-text distance between two embeddings of the same texts.

    Args:
        reference: FP32 embeddings, shape [num_texts, dim], float32.
        candidate: the target's embeddings, same shape and order.

    Returns:
        1 - cosine similarity, computed in float64, shape [num_texts], float32, in [0, 2].

    Raises:
        ShapeMismatchError: if the shapes differ.
        NonFiniteError: if a row has NaN, infinity or zero norm.
    """
    return (1.0 - cosines(reference, candidate)).astype(np.float32)


def drift_histogram(row_cosines: Float64Array) -> tuple[int, ...]:
    """Count the texts whose 1 - cosine falls between neighbouring `HISTOGRAM_EDGES`."""
    counts, _ = np.histogram(1.0 - row_cosines, bins=np.asarray(HISTOGRAM_EDGES))
    return tuple(int(count) for count in counts)


def stability_from(
    alone: FloatArray, batched: FloatArray, padded: FloatArray, shuffled: FloatArray
) -> Stability:
    """Compare embeddings of the same texts taken in different company.

    Args:
        alone: each text by itself, shape [num_texts, dim].
        batched: in length-sorted batches, rows in the order of `alone`.
        padded: with extra padding behind every text, same order.
        shuffled: in another order with other batch mates, rows put back in order.

    Raises:
        ShapeMismatchError: if the shapes differ.
        NonFiniteError: if a row has NaN, infinity or zero norm.
        StepError: if there are no texts.
    """
    if len(alone) == 0:
        raise StepError("stability: no texts were embedded", hint="give at least one text")
    company = {"batched": batched, "padded": padded, "shuffled": shuffled}
    lowest = {
        name: float(cosines(alone, other, reference_name="alone", candidate_name=name).min())
        for name, other in company.items()
    }
    return Stability(
        alone_vs_batched=lowest["batched"],
        padded=lowest["padded"],
        shuffled=lowest["shuffled"],
        num_texts=len(alone),
    )


def _degenerate(rows: Float64Array, bad: NDArray[np.int64], what: str) -> NonFiniteError:
    first = int(bad[0])
    finite = bool(np.isfinite(rows[first]).all())
    why = "its norm is zero" if finite and not rows[first].any() else "it has NaN or infinity"
    return NonFiniteError(
        f"{what}: row {first} is not a usable embedding ({len(bad)} of {len(rows)} rows are not)",
        why=why,
        hint="use a recipe with a wider range for the layers that overflow (bfloat16 or float32)",
    )
