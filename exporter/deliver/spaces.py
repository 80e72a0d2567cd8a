"""The embedding-space id of an artifact, from a run's result or from the report about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.values import SpaceModel, TargetResult, artifact_space

if TYPE_CHECKING:
    from exporter.deliver.report.document import TargetSection


def space_of(
    model: SpaceModel, about: TargetResult | TargetSection, *, fingerprint: str | None = None
) -> str:
    """Return the id of the space that a target's artifact embeds into; "" without an artifact.

    Args:
        model: the source model.
        about: what was found of one target on one device.
        fingerprint: of the device that embeds, where it may be another one than the artifact
            was measured on; what was measured says nothing of it then. None: the same.
    """
    if about.recipe is None or about.artifact is None or about.hardware is None:
        return ""
    own = about.hardware.fingerprint
    measured = about.status == "verified" and fingerprint in (None, own)
    return artifact_space(
        model,
        about.recipe,
        artifact_sha256=about.artifact.sha256,
        fingerprint=fingerprint or own,
        fidelity=about.fidelity if measured else None,
    )
