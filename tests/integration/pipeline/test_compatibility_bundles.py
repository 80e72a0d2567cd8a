"""`exporter compatibility` and `exporter encode` on delivered bundles, with real runtimes."""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
from export_command import ROOT, Ran, run_command

from exporter.cli.app import run
from exporter.deliver.archive import pack_bundle
from exporter.deliver.report import read_report
from exporter.judge import index as index_module
from exporter.source.resolve import resolve_encoder
from exporter.values import reference_space

pytestmark = [pytest.mark.openvino, pytest.mark.slow]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory, tiny_model, tiny_texts, shared_cache) -> SimpleNamespace:
    """The tiny model: in int8 for two targets, and in FP32 for one."""
    folder = tmp_path_factory.mktemp("bundles")
    calibration, evaluation = tiny_texts

    def export(name: str, *arguments: str) -> Path:
        flags = ["--model", str(tiny_model), "--calibration", str(calibration), "--quiet"]
        ran = run_command(
            [*flags, "--eval", str(evaluation), *arguments], folder / name, shared_cache, folder
        )
        assert (ran.folder / "manifest.json").is_file(), ran.err
        return ran.folder

    both = ("--target", "openvino", "--target", "onnxruntime")
    return SimpleNamespace(
        int8=export("int8", *both, "--precision", "int8-static"),
        float32=export("float32", "--target", "openvino", "--precision", "float32"),
    )


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(capsys) -> Run:
    def go(*arguments: object) -> tuple[int, str, str]:
        code = run([str(one) for one in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return go


def matrix_of(out: str) -> dict[tuple[str, str], dict]:
    cells = json.loads(out)["compatibility"]["cells"]
    return {(cell["queries_by"], cell["documents_by"]): cell for cell in cells}


# ----------------------------------------------------------------------------- the matrix


def test_an_export_of_several_targets_says_who_may_share_an_index(bundles):
    report = read_report(bundles.int8 / "reports")
    matrix = report.compatibility
    names = ["float32", "openvino int8-static", "onnxruntime int8-static"]
    assert [one.name for one in matrix.members] == names
    assert len(matrix.cells) == 9
    page = (bundles.int8 / "reports" / "report.md").read_text("utf-8")
    assert "## One index for several artifacts" in page
    assert read_report(bundles.float32 / "reports").compatibility is None


def test_the_manifest_the_matrix_and_the_command_agree_on_spaces(bundles, command):
    stamps = json.loads((bundles.int8 / "manifest.json").read_text())["devices"]
    members = read_report(bundles.int8 / "reports").compatibility.members
    _, out, _ = command("compatibility", bundles.int8, "--json")
    again = json.loads(out)["compatibility"]["members"]
    assert [stamp["space_id"] for stamp in stamps] == [one.space_id for one in members[1:]]
    assert [one["space_id"] for one in again] == [one.space_id for one in members]
    assert [one["artifact_sha256"] for one in again] == [one.artifact_sha256 for one in members]


def test_delivered_bundles_give_what_the_export_itself_found(bundles, command):
    """The reference is the bundle's FP32 graph there and PyTorch here."""
    code, out, _ = command("compatibility", bundles.int8, "--json")
    assert code == 0
    then = read_report(bundles.int8 / "reports").compatibility
    for pair, cell in matrix_of(out).items():
        assert cell["kept"]["value"] == pytest.approx(then.cell(*pair).kept.value, abs=2e-3)


def test_several_bundles_are_compared_and_written_to_a_file(bundles, command, tmp_path):
    path = tmp_path / "matrix.json"
    code, out, _ = command("compatibility", bundles.int8, bundles.float32, "-q", "-o", path)
    cells = matrix_of(path.read_text("utf-8"))
    assert code == 0
    assert len(cells) == 16
    assert cells["openvino float32", "float32"]["kept"]["value"] == pytest.approx(1, abs=1e-3)
    assert "4 openvino float32   space" in out
    schema = json.loads((files("exporter.deliver.report") / "schema.json").read_text("utf-8"))
    part = {"$ref": "#/$defs/compatibility", "$defs": schema["$defs"]}
    written = json.loads(path.read_text("utf-8"))["compatibility"]
    jsonschema.Draft202012Validator(part).validate(written)
    del written["cells"][0]["reason"]
    with pytest.raises(jsonschema.ValidationError, match="'reason' is a required"):
        jsonschema.Draft202012Validator(part).validate(written)


def own_overlap(command: Run, bundle: Path, *flags: str) -> tuple[str, str, float]:
    """Return the index's name, the store's precision, and what FP32 itself keeps in it."""
    code, out, err = command("compatibility", bundle, "--json", *flags)
    assert code == 0, err
    matrix = json.loads(out)["compatibility"]
    own = matrix_of(out)["float32", "float32"]
    assert own["kept"]["value"] == 1.0
    return matrix["index"], matrix["store_precision"], own["overlap_at_k"]["value"]


def test_exact_search_keeps_everything(bundles, command):
    assert own_overlap(command, bundles.float32) == ("flat", "float32", 1.0)


@pytest.fixture
def built(monkeypatch) -> list[str]:
    """The kinds of index that are really built, in order."""
    kinds: list[str] = []

    def watch(kind: str, build: Callable[..., object]) -> Callable[..., object]:
        return lambda rows, seed: kinds.append(kind) or build(rows, seed)

    for kind, build in index_module._BUILDERS.items():
        monkeypatch.setitem(index_module._BUILDERS, kind, watch(kind, build))
    return kinds


# The tiny model's tokenizer is trained anew in every run and its rows differ with it: wide bounds.
@pytest.mark.parametrize(("index", "precision", "name", "most"), [
    ("flat", "int8", "flat", 0.9999), ("flat", "binary", "flat", 0.8),
    ("hnsw", "float32", "hnsw16", 1.0), ("hnsw", "int8", "hnsw16", 0.9999),
    ("hnsw", "binary", "hnsw16", 0.8), ("ivfpq", "float32", "ivf28,pq4", 0.99),
    ("annoy", "float32", "annoy100", 1.0), ("annoy", "int8", "annoy100", 0.9999),
    ("annoy", "binary", "annoy100", 0.8),
])  # fmt: skip
def test_indexes_as_stores_build_them(bundles, command, built, index, precision, name, most):
    if index == "annoy":
        pytest.importorskip("annoy", reason="pip install 'embedding-exporter[annoy]'")
    flags = ("--index", index, "--store-precision", precision)
    *found, overlap = own_overlap(command, bundles.float32, *flags)
    assert found == [name, precision]
    assert built
    assert set(built) == {index}
    assert 0.0 < overlap <= most


def test_too_few_documents_for_codes_are_said(bundles, command, tmp_path):
    texts = tmp_path / "few.txt"
    texts.write_text("\n".join(f"number {one} of a few texts" for one in range(60)))
    flags = ("--eval", texts, "--index", "ivfpq", "-q")
    code, _, err = command("compatibility", bundles.float32, *flags)
    assert code == 2
    assert "--index ivfpq needs 256 documents, there are 60" in err


def test_an_index_whose_package_is_missing_names_the_extra(bundles, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "annoy", None)
    code, _, err = command("compatibility", bundles.float32, "--index", "annoy", "-q")
    assert code == 2
    assert "embedding-exporter[annoy]" in err


def test_an_upgrade_that_keeps_the_neighbours_keeps_the_index(bundles, command):
    code, out, _ = command("compatibility", bundles.float32, "--with", bundles.float32, "-q")
    assert code == 0
    assert "✓ the index survives:" in out


def test_an_upgrade_that_does_not_is_stopped(bundles, command):
    arguments = ("compatibility", bundles.int8, "--with", bundles.float32, "--min-drop-in", 0.9999)
    code, out, _ = command(*arguments, "--min-degraded", 0.9998, "-q")
    assert code == 1
    assert "✗ the index does not survive: queries by" in out


def test_an_artifact_that_cannot_run_here_is_missing_and_never_a_pass(
    bundles, command, tmp_path, monkeypatch
):
    from targets.contract import Availability
    from targets.openvino.target import OpenVinoTarget

    gone = Availability(ok=False, missing=("openvino is not here",))
    monkeypatch.setattr(OpenVinoTarget, "probe", lambda *_: gone)
    code, out, _ = command("compatibility", bundles.int8, "-q")
    assert code == 3
    assert "not compared: openvino int8-static" in out
    assert "openvino is not here" in out


# ------------------------------------------------------------------------------- encode


def test_embeddings_carry_space_and_artifact(bundles, command):
    code, out, _ = command("encode", bundles.float32, "red cat", "blue house", "-q")
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [record["text"] for record in records] == ["red cat", "blue house"]
    model = read_report(bundles.float32 / "reports").model
    assert {record["space_id"] for record in records} == {reference_space(model)}
    entry = json.loads((bundles.float32 / "reports" / "report.json").read_text())["targets"][0]
    assert {record["artifact_sha256"] for record in records} == {entry["artifact"]["sha256"]}


def test_lines_from_stdin_are_embedded_in_order(bundles, command, monkeypatch, tmp_path):
    stdin = SimpleNamespace(buffer=io.BytesIO(b"red cat\r\nblue house\n\nlamp\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    code, out, _ = command("encode", bundles.float32, "-", "-o", tmp_path / "e.npz", "-q")
    assert code == 0
    assert "4 embeddings" in out
    _, one, _ = command("encode", bundles.float32, "blue house", "-q")
    with np.load(tmp_path / "e.npz") as arrays:
        second = arrays["embeddings"][1]
    np.testing.assert_allclose(second, json.loads(one)["embedding"], atol=1e-5)


def test_another_space_is_refused_before_anything_is_embedded(bundles, command, tmp_path):
    path = tmp_path / "e.jsonl"
    assert command("encode", bundles.float32, "red cat", "-o", path, "-q")[0] == 0
    path.write_text(path.read_text().replace(":float32", ":int8:0123456789ab"))
    before = path.read_bytes()
    code, _, err = command("encode", bundles.float32, "blue house", "-o", path, "-q")
    assert code == 2
    assert "is of another embedding space" in err
    assert path.read_bytes() == before


@pytest.mark.parametrize(("arguments", "said"), [
    (("{int8}", "a"), "holds artifacts of several targets"),
    (("{int8}", "a", "-t", "tensorrt"), "holds no verified artifact for tensorrt"),
    (("{float32}",), "there are no texts"),
    (("{float32}", "a", "-"), "named and read from stdin"),
    (("{float32}", "a", "--prompt", "nonsense"), "has no such prompt"),
    (("{float32}", "a", "-o", "e.txt"), "has no known ending"),
])  # fmt: skip
def test_what_cannot_be_encoded_is_usage(bundles, command, arguments, said):
    filled = [one.format(**vars(bundles)) for one in arguments]
    code, _, err = command("encode", *filled, "-q")
    assert code == 2
    assert said in err


# ------------------------------------------------------------------------------ bad input


@pytest.fixture
def damaged(bundles, tmp_path) -> Path:
    """A copy whose artifact lost its last bytes."""
    folder = tmp_path / "damaged"
    shutil.copytree(bundles.float32, folder)
    path = folder / "openvino" / "openvino_model.bin"
    path.write_bytes(path.read_bytes()[:-100])
    return folder


def test_a_truncated_bundle_is_refused_by_both_commands(damaged, bundles, command):
    for arguments in (("compatibility", bundles.int8, "--with", damaged), ("encode", damaged, "a")):
        code, _, err = command(*arguments, "-q")
        assert code == 4
        assert "is not what its manifest says" in err
        assert "openvino/openvino_model.bin" in err


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """Where archives are unpacked."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_archives_are_compared_as_their_folders_are(bundles, command, temporary, tmp_path):
    archive = tmp_path / "float32.tar.gz"
    pack_bundle(bundles.float32, archive)
    asked = ("compatibility", bundles.int8, "--json", "--with")
    code, out, _ = command(*asked, bundles.float32)
    packed_code, packed, err = command(*asked, archive)
    assert packed_code == code, err
    folder, packed = json.loads(out), json.loads(packed)
    assert packed["compatibility"]["cells"] == folder["compatibility"]["cells"]
    assert packed["upgrade"]["survives"] == folder["upgrade"]["survives"]
    (one,) = (m for m in packed["compatibility"]["members"] if m["bundle"] == str(archive))
    assert one["recipe"] == "float32"
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("kind", ["tampered", "truncated"])
def test_a_bad_archive_is_refused_by_its_name(bundles, command, temporary, tmp_path, kind):
    archive = tmp_path / "bad.tar.gz"
    pack_bundle(bundles.float32, archive)
    if kind == "tampered":
        folder = tmp_path / "unpacked"
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        (path,) = folder.rglob("openvino_model.bin")
        path.write_bytes(path.read_bytes()[:-1] + b"!")
        with tarfile.open(archive, "w:gz") as tar:
            for entry in sorted(folder.rglob("*"), key=lambda one: one.name != "manifest.json"):
                if entry.is_file():
                    tar.add(entry, entry.relative_to(folder).as_posix())
    else:
        archive.write_bytes(archive.read_bytes()[:-1000])
    code, _, err = command("compatibility", bundles.int8, archive, "-q")
    assert code == 4
    assert str(archive) in err
    assert ("openvino/openvino_model.bin" in err) is (kind == "tampered")
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(("flags", "said"), [
    (("--k", "500"), "k = 500 is too large for evaluation, which has 780 documents"),
    (("--k", "0"), "k = 0 are no borders"),
    (("--index", "hsnw"), "did you mean 'hnsw'"),
    (("--store-precision", "binry"), "did you mean 'binary'"),
    (("--index", "ivfpq", "--store-precision", "int8"), "ivfpq does not go with"),
    (("--eval", "no/such/folder"), "no/such/folder"),
])  # fmt: skip
def test_wrong_flags_are_usage(bundles, command, flags, said):
    code, _, err = command("compatibility", bundles.float32, "-q", *flags)
    assert code == 2
    assert said in err


# --------------------------------------------------------------------------- the real model


@pytest.mark.model
def test_the_real_artifact_may_serve_an_fp32_index(real_run: Ran, command, minilm_dir, tmp_path):
    """On texts of its own: the built-in ones take a minute."""
    texts = tmp_path / "texts.txt"
    lines = (ROOT / "docs" / "quantization.md").read_text("utf-8").splitlines()
    texts.write_text("\n".join(dict.fromkeys(line for line in lines if len(line) > 30)))
    code, out, err = command("compatibility", real_run.folder, "--eval", texts, "--json")
    assert code == 0, err
    cells = matrix_of(out)
    (name,) = {queries for queries, _ in cells} - {"float32"}
    assert cells["float32", name]["kept"]["value"] > 0.9
    members = json.loads(out)["compatibility"]["members"]
    assert members[0]["space_id"] == reference_space(resolve_encoder(None))


@pytest.mark.model
def test_the_real_artifact_encodes_what_sentence_transformers_does(
    real_run: Ran, command, minilm_dir
):
    from sentence_transformers import SentenceTransformer

    texts = ["A cat sits on the mat.", "The stock market fell sharply today."]
    _, out, _ = command("encode", real_run.folder, *texts, "-q")
    rows = np.array([json.loads(line)["embedding"] for line in out.splitlines()])
    expected = SentenceTransformer(str(minilm_dir), device="cpu").encode(texts)
    cosines = (rows * expected).sum(axis=1) / np.linalg.norm(rows, axis=1)
    assert cosines.min() > 0.98
    assert (rows[0] @ rows[1]) < 0.5
