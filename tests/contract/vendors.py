"""Distributions of other people, installed as a user would: with pip, from a folder, offline.

`vendor/` holds the good one. The bad ones are written here, one fault each; most of them are the
good target with one method changed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
VENDOR = Path(__file__).with_name("vendor")
GROUP = "embedding_exporter.targets"

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"
[project]
name = "{name}"
version = "1.0"
[project.entry-points."{group}"]
{entry_points}
[tool.setuptools]
py-modules = ["{module}"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """A distribution of one module.

    Args:
        name: the distribution's; its module has the same with underscores.
        targets: registered name → class in that module.
        source: the module.
    """

    name: str
    targets: Mapping[str, str]
    source: str

    @property
    def module(self) -> str:
        return self.name.replace("-", "_")

    def write(self, folder: Path) -> Path:
        """Write a source tree that pip can install; the folder again."""
        folder.mkdir()
        lines = [f'{name} = "{self.module}:{kind}"' for name, kind in self.targets.items()]
        text = _PYPROJECT.format(
            name=self.name, group=GROUP, entry_points="\n".join(lines), module=self.module
        )
        (folder / "pyproject.toml").write_text(text)
        (folder / f"{self.module}.py").write_text(self.source)
        return folder


THIEF = Distribution(
    name="acme-thief",
    targets={"openvino": "Thief"},
    source="""
from dataclasses import replace
from acme_npu import AcmeNpu

class Thief(AcmeNpu):
    spec = replace(AcmeNpu.spec, name="openvino", runtime="Stolen")
""",
)
BROKEN = Distribution(
    name="acme-broken",
    targets={"acme-broken": "Broken"},
    source="import a_runtime_nobody_has\n\nclass Broken: ...\n",
)
LIARS = Distribution(
    name="acme-liars",
    targets={
        "acme-ghost": "Ghost",
        "acme-forger": "Forger",
        "acme-crash": "Crash",
        "acme-hoarder": "Hoarder",
    },
    source="""
from dataclasses import replace
from acme_npu import AcmeNpu

class Ghost(AcmeNpu):
    "Names a file that is not there."
    spec = replace(AcmeNpu.spec, name="acme-ghost")
    def compile(self, request):
        artifact = super().compile(request)
        (request.output_dir / "model.onnx").unlink()
        return artifact

class Forger(AcmeNpu):
    "Changes the file behind its hash, as long as it was."
    spec = replace(AcmeNpu.spec, name="acme-forger")
    def compile(self, request):
        artifact = super().compile(request)
        path = request.output_dir / "model.onnx"
        path.write_bytes(path.read_bytes()[::-1])
        return artifact

class Crash(AcmeNpu):
    "Raises what the contract does not know."
    spec = replace(AcmeNpu.spec, name="acme-crash")
    def compile(self, request):
        raise KeyError("no such kernel")

class Hoarder(AcmeNpu):
    "Needs a file that it does not name."
    spec = replace(AcmeNpu.spec, name="acme-hoarder")
    def compile(self, request):
        artifact = super().compile(request)
        (request.output_dir / "weights.bin").write_bytes(b"weights")
        return artifact
""",
)
RAISING = Distribution(
    name="acme-raising",
    targets={"acme-raising": "Raising"},
    source="""
from dataclasses import replace
from acme_npu import AcmeNpu

class Raising(AcmeNpu):
    spec = replace(AcmeNpu.spec, name="acme-raising")
    def probe(self, device):
        raise KeyError("no such driver")
""",
)


def install(place: Path, scratch: Path, *others: Distribution) -> Path:
    """Install the good distribution, and others beside it, into a folder for `PYTHONPATH`.

    Args:
        place: where to; must not exist.
        scratch: an existing folder for source trees, because building leaves files in them.
        others: further distributions.

    Returns:
        The folder that was installed into.
    """
    sources = [shutil.copytree(VENDOR, scratch / "acme-npu")]
    sources += [one.write(scratch / one.name) for one in others]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(place)]
    done = subprocess.run(
        [*pip, *offline, *map(str, sources)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return place


def environment(installed: Path, **more: str) -> dict[str, str]:
    """Environment variables of a process that sees the project and what was installed."""
    path = os.pathsep.join((str(ROOT), str(installed)))
    return os.environ | {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"} | more
