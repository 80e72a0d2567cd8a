"""Side environments: the peers' own packages, which cannot live in one environment with ours.

Each is a virtual environment in the user's cache folder, built once for a requirements file
and found again by its hash.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from exporter.deliver.storage import locked, storage_errors
from targets.errors import StepError
from targets.hashing import sha256_json

EnvironmentName = Literal["onnxruntime", "openvino"]
Note = Callable[[str], None]

ROOT_VARIABLE = "EMBEDDING_EXPORTER_SIDE_ENVIRONMENTS"
_REQUIREMENTS: Mapping[EnvironmentName, str] = {
    "onnxruntime": "requirements-ort.txt",
    "openvino": "requirements-openvino.txt",
}
_KEPT_STDERR_LINES = 25
_PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input")


@dataclass(frozen=True, slots=True, kw_only=True)
class SideEnvironment:
    """A virtual environment with one peer's packages."""

    name: EnvironmentName
    directory: Path

    @property
    def python(self) -> Path:
        """The environment's interpreter."""
        return _python_of(self.directory)

    def run(self, program: Path, request: Mapping[str, object]) -> Any:  # noqa: ANN401 - JSON
        """Run a program of `benchmarks.side_programs`' kind in a process of its own.

        Args:
            program: file called with the paths of two JSON files: request and answer.
            request: what the program reads.

        Returns:
            What the program answered.

        Raises:
            StepError: it failed; carries its last lines of stderr.
        """
        with tempfile.TemporaryDirectory(prefix="side-program-") as folder:
            asked, answer = Path(folder) / "request.json", Path(folder) / "answer.json"
            asked.write_text(json.dumps(request), "utf-8")
            command = [self.python, "-I", "-X", "utf8", program.absolute(), asked, answer]
            _call(
                [str(part) for part in command],
                f"{program.name} failed in the {self.name} side environment",
                _offline_environment(Path(folder)),
            )
            return json.loads(answer.read_text("utf-8"))


def requirements_file(name: EnvironmentName) -> Path:
    """Return the pinned requirements of a side environment."""
    return Path(__file__).parent / _REQUIREMENTS[name]


def requirements_sha256(name: EnvironmentName) -> str:
    """Hash everything that a side environment is made from."""
    text = requirements_file(name).read_text("utf-8")
    return sha256_json([text, platform.python_version(), platform.system(), platform.machine()])


def side_environment(name: EnvironmentName, note: Note = print) -> SideEnvironment:
    """Return a side environment, built now unless the same was built before.

    It is built aside and renamed, so that a half one is never used; processes that want
    the same one at once build it once.

    Args:
        name: which one.
        note: told before something is installed.

    Raises:
        StepError: the environment cannot be made or a package cannot be installed.
        StorageError: the cache folder cannot be written.
    """
    root = cache_root()
    place = root / f"{name}-{requirements_sha256(name)[:16]}"
    with storage_errors("cannot make a side environment", root, remedy=f"set {ROOT_VARIABLE}"):
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / f".{place.name}.lock"):
            if not place.is_dir():
                note(f"installing the {name} side environment (about 2 GB, once): {place}")
                _build(name, place)
    return SideEnvironment(name=name, directory=place)


def cache_root() -> Path:
    """Return the folder of the user's cache that environments are made in."""
    from platformdirs import user_cache_dir

    chosen = os.environ.get(ROOT_VARIABLE)
    default = Path(user_cache_dir("embedding-exporter")) / "side-environments"
    return Path(chosen).expanduser().absolute() if chosen else default


def _build(name: EnvironmentName, place: Path) -> None:
    staging = place.with_name(f".{place.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        _call([sys.executable, "-m", "venv", str(staging)], "a virtual environment cannot be made")
        install_requirements(_python_of(staging), requirements_file(name))
        staging.rename(place)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def install_requirements(python: Path, requirements: Path) -> None:
    """Install exactly what a requirements file pins.

    torch comes first and with its dependencies, because which these are depends on its
    build (CPU or CUDA); everything else is taken as listed.

    Raises:
        StepError: pip failed; carries its last lines of stderr.
    """
    what = f"the packages of {requirements.name} cannot be installed"
    pip = [str(python), *_PIP]
    _call([*pip, "--constraint", str(requirements), "torch"], what)
    _call([*pip, "--no-deps", "--requirement", str(requirements)], what)


def _python_of(environment: Path) -> Path:
    windows = os.name == "nt"
    return environment / ("Scripts/python.exe" if windows else "bin/python")


def _offline_environment(scratch: Path) -> dict[str, str]:
    """Keep the hub, its cache and this process's Python settings away from a program."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "HF_"))}
    return inherited | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(scratch / "huggingface"),
        "TOKENIZERS_PARALLELISM": "false",
    }


def _call(command: Sequence[str], what: str, environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).splitlines()
        raise StepError(what, why="\n".join(lines[-_KEPT_STDERR_LINES:]))
