"""What a bundle was made of, as a CycloneDX document: the model, the texts, the packages.

CycloneDX 1.6 (ECMA-424), written by the project's own Python library. The same run's record
gives the same bytes.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING, Any
from uuid import UUID

from exporter.deliver.report.document import Report
from exporter.values import TextsSummary
from targets.hashing import sha256_json

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component

BILL_OF_MATERIALS = "sbom.cdx.json"


def bill_of_materials(report: Report) -> bytes:
    """Return a run's bill of materials: UTF-8 JSON.

    Named are the source model and its FP32 graph, the texts that calibrated and certified, and
    every package that the tools of the run need, with the version that was installed.
    """
    from cyclonedx.output.json import JsonV1Dot6

    text = JsonV1Dot6(_document(report)).output_as_string(indent=2)
    return text.encode() + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A package in one version; `is_installed` where it was found here, not only told of."""

    name: str
    version: str
    is_installed: bool


def packages_behind(tools: Mapping[str, str]) -> tuple[Package, ...]:
    """Return every package that some tools need, theirs included, by name.

    Args:
        tools: name → version; one that is not installed here (it belongs to another device)
            is taken as told, without what it needs itself.
    """
    from packaging.utils import canonicalize_name

    found: dict[str, Package] = {}
    waiting = list(tools)
    while waiting:
        name = waiting.pop()
        if (key := canonicalize_name(name)) not in found:
            found[key], needed = _look_up(name, tools)
            waiting += needed
    return tuple(found[key] for key in sorted(found))


def _look_up(name: str, tools: Mapping[str, str]) -> tuple[Package, list[str]]:
    """Return a package and what it needs itself here: extras and what is not installed left out."""
    from packaging.requirements import Requirement

    try:
        installed = distribution(name)
    except PackageNotFoundError:
        return Package(name=name, version=tools[name], is_installed=False), []
    requirements = [Requirement(line) for line in installed.requires or ()]
    needed = [
        one.name
        for one in requirements
        if (one.marker is None or one.marker.evaluate({"extra": ""})) and _is_installed(one.name)
    ]
    version = tools.get(name, installed.version)
    package = Package(
        name=installed.metadata["Name"],
        version=version,
        is_installed=version == installed.version,
    )
    return package, needed


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _document(report: Report) -> Bom:
    from cyclonedx.model.bom import Bom, BomMetaData

    model = _model(report)
    parts = [*_data(report), *_packages(report)]
    document = Bom(
        serial_number=_serial(report),
        metadata=BomMetaData(
            component=model, timestamp=datetime.fromisoformat(report.provenance.created_utc)
        ),
        components=parts,
    )
    document.register_dependency(model, parts)
    return document


def _serial(report: Report) -> UUID:
    """Name the document by what it is about, so that it can be made again."""
    about = [report.provenance.created_utc, report.model.graph.sha256, report.provenance.command]
    return UUID(hex=sha256_json(about)[:32], version=4)


def _model(report: Report) -> Component:
    from cyclonedx.model.component import ComponentType

    model = report.model
    return _component(
        ComponentType.MACHINE_LEARNING_MODEL,
        model.id,
        model.revision,
        model.weights_sha256,
        architecture=model.architecture,
        tokenizer_sha256=model.tokenizer_sha256,
        graph_sha256=model.graph.sha256,
    )


def _data(report: Report) -> Iterator[Component]:
    from cyclonedx.model.component import ComponentType

    texts: Iterable[tuple[str, TextsSummary | None]] = (
        ("calibration", report.calibration),
        ("development", report.evaluation.development),
        ("evaluation", report.evaluation.test),
    )
    for use, summary in texts:
        if summary is not None:
            name = f"{use} texts: {summary.name}"
            yield _component(ComponentType.DATA, name, None, summary.sha256)


def _packages(report: Report) -> Iterator[Component]:
    from cyclonedx.model.component import ComponentType
    from packageurl import PackageURL

    python = platform.python_version()
    yield _component(ComponentType.PLATFORM, platform.python_implementation(), python, None)
    tools = dict(report.provenance.tool_versions)
    for target in report.targets:
        tools |= target.tool_versions
    for package in packages_behind(tools):
        component = _component(ComponentType.LIBRARY, package.name, package.version, None)
        if package.is_installed:
            component.purl = PackageURL("pypi", None, package.name, package.version)
        yield component


def _component(
    kind: Any,  # noqa: ANN401  # ComponentType, which only the library's import knows
    name: str,
    version: str | None,
    sha256: str | None,
    **properties: str,
) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component

    return Component(
        type=kind,
        name=name,
        version=version,
        bom_ref=f"{kind.value}:{name}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)] if sha256 else (),
        properties=[
            Property(name=f"embedding-exporter:{key}", value=value)
            for key, value in properties.items()
        ],
    )
