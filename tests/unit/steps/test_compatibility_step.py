"""The matrix of one export run, and what the command's exit code says."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from exporter.config import Settings
from exporter.progress import SilentReporter
from exporter.steps import compatibility
from exporter.steps.assemble import Shipment
from exporter.steps.compatibility import _exit_code, with_compatibility
from exporter.steps.execution import Built
from exporter.steps.texts import TokenizedEvaluation
from exporter.steps.workspace import Workspace
from exporter.values import EvaluationEmbeddings, EvaluationSet, Upgrade
from targets.contract import ArtifactFile, CompiledArtifact, RunPlan, TokenSequences
from targets.errors import ExitCode, NonFiniteError
from tests.unit.deliver.deliver_records import COMPATIBILITY, INT8, NOT_RUN, RECORD, TARGET

NUM_TEXTS = 400
ROWS = np.random.default_rng(0).normal(size=(NUM_TEXTS, 16)).astype(np.float32)


class Notes(SilentReporter):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def evaluation(num_texts: int = NUM_TEXTS) -> TokenizedEvaluation:
    texts = EvaluationSet(
        name="plain", origin="a test", split="test", query_ids=(), queries=(),
        document_ids=tuple(str(i) for i in range(num_texts)),
        documents=tuple(f"text {i}" for i in range(num_texts)), sha256="0" * 64,
    )  # fmt: skip
    tokens = TokenSequences.from_lists([[i] for i in range(num_texts)], 0)
    nothing = TokenSequences.from_lists([], 0)
    return TokenizedEvaluation(texts=texts, queries=nothing, documents=tokens)


def embeddings(tokens: TokenSequences, noise: float = 0.0) -> EvaluationEmbeddings:
    """A token is its text's number, so rows of a part are those of the whole."""
    rows = ROWS[tokens.ids]
    rows = rows + noise * np.random.default_rng(1).normal(size=rows.shape)
    return EvaluationEmbeddings(queries=np.empty((0, 16), np.float32), documents=np.float32(rows))


class FakeBench:
    def __init__(self, work, stand) -> None:
        self._noise = stand.noise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def embed(self, built, test):
        if self._noise is None:
            raise NonFiniteError("int8: embeddings contain NaN or infinity")
        return embeddings(test.documents, self._noise)


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Compare made-up artifacts: noise of each, or a reason why it failed."""
    monkeypatch.setattr(compatibility, "Bench", FakeBench)

    def go(*noises, measures_latency=True, test=None, not_run=(), **policy):
        test = test or evaluation()
        work = Workspace(settings=Settings(policy=policy), cache=None, reporter=Notes())
        source = SimpleNamespace(reference=lambda one: embeddings(one.documents))
        device = SimpleNamespace(measures_latency=measures_latency)
        stands = [SimpleNamespace(device=device, noise=noise) for noise in noises]
        ships = [shipment(f"t{i}", noise, tmp_path) for i, noise in enumerate(noises)]
        results = (*(one.result for one in ships), *not_run)
        record = replace(RECORD, targets=results)
        record = with_compatibility(work, record, source, test, stands, ships)
        return record.compatibility, work.reporter.notes

    return go


def shipment(target: str, noise, folder) -> Shipment:
    ships = SimpleNamespace(ship=lambda artifact: [("model.bin", "t/model.bin")])
    if isinstance(noise, str):
        failed = replace(NOT_RUN.targets[0], target=target, status="failed", reason=noise)
        return Shipment(target=ships, result=failed, built=None)
    file = ArtifactFile(path="model.bin", sha256="d" * 64, size_bytes=1)
    artifact = CompiledArtifact(
        directory=folder, files=(replace(file, path="other", sha256="e" * 64), file),
        target=target, recipe=INT8, built_from="", device_requirement=(), tool_versions={},
        compile_s=0.0,
    )  # fmt: skip
    plan = RunPlan(
        adapter=folder, model=folder, inputs=(), output="", pad_token_id=0, embedding_dim=16,
        max_seq_length=8,
    )  # fmt: skip
    result = replace(TARGET, target=target, artifact=None)
    return Shipment(target=ships, result=result, built=Built(artifact=artifact, plan=plan))


def test_one_artifact_alone_is_compared_with_nobody(run):
    assert run(0.0) == (None, [])


def test_all_pairs_of_a_run_are_compared_fp32_first(run):
    matrix, _ = run(0.0, 1.5)
    assert [one.name for one in matrix.members] == ["float32", "t0 int8", "t1 int8"]
    assert len(matrix.cells) == 9
    assert matrix.cell("t0 int8", "float32").exchange == "drop-in"
    assert matrix.cell("t1 int8", "t0 int8").exchange == "re-index"
    assert matrix.evaluation.num_documents == NUM_TEXTS
    assert (matrix.index, matrix.store_precision) == ("flat", "float32")


def test_the_hash_is_that_of_the_file_that_the_bundle_s_report_names(run):
    matrix, _ = run(0.0, 0.0)
    assert matrix.members[1].artifact_sha256 == "d" * 64
    assert matrix.members[0].artifact_sha256 == RECORD.encoder.weights_sha256


def test_what_failed_is_missing_with_its_reason(run):
    matrix, _ = run(0.0, "it crashed")
    assert [one.name for one in matrix.members] == ["float32", "t0 int8"]
    assert [(one.name, one.reason) for one in matrix.missing] == [("t1", "it crashed")]


def test_what_was_never_started_is_missing_too(run):
    matrix, _ = run(0.0, not_run=NOT_RUN.targets)
    assert [one.name for one in matrix.members] == ["float32", "t0 int8"]
    (gone,) = matrix.missing
    assert (gone.name, gone.reason) == ("tensorrt", NOT_RUN.targets[0].reason)


def test_an_artifact_that_embeds_no_numbers_costs_the_run_nothing(run):
    matrix, _ = run(0.0, None, 0.01)
    assert [one.name for one in matrix.members] == ["float32", "t0 int8", "t2 int8"]
    assert [(one.name, one.reason) for one in matrix.missing] == [
        ("t1", "int8: embeddings contain NaN or infinity")
    ]


def test_a_run_without_any_artifact_has_no_matrix(run):
    assert run("it crashed", "it crashed too") == (None, [])


def test_where_a_device_took_a_part_all_are_compared_on_that_part(run):
    matrix, _ = run(0.0, 0.01, measures_latency=False)
    assert matrix.evaluation.num_documents == 380
    assert matrix.cell("t0 int8", "float32").kept.value == 1.0


def test_too_few_texts_cost_the_matrix_and_not_the_run(run):
    matrix, notes = run(0.0, 0.0, test=evaluation(15))
    assert matrix is None
    assert "no compatibility matrix: k = 10 is too large" in notes[0]


def test_the_user_s_own_promise_is_the_border_of_drop_in(run):
    matrix, _ = run(0.0, 0.3, min_overlap_at_k=0.5)
    assert (matrix.min_drop_in, matrix.min_degraded) == (0.5, 0.5)


# ------------------------------------------------------------------------------ exit codes

WHOLE = replace(COMPATIBILITY, missing=())


@pytest.mark.parametrize(("survives", "decided", "code"), [
    ("yes", True, ExitCode.PASS), ("yes", False, ExitCode.INCONCLUSIVE),
    ("degraded", True, ExitCode.GATE_FAILED), ("degraded", False, ExitCode.INCONCLUSIVE),
    ("no", True, ExitCode.GATE_FAILED), ("no", False, ExitCode.INCONCLUSIVE),
])  # fmt: skip
def test_an_upgrade_passes_only_what_is_proven(survives, decided, code):
    upgrade = Upgrade(
        survives=survives, decided=decided, queries_by=(), documents_by=(), worst=None, reason="r"
    )
    assert _exit_code(WHOLE, upgrade) == code


def test_a_matrix_alone_fails_nothing_but_says_what_is_missing():
    assert _exit_code(WHOLE, None) == ExitCode.PASS
    assert _exit_code(COMPATIBILITY, None) == ExitCode.INCONCLUSIVE
