"""The jobs of a fleet in the words of a CI system."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from exporter.ci.fleet import Fleet, FleetDevice
from exporter.ci.jobs import Stage, stages_of
from exporter.deliver.cache import key_of
from exporter.steps.workspace import code_fingerprint
from targets.hashing import sha256_file

GITLAB_JOBS = "ci/gitlab-jobs.yml"
"""The file with the jobs that a generated pipeline extends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job: a stage of one device.

    Args:
        runner: labels of the machine that takes it.
        extras: of this distribution, comma-separated as pip takes them.
        cache_key: 16 hex digits; other where anything that the job depends on is other, as far
            as the repository says it.
    """

    device: str
    stage: Stage
    runner: tuple[str, ...]
    extras: str
    cache_key: str


def jobs_of(fleet: Fleet) -> tuple[Job, ...]:
    """Return every job, devices in the file's order."""
    return tuple(
        Job(
            device=name,
            stage=stage,
            runner=device.finish_runner if stage == "finish" else device.runner,
            extras=",".join(device.extras),
            cache_key=_cache_key(fleet, device),
        )
        for name, device in fleet.device.items()
        for stage in stages_of(device)
    )


def _cache_key(fleet: Fleet, device: FleetDevice) -> str:
    """Hash what a job depends on: this program, the fleet's settings and the device's own."""
    common = fleet.model_dump(mode="json", exclude={"device", "gate"})
    own = device.model_dump(mode="json", exclude={"policy", "runner", "finish_runner"})
    policy = sha256_file(device.policy) if device.policy else None
    constraints = Path("constraints.txt")
    pinned = sha256_file(constraints) if constraints.is_file() else None
    return key_of(code_fingerprint(), common, own, policy, pinned)[:16]


def as_json(jobs: Sequence[Job]) -> str:
    """Return the jobs as a JSON list."""
    return json.dumps([asdict(job) for job in jobs], indent=2)


def as_names(jobs: Sequence[Job]) -> str:
    """Return the devices' names, one a line: for loops in a shell."""
    return "\n".join(dict.fromkeys(job.device for job in jobs))


def extras_of(jobs: Sequence[Job]) -> str:
    """Return the extras of all jobs: what the machine needs that judges all devices."""
    return ",".join(dict.fromkeys(e for job in jobs for e in job.extras.split(",") if e))


def as_github(jobs: Sequence[Job]) -> str:
    """Return the matrix of each stage, and all extras, as lines for `$GITHUB_OUTPUT`."""
    lines = [f"extras={extras_of(jobs)}"]
    for stage in ("build", "finish"):
        include = [asdict(job) for job in jobs if job.stage == stage]
        matrix = json.dumps({"include": include}, separators=(",", ":"))
        lines.append(f"{stage}={matrix}")
    return "\n".join(lines)


def as_gitlab(jobs: Sequence[Job]) -> str:
    """Return a child pipeline with one job each (JSON, which is YAML too)."""
    pipeline: dict[str, object] = {
        "include": [{"local": GITLAB_JOBS}],
        "stages": ["build", "finish", "rollout"],
    }
    for job in jobs:
        before = {"needs": [f"build:{job.device}"]} if job.stage == "finish" else {}
        pipeline[f"{job.stage}:{job.device}"] = {
            "extends": f".exporter-{job.stage}",
            "tags": list(job.runner),
            "variables": {
                "DEVICE": job.device,
                "EXTRAS": job.extras,
                "CACHE_KEY": job.cache_key,
            },
            **before,
        }
    extras = {"EXTRAS": extras_of(jobs)}
    pipeline["rollout"] = {"extends": ".exporter-rollout", "variables": extras}
    return json.dumps(pipeline, indent=2)
