"""The bill of materials: valid CycloneDX, the same for the same run, nothing left out."""

import json
import platform
from dataclasses import replace
from importlib.metadata import version

import pytest
from deliver_records import RECORD, sha

from exporter.deliver.bill_of_materials import bill_of_materials, packages_behind
from exporter.deliver.report import document_of

REPORT = document_of(RECORD)


@pytest.fixture(scope="module")
def document() -> dict:
    return json.loads(bill_of_materials(REPORT))


def named(document: dict, name: str) -> dict:
    (found,) = [one for one in document["components"] if one["name"] == name]
    return found


def problems(document: dict) -> object:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(document))


def test_it_obeys_the_published_schema(document):
    assert problems(document) is None
    assert problems(document | {"components": [{"name": "without a type"}]}) is not None


def test_the_model_is_what_it_is_about(document):
    model = document["metadata"]["component"]
    assert model["type"] == "machine-learning-model"
    assert model["name"] == RECORD.encoder.model_id
    assert model["hashes"] == [{"alg": "SHA-256", "content": sha("1")}]
    assert {"name": "embedding-exporter:graph_sha256", "value": sha("3")} in model["properties"]


def test_texts_are_named_with_their_hashes(document):
    found = [one for one in document["components"] if one["type"] == "data"]
    assert [one["hashes"][0]["content"] for one in found] == [sha("4"), sha("5"), sha("6")]


def test_packages_are_there_with_what_they_need(document):
    torch = named(document, "torch")
    assert torch["version"] == RECORD.provenance.tool_versions["torch"]
    assert named(document, "sympy")["version"] == version("sympy"), "what torch needs"
    assert named(document, "CPython")["version"] == platform.python_version()


def test_the_same_run_gives_the_same_bytes_and_another_one_others():
    again = replace(REPORT, provenance=replace(REPORT.provenance, command="another"))
    assert bill_of_materials(REPORT) == bill_of_materials(REPORT)
    first, second = json.loads(bill_of_materials(REPORT)), json.loads(bill_of_materials(again))
    assert first["serialNumber"] != second["serialNumber"]
    assert first["components"] == second["components"]


def test_every_package_is_named_once_however_it_is_spelt():
    found = packages_behind({"huggingface-hub": version("huggingface_hub"), "Jinja2": "3"})
    names = [package.name.lower().replace("_", "-") for package in found]
    assert len(names) == len(set(names))
    assert {"huggingface-hub", "jinja2", "markupsafe", "tqdm"} <= set(names)


def test_what_only_another_device_has_is_taken_as_told():
    (package,) = packages_behind({"no-such-runtime": "10.16.1"})
    assert (package.name, package.version, package.is_installed) == (
        "no-such-runtime",
        "10.16.1",
        False,
    )
    (jinja, *_) = packages_behind({"Jinja2": "0.1"})
    assert (jinja.version, jinja.is_installed) == ("0.1", False), "not the version of this machine"
