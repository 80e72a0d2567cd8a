"""Whom a target's artifact meets; the peers' own programs are stood in for by small ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks import peer_files
from benchmarks.contenders import BASELINE, Brief, peer_contender
from benchmarks.habits import PEER_BATCH_SIZE
from benchmarks.line_ups import LEVELS, LINE_UPS, PRESETS, without_copies
from benchmarks.peer_files import onnxruntime_files
from benchmarks.side_env import SideEnvironment
from exporter.config import Settings
from exporter.pipeline import open_workspace
from exporter.progress import SilentReporter
from exporter.steps.workspace import Workspace
from exporter.values import EncoderSpec
from targets.errors import StepError

SPEC = EncoderSpec(
    model_id="a/model",
    source="local",
    directory=Path("model"),
    revision=None,
    library="sentence_transformers",
    architecture="BertModel",
    model_type="bert",
    pooling="mean",
    normalize=True,
    modules=("Transformer", "Pooling", "Normalize"),
    embedding_dim=8,
    max_seq_length=64,
    weights_sha256="1" * 64,
    tokenizer_sha256="2" * 64,
)
BRIEF = Brief(spec=SPEC, pad_token_id=3, calibration=("one text", "another"))
# Notes what it was asked, and writes each form as a file; `ALIKE` forms are the same bytes.
PROGRAM = """
import json, pathlib, sys
request = json.load(open(sys.argv[1]))
with open(pathlib.Path(__file__).with_suffix(".asked"), "a") as asked:
    asked.write(json.dumps(request) + chr(10))
folder = pathlib.Path(request["output"])
folder.mkdir()
forms = ["float32", *request.get("presets", ["int8"]), *request.get("levels", [])]
for form in forms:
    (folder / form).write_text("alike" if form in ALIKE else form)
answer = {"inputs": ["input_ids"], "files": {f: f for f in forms}, "versions": {"maker": "1.0"}}
json.dump(answer, open(sys.argv[2], "w"))
"""


@dataclass
class Makers:
    """The stand-ins' folder, and what they were asked."""

    folder: Path

    def write(self, text=PROGRAM, alike=("avx512", "avx512_vnni")) -> None:
        for name in ("export_onnx", "export_openvino"):
            (self.folder / f"{name}.py").write_text(f"ALIKE = {alike!r}\n{text}")

    def asked(self, name: str) -> list[dict]:
        noted = self.folder / f"{name}.asked"
        return [json.loads(line) for line in noted.read_text().splitlines()]


@pytest.fixture
def makers(tmp_path, monkeypatch) -> Makers:
    def here(name, note):
        return SideEnvironment(name=name, directory=tmp_path / "environment")

    (tmp_path / "environment" / "bin").mkdir(parents=True)
    (tmp_path / "environment" / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "programs").mkdir()
    monkeypatch.setattr(peer_files, "side_environment", here)
    monkeypatch.setattr(peer_files, "_PROGRAMS", tmp_path / "programs")
    found = Makers(tmp_path / "programs")
    found.write()
    return found


@pytest.fixture
def work(tmp_path) -> Iterator[Workspace]:
    settings = Settings(target=("openvino",), cache=tmp_path / "cache")
    with open_workspace(settings, SilentReporter()) as opened:
        yield opened


def names(peers) -> list[str]:
    return [peer.name for peer in peers]


def test_onnxruntime_meets_every_helper_of_its_peers(makers, work):
    makers.write(alike=())
    peers = LINE_UPS["onnxruntime"].peers(work, BRIEF)
    forms = ("avx2", "avx512", "avx512_vnni", "O1", "O2", "O3")
    assert names(peers) == [BASELINE, *(f"st-onnx-{form}" for form in forms)]
    assert [peer.plan.model.read_text() for peer in peers] == ["float32", *forms]
    (asked,) = makers.asked("export_onnx")
    assert (tuple(asked["presets"]), tuple(asked["levels"])) == (PRESETS, LEVELS)


def test_the_same_bytes_take_part_once_under_both_names(makers, work):
    peers = LINE_UPS["onnxruntime"].peers(work, BRIEF)
    assert "st-onnx-avx512_vnni" not in names(peers)
    (one,) = [peer for peer in peers if peer.name == "st-onnx-avx512"]
    assert one.title.endswith("(the same bytes: st-onnx-avx512_vnni)")
    assert len(peers) == len(PRESETS) + len(LEVELS)
    assert not [peer for peer in peers if "same bytes" in peer.title and peer is not one]


def test_the_baseline_stays_even_where_a_helper_changed_nothing(makers, work):
    makers.write(alike=("float32", "O1"))
    peers = LINE_UPS["onnxruntime"].peers(work, BRIEF)
    assert names(peers)[0] == BASELINE
    assert "st-onnx-O1" in names(peers)


def test_openvino_meets_its_four(makers, work):
    peers = LINE_UPS["openvino"].peers(work, BRIEF)
    assert names(peers) == [BASELINE, "st-onnx-int8", "st-openvino", "st-openvino-int8"]
    (onnx,), (openvino,) = makers.asked("export_onnx"), makers.asked("export_openvino")
    assert (onnx["presets"], onnx["levels"]) == (["avx512_vnni"], [])
    assert openvino["texts"] == ["one text", "another"]


@pytest.mark.parametrize("target", LINE_UPS)
def test_peers_keep_their_users_habits(makers, work, target):
    for peer in LINE_UPS[target].peers(work, BRIEF):
        assert peer.batch_size == PEER_BATCH_SIZE
        assert peer.plan.output == "last_hidden_state"
        assert (peer.plan.length_multiple, peer.plan.pad_token_id) == (1, 3)
        assert peer.plan.max_batch_tokens == PEER_BATCH_SIZE * SPEC.max_seq_length
        assert peer.num_threads is None
        assert peer.versions == {"maker": "1.0"}


def test_the_same_is_exported_once(makers, work):
    for _ in range(2):
        onnxruntime_files(work, SPEC, ("avx2",), ("O1",))
    assert len(makers.asked("export_onnx")) == 1


@pytest.mark.parametrize(
    ("presets", "levels"),
    [(("avx512",), ("O1",)), (("avx2",), ("O2",)), (("avx2",), ()), (("avx2", "O1"), ())],
)
def test_other_forms_are_another_export(makers, work, presets, levels):
    onnxruntime_files(work, SPEC, ("avx2",), ("O1",))
    found = onnxruntime_files(work, SPEC, presets, levels)
    assert len(makers.asked("export_onnx")) == 2
    assert set(found.files) == {"float32", *presets, *levels}


def test_a_changed_program_is_another_export(makers, work):
    onnxruntime_files(work, SPEC, ("avx2",))
    makers.write(alike=("avx2",))
    assert onnxruntime_files(work, SPEC, ("avx2",)).entry("avx2").read_text() == "alike"


def test_a_helper_that_fails_ends_the_comparison_by_name(makers, work):
    makers.write("raise SystemExit('mpnet is not supported')")
    with pytest.raises(StepError, match=r"export_onnx\.py failed in the onnxruntime") as caught:
        LINE_UPS["onnxruntime"].peers(work, BRIEF)
    assert "mpnet is not supported" in caught.value.why


def test_three_of_a_kind_are_one(makers, work):
    makers.write(alike=("avx2", "avx512", "O3"))
    files = onnxruntime_files(work, SPEC, PRESETS, LEVELS)
    forms = (*PRESETS, *LEVELS)
    kept = without_copies(peer_contender(BRIEF, files, f, name=f, title="int8") for f in forms)
    assert names(kept) == ["avx2", "avx512_vnni", "O1", "O2"]
    assert kept[0].title == "int8 (the same bytes: avx512, O3)"


def test_every_target_has_its_own_bundle_and_results():
    for what in ("bundle", "results"):
        assert len({getattr(one, what) for one in LINE_UPS.values()}) == len(LINE_UPS)
    assert LINE_UPS["openvino"].results == "peers.json"
    assert LINE_UPS["onnxruntime"].results == "peers-onnxruntime.json"
    assert all(target == one.target for target, one in LINE_UPS.items())
