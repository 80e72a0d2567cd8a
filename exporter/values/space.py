"""Identity of embedding spaces: embeddings with equal ids may be mixed in one index.

An id has two or three parts, joined by colons: the model (its weights, tokenizer, pooling and
everything else that decides what FP32 embeddings are), the precision class, and, unless an
artifact was measured to share FP32's space, what names the artifact and the device.
"""

from __future__ import annotations

from typing import Protocol

from exporter.values.fidelity import Fidelity
from targets.contract import Recipe
from targets.hashing import sha256_json

SAME_SPACE_OVERLAP = 0.975
"""Least overlap@k with FP32, by the lower end of its interval, of what shares FP32's space.

Half of the loss that a drop-in pair may have (0.05): queries by one such artifact against
documents by another lose at most about both losses together.
"""
SAME_SPACE_COSINE = 0.999
"""Least first percentile of the cosine with FP32, by the lower end of its interval.

A shift that queries and documents share costs no neighbours as long as both come from the same
artifact, so overlap alone does not show it.
"""
REFERENCE_CLASS = "float32"
_MODEL_DIGITS = 16
_ARTIFACT_DIGITS = 12


class SpaceModel(Protocol):
    """What an encoder and a report's model section both say of the model."""

    @property
    def weights_sha256(self) -> str: ...  # noqa: D102
    @property
    def tokenizer_sha256(self) -> str: ...  # noqa: D102
    @property
    def pooling(self) -> str: ...  # noqa: D102
    @property
    def normalize(self) -> bool: ...  # noqa: D102
    @property
    def modules(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def embedding_dim(self) -> int: ...  # noqa: D102
    @property
    def max_seq_length(self) -> int: ...  # noqa: D102
    @property
    def default_prompt(self) -> str: ...  # noqa: D102


def model_facts(model: SpaceModel) -> dict[str, object]:
    """Return everything that decides what a model's FP32 embeddings are, by name."""
    return {
        "weights": model.weights_sha256,
        "tokenizer": model.tokenizer_sha256,
        "pooling": model.pooling,
        "normalization": model.normalize,
        "modules": list(model.modules),
        "embedding dimension": model.embedding_dim,
        "longest input": model.max_seq_length,
        "prompt": model.default_prompt,
    }


def reference_space(model: SpaceModel) -> str:
    """Return the id of the FP32 model's own space."""
    digest = sha256_json(model_facts(model))[:_MODEL_DIGITS]
    return f"{digest}:{REFERENCE_CLASS}"


def artifact_space(
    model: SpaceModel,
    recipe: Recipe,
    *,
    artifact_sha256: str,
    fingerprint: str,
    fidelity: Fidelity | None,
) -> str:
    """Return the id of the space that an artifact embeds into on one device.

    Args:
        model: the source model.
        recipe: what the artifact was made by.
        artifact_sha256: of the artifact's entry file.
        fingerprint: of the device; integer kernels differ between them.
        fidelity: measured on that device; None: it was not.

    Returns:
        FP32's own id where the artifact was measured to share its space, or where everything
        in it is FP32 and nobody measured; else an id that only the same artifact on the same
        device has.
    """
    reference = reference_space(model)
    if _is_float32(recipe) if fidelity is None else shares_reference(fidelity):
        return reference
    model_part = reference.partition(":")[0]
    own = sha256_json([artifact_sha256, fingerprint])[:_ARTIFACT_DIGITS]
    return f"{model_part}:{recipe.precision}:{own}"


def shares_reference(fidelity: Fidelity) -> bool:
    """Say whether embeddings were measured to be as good as FP32's, for both sides of a search."""
    overlap = fidelity.overlap_at_k
    return (
        overlap is not None
        and overlap.interval.low >= SAME_SPACE_OVERLAP
        and fidelity.p1_cosine.interval.low >= SAME_SPACE_COSINE
    )


def _is_float32(recipe: Recipe) -> bool:
    parts = (recipe.precision, recipe.float_precision, recipe.embeddings)
    return recipe.quantizer == "none" and not recipe.overrides and set(parts) == {"float32"}
