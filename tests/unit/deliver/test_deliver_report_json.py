"""`report.json`: the published shape, and reports that lie about it are refused by name."""

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from importlib.resources import files
from typing import get_type_hints

import jsonschema
import pytest
from deliver_records import (
    CASES,
    FULL_QUANTIZATION,
    HOSTILE_RECORD,
    INCONCLUSIVE,
    NOT_RUN,
    QUANTIZATION,
    RECORD,
    TARGET,
    estimate,
    with_target,
)

from exporter.deliver import report as report_package
from exporter.deliver.report import (
    Report,
    document_of,
    parse_report,
    plots_of,
    read_report,
    to_json,
    to_markdown,
    write_reports,
)
from exporter.deliver.report.json_report import executed_precisions
from targets.contract import ExecutedPrecision
from targets.errors import NonFiniteError, StorageError

SCHEMA = json.loads(files(report_package).joinpath("schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def plain(record=RECORD) -> dict:
    return json.loads(to_json(document_of(record)))


def complaints(document: dict) -> str:
    return "\n".join(
        f"{'/'.join(map(str, error.absolute_path))}: {error.message}"
        for error in with_causes(VALIDATOR.iter_errors(document))
    )


def with_causes(errors) -> Iterator[jsonschema.ValidationError]:
    for error in errors:
        yield error
        yield from with_causes(error.context)


# --------------------------------------------------------------------------------- shape


def test_the_document_begins_with_the_published_keys_in_order():
    document = plain()
    assert list(document)[:7] == [
        "schema_version",
        "verdict",
        "exit_code",
        "model",
        "evaluation",
        "targets",
        "provenance",
    ]
    assert list(document["targets"][0])[:10] == [
        "target",
        "device",
        "status",
        "recipe",
        "artifact",
        "checks",
        "latency",
        "fidelity",
        "executed_precisions",
        "candidates",
    ]
    assert list(document["targets"][0]["artifact"]) == ["path", "sha256", "size_bytes"]


def test_latency_is_null_where_none_was_taken():
    assert plain(NOT_RUN)["targets"][0]["latency"] is None
    assert plain(INCONCLUSIVE)["targets"][0]["latency"] is None
    assert plain()["targets"][0]["candidates"][2]["latency"] is None


def test_executed_precisions_are_summed_and_unknown_shares_stay_unknown():
    rows = (
        ExecutedPrecision(op_type="MatMul", dtype="int8", count=2, time_share=0.25),
        ExecutedPrecision(op_type="MatMul", dtype="int8", count=3, time_share=0.5),
        ExecutedPrecision(op_type="Add", dtype="float32", count=1, time_share=0.1),
        ExecutedPrecision(op_type="Add", dtype="float32", count=1),
    )
    cells = executed_precisions(rows)
    assert list(cells) == ["Add", "MatMul"]
    assert (cells["MatMul"]["int8"].count, cells["MatMul"]["int8"].time_share) == (5, 0.75)
    assert (cells["Add"]["float32"].count, cells["Add"]["float32"].time_share) == (2, None)


@pytest.mark.parametrize("name", CASES)
def test_reading_gives_back_what_was_written(name):
    document = document_of(CASES[name])
    data = to_json(document)
    assert to_json(parse_report(data)) == data


@pytest.mark.parametrize("name", CASES)
def test_every_case_obeys_the_schema(name):
    assert complaints(plain(CASES[name])) == ""


def test_the_schema_is_valid_and_describes_exactly_the_documents_fields():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert described(SCHEMA) == declared(Report)


def described(node: dict) -> dict:
    """Reduce a schema to its object keys, nested."""
    if "$ref" in node:
        return described(SCHEMA["$defs"][node["$ref"].rsplit("/", 1)[-1]])
    for part in node.get("anyOf", ()):
        if part != {"type": "null"}:
            return described(part)
    if "properties" in node:
        assert node["additionalProperties"] is False
        assert node["required"] == list(node["properties"])
        return {name: described(part) for name, part in node["properties"].items()}
    inner = node.get("items") or node.get("additionalProperties")
    return described(inner) if isinstance(inner, dict) else {}


def declared(kind: object) -> dict:
    """Reduce a dataclass to its fields, nested."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return {field.name: declared(hints[field.name]) for field in fields(kind)}
    parts = [declared(part) for part in getattr(kind, "__args__", ())]
    return next((part for part in parts if part), {})


# --------------------------------------------------------------------- broken documents


def broken(*path: object, value: object = ...) -> dict:
    """Return the document with one place changed, or removed when no value is given."""
    document = copy.deepcopy(plain())
    place = document
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("verdict",), "ok", "verdict: 'ok' is not one of"),
        (("verdict",), ..., "'verdict' is a required property"),
        (("surprise",), 1, "'surprise' was unexpected"),
        (("schema_version",), 2, "schema_version: 1 was expected"),
        (("exit_code",), 1, "exit_code: 0 was expected"),
        (("exit_code",), 5, "exit_code: 5 is not one of"),
        (("model", "weights_sha256"), "abc", "model/weights_sha256: 'abc' does not match"),
        (("targets", 0, "latency"), [], "targets/0/latency: [] is not valid"),
        (("targets", 0, "status"), "not_run", "targets/0/latency"),
        (("targets", 0, "fidelity"), None, "targets/0/fidelity: None is not of type 'object'"),
        (("targets", 0, "checks"), [], "targets/0/checks: [] should be non-empty"),
        (("targets", 0, "checks", 0, "verdict"), "not_run", "targets/0/checks/0/reason"),
        (("targets", 0, "latency", 4, "p90_ms"), 1.0, "targets/0/latency/4/p90_ms"),
        (("targets", 0, "latency", 1, "p99_ms"), 1.0, "targets/0/latency/1/p99_ms"),
        (("targets", 0, "latency", 0, "median_ms"), 0, "targets/0/latency/0/median_ms"),
        (("targets", 0, "artifact", "path"), "../x", "targets/0/artifact"),
        (("targets", 0, "candidates", 4, "reason"), "", "targets/0/candidates/4/reason"),
        (("targets", 0, "fidelity", "min_cosine"), 1.5, "min_cosine: 1.5 is greater"),
        (("targets", 0, "quantization"), ..., "'quantization' is a required property"),
        (("targets", 0, "quantization", "table_sha256"), "x", "quantization/table_sha256: 'x'"),
        (("targets", 0, "quantization", "drift"), -0.5, "quantization/drift: -0.5 is less"),
        (("targets", 0, "quantization", "sensitivity", 0, "layers"), [], "sensitivity/0/layers"),
        (("targets", 0, "quantization", "sensitivity", 0, "work_share"), 2, "0/work_share: 2 is"),
        (("provenance", "created_utc"), "yesterday", "provenance/created_utc"),
        (("compatibility",), ..., "'compatibility' is a required property"),
    ],
)
def test_a_broken_document_is_refused_by_name(path, value, said):
    assert said in complaints(broken(*path, value=value))


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("members", 0, "space_id"), "float32", "space_id: 'float32' does not match"),
        (("members", 0, "numerics"), "real", "numerics: 'real' is not one of"),
        (("cells", 0, "exchange"), "fine", "exchange: 'fine' is not one of"),
        (("cells", 0, "decided"), ..., "'decided' is a required property"),
        (("cells",), [], "compatibility/cells: [] should be non-empty"),
        (("store_precision",), "int4", "store_precision: 'int4' is not one of"),
        (("missing", 0, "reason"), "", "missing/0/reason"),
    ],
)
def test_a_broken_matrix_is_refused_by_name(path, value, said):
    document = plain(CASES["several"])
    place = document["compatibility"]
    for key in path[:-1]:
        place = place[key]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    assert said in complaints(document)


def test_a_report_from_before_the_matrix_is_still_read():
    report = parse_report(json.dumps(broken("compatibility")).encode())
    assert report.compatibility is None


@pytest.mark.parametrize(
    "document",
    [
        broken("verdict"),
        broken("exit_code", value="0"),
        broken("targets", 0, "checks", 0, "verdict", value="maybe"),
        broken("targets", 0, "checks", 0, "verdict", value="not_run"),
        broken("model", "graph", value=None),
    ],
)
def test_the_reading_side_refuses_what_is_no_report(document):
    with pytest.raises(StorageError):
        parse_report(json.dumps(document).encode())


def test_a_newer_report_is_refused_by_its_version():
    with pytest.raises(StorageError, match="schema version 2, not 1"):
        parse_report(json.dumps(broken("schema_version", value=2)).encode())


# ------------------------------------------------------------------------------- writing


def test_json_and_markdown_are_written_and_read(tmp_path):
    write_reports(RECORD, tmp_path / "reports")
    report = read_report(tmp_path / "reports")
    assert report == read_report(tmp_path / "reports" / "report.json")
    assert report.targets[0].recipe.name == "bfloat16"
    text = (tmp_path / "reports" / "report.md").read_text(encoding="utf-8")
    assert text == to_markdown(report)


def test_how_static_int8_was_found_is_read_as_it_was_written(tmp_path):
    write_reports(RECORD, tmp_path)
    assert read_report(tmp_path).targets[0].quantization == QUANTIZATION
    assert plain(NOT_RUN)["targets"][0]["quantization"] is None


def test_tables_training_and_classes_are_in_all_forms_of_the_report(tmp_path):
    target = replace(RECORD.targets[0], quantization=FULL_QUANTIZATION)
    write_reports(replace(RECORD, targets=(target,)), tmp_path)
    assert read_report(tmp_path).targets[0].quantization == FULL_QUANTIZATION
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "embedding tables in int8 (11.8 MB for 46.9 MB)" in page
    assert "nearest of 77 class centres right for 85.0 %" in page


def test_plots_are_written_beside_the_report_and_from_it_alone(tmp_path):
    write_reports(RECORD, tmp_path)
    drawn = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.glob("*.svg")}
    assert sorted(drawn) == ["pareto-openvino.svg", "sensitivity-openvino.svg"]
    assert drawn == plots_of(read_report(tmp_path))


def test_a_figure_that_is_no_number_is_refused_by_name(tmp_path):
    fidelity = replace(TARGET.fidelity, mean_cosine=estimate(math.nan, 0.9, 1.0))
    record = with_target(replace(TARGET, fidelity=fidelity))
    with pytest.raises(NonFiniteError, match=r"targets\[0\]\.fidelity\.mean_cosine\.value is nan"):
        write_reports(record, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_undecodable_command_line_does_not_cost_the_report(tmp_path):
    provenance = replace(RECORD.provenance, command="exporter export -m m\udcff")
    write_reports(replace(RECORD, provenance=provenance), tmp_path)
    assert read_report(tmp_path).provenance.command == "exporter export -m m\\udcff"


def test_hostile_texts_come_through_the_json_unchanged():
    report = parse_report(to_json(document_of(HOSTILE_RECORD)))
    assert report.model.id == HOSTILE_RECORD.encoder.model_id


def test_a_report_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(StorageError, match=r"report\.json cannot be read"):
        read_report(tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(StorageError, match=r"report\.json is not a report"):
        read_report(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write the reports"):
        write_reports(RECORD, tmp_path / "file" / "reports")
