"""Baselines: the report of an accepted bundle, kept by the hardware it was measured on.

Figures compare between equal fingerprints only. CI machines of one label are not all alike, so
that a device may have several baselines.
"""

from __future__ import annotations

from pathlib import Path

from exporter.deliver.manifest import read_manifest, require_intact
from exporter.deliver.report import parse_report
from exporter.deliver.report.document import REPORT_JSON
from exporter.deliver.storage import storage_errors
from targets.errors import StorageError
from targets.hashing import sha256_json


def baseline_file(baselines: Path, device: str, bundle: Path) -> Path | None:
    """Return where the baseline for a bundle's device and hardware lies, or would lie.

    Returns:
        None where the bundle is about no hardware: none of its targets ran.
    """
    stamps = read_manifest(bundle).devices
    found = sorted({stamp.fingerprint for stamp in stamps if stamp.fingerprint})
    if not found:
        return None
    name = found[0] if len(found) == 1 else sha256_json(found)
    return baselines / device / f"{name[:16]}.json"


def accept(baselines: Path, device: str, bundle: Path) -> Path:
    """Keep a bundle's report as what later ones are compared with.

    Raises:
        StorageError: the bundle is not what its manifest says, or the disk refuses.
    """
    require_intact(bundle)
    data = (bundle / "reports" / REPORT_JSON).read_bytes()
    parse_report(data)
    place = baseline_file(baselines, device, bundle)
    if place is None:
        raise StorageError(
            f"{bundle} does not say which hardware its figures are of",
            why="no target of it ran",
            hint="export it again where its device is",
        )
    staging = place.with_suffix(".partial")
    with storage_errors("cannot keep the baseline", place, remedy="give another folder"):
        place.parent.mkdir(parents=True, exist_ok=True)
        staging.write_bytes(data)
        staging.replace(place)
    return place
