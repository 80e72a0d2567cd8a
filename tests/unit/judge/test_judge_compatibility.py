"""The matrix of pairs, checked against an independent brute force, with planted bad members."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from judge_sets import estimate, moved, noisy, retrieval_embeddings, retrieval_set, text_set

from exporter.judge import Embedded, ExchangePolicy, Index, compare_members, judge_upgrade
from exporter.judge.drift import ShapeMismatchError
from exporter.judge.exchange import exchange_of
from exporter.values import EvaluationEmbeddings, MissingMember, SpaceMember, TextsSummary
from targets.errors import ConfigError, NonFiniteError

SUMMARY = TextsSummary(name="made", origin="a test", sha256="0" * 64, num_texts=1)
EVALUATION = retrieval_set(400, 500)
FP32 = retrieval_embeddings(EVALUATION)


def member(name: str, space_id: str = "") -> SpaceMember:
    return SpaceMember(
        name=name,
        space_id=space_id or f"m:{name}",
        recipe=name,
        artifact_sha256="1" * 64,
        bundle="out",
        numerics="device",
    )


def embedded(**rows: EvaluationEmbeddings) -> list[Embedded]:
    return [Embedded(member=member(name), embeddings=one) for name, one in rows.items()]


def compared(members, evaluation=EVALUATION, **changes):
    given = {"summary": SUMMARY, "policy": ExchangePolicy(), "index": Index(), **changes}
    return compare_members(evaluation, members, **given)


def rotated(one: EvaluationEmbeddings) -> EvaluationEmbeddings:
    """The same neighbours, in a space that nobody else shares."""
    rng = np.random.default_rng(5)
    turn = np.linalg.qr(rng.normal(size=(one.documents.shape[1],) * 2))[0].astype(np.float32)
    return EvaluationEmbeddings(queries=one.queries @ turn, documents=one.documents @ turn)


CLOSE, WORSE = moved(FP32, 0.02), moved(FP32, 0.15, seed=3)
MATRIX = compared(embedded(float32=FP32, close=CLOSE, worse=WORSE, rotated=rotated(FP32)))


# ------------------------------------------------------------------------ against brute force


def top_k(queries, documents, k, exclude_self=False) -> list[set[int]]:
    """Sets of neighbours by plain cosine, one query at a time, in float64."""
    found = []
    for number, query in enumerate(np.float64(queries)):
        rows = np.float64(documents)
        cosine = rows @ query / (np.linalg.norm(rows, axis=1) * np.linalg.norm(query))
        ranked = [int(i) for i in np.argsort(-cosine, kind="stable")]
        found.append(set([i for i in ranked if not (exclude_self and i == number)][:k]))
    return found


def test_every_cell_agrees_with_brute_force():
    rows = {"float32": FP32, "close": CLOSE, "worse": WORSE, "rotated": rotated(FP32)}
    truth = top_k(FP32.queries, FP32.documents, 10)
    labels = EVALUATION.judgements
    wanted = {int(q): int(d) for q, d in zip(labels.query, labels.document, strict=True)}
    assert len(MATRIX.cells) == 16
    for cell in MATRIX.cells:
        found = top_k(rows[cell.queries_by].queries, rows[cell.documents_by].documents, 10)
        shared = [len(a & b) / 10 for a, b in zip(truth, found, strict=True)]
        hits = [wanted[q] in one for q, one in enumerate(found)]
        assert cell.overlap_at_k.value == pytest.approx(np.mean(shared), abs=1e-12)
        assert cell.kept.value == pytest.approx(cell.overlap_at_k.value, abs=1e-12)
        assert cell.recall_at_k.value == pytest.approx(np.mean(hits), abs=1e-12)


def test_texts_without_queries_are_queries_among_themselves():
    evaluation = text_set(300)
    mine = EvaluationEmbeddings(queries=FP32.queries[:0], documents=FP32.documents[:300])
    other = EvaluationEmbeddings(queries=FP32.queries[:0], documents=noisy(mine.documents, 0.2))
    matrix = compared(embedded(float32=mine, other=other), evaluation)
    truth = top_k(mine.documents, mine.documents, 10, exclude_self=True)
    found = top_k(other.documents, mine.documents, 10, exclude_self=True)
    shared = [len(a & b) / 10 for a, b in zip(truth, found, strict=True)]
    cell = matrix.cell("other", "float32")
    assert cell.overlap_at_k.value == pytest.approx(np.mean(shared), abs=1e-12)
    assert cell.recall_at_k is None
    assert cell.overlap_at_k.num_samples == 300


def test_rows_stand_for_queries_and_columns_for_documents():
    names = [one.name for one in MATRIX.members]
    assert names[0] == "float32"
    pairs = [(cell.queries_by, cell.documents_by) for cell in MATRIX.cells]
    assert pairs == [(a, b) for a in names for b in names]


def test_intervals_hold_the_figure_and_the_same_seed_gives_the_same():
    for cell in MATRIX.cells:
        for one in (cell.kept, cell.overlap_at_k, cell.recall_at_k):
            assert one.interval.low <= one.value <= one.interval.high
    again = compared(embedded(float32=FP32, close=CLOSE, worse=WORSE, rotated=rotated(FP32)))
    assert again == MATRIX


# --------------------------------------------------------------------------- what a pair is


def test_fp32_is_what_others_are_compared_with():
    cell = MATRIX.cell("float32", "float32")
    assert (cell.exchange, cell.decided, cell.kept.value) == ("drop-in", True, 1.0)
    assert cell.mirror_difference is None


def test_close_members_are_drop_in_in_every_direction():
    for pair in (("close", "float32"), ("float32", "close"), ("close", "close")):
        assert MATRIX.cell(*pair).exchange == "drop-in"


def test_a_rotated_space_serves_itself_and_nobody_else():
    """Overlap with its own documents is perfect: only the pairs show it."""
    assert MATRIX.cell("rotated", "rotated").exchange == "drop-in"
    for pair in (("rotated", "float32"), ("float32", "rotated")):
        cell = MATRIX.cell(*pair)
        assert (cell.exchange, cell.decided) == ("re-index", True)
        assert cell.kept.value < 0.2
        assert "lies below 0.8" in cell.reason


def test_between_the_borders_a_pair_is_degraded():
    cell = MATRIX.cell("worse", "worse")
    assert 0.8 < cell.kept.interval.low < cell.kept.interval.high < 0.95
    assert (cell.exchange, cell.decided) == ("degraded", True)


@pytest.mark.parametrize(("kept", "expected"), [
    ((0.97, 0.96, 0.98), ("drop-in", True)),
    ((0.96, 0.94, 0.98), ("degraded", False)),
    ((0.90, 0.88, 0.92), ("degraded", True)),
    ((0.80, 0.78, 0.82), ("degraded", False)),
    ((0.70, 0.68, 0.72), ("re-index", True)),
])  # fmt: skip
def test_only_what_is_proven_is_drop_in_or_re_index(kept, expected):
    exchange, decided, reason = exchange_of(estimate(*kept), ExchangePolicy())
    assert (exchange, decided) == expected
    assert reason
    if not decided:
        assert "decide" in reason


def test_scrambled_documents_need_a_re_index():
    rng = np.random.default_rng(0)
    scrambled = replace(FP32, documents=rng.permutation(FP32.documents))
    matrix = compared(embedded(float32=FP32, scrambled=scrambled))
    assert matrix.cell("float32", "scrambled").exchange == "re-index"
    assert matrix.cell("scrambled", "float32").exchange == "drop-in"  # its queries are FP32's


def test_asymmetric_pairs_are_shown_as_such():
    """Only the documents moved, so it matters on which side the member stands."""
    half = replace(FP32, documents=WORSE.documents)
    matrix = compared(embedded(float32=FP32, half=half, close=CLOSE))
    there, back = matrix.cell("float32", "half"), matrix.cell("half", "float32")
    assert there.is_asymmetric
    assert back.is_asymmetric
    assert there.mirror_difference.value == pytest.approx(-back.mirror_difference.value)
    assert there.mirror_difference.value == pytest.approx(
        there.overlap_at_k.value - back.overlap_at_k.value
    )
    assert (there.exchange, back.exchange) == ("degraded", "drop-in")
    assert not matrix.cell("float32", "close").is_asymmetric


def test_equal_ids_that_do_not_hold_are_said():
    members = embedded(float32=FP32, other=rotated(FP32))
    same = [replace(one, member=replace(one.member, space_id="m:float32")) for one in members]
    assert "ids are equal all the same" in compared(same).cell("other", "float32").reason


# -------------------------------------------------------------------------- lossy indexes


def test_the_loss_of_the_index_is_not_laid_on_the_pair():
    index = Index(store_precision="binary")
    matrix = compared(embedded(float32=FP32, close=CLOSE, rotated=rotated(FP32)), index=index)
    own = matrix.cell("float32", "float32")
    assert own.overlap_at_k.value < 0.8
    assert own.kept.value == 1.0
    close = matrix.cell("close", "close")
    assert close.kept.value == pytest.approx(close.overlap_at_k.value / own.overlap_at_k.value)
    assert close.exchange == "drop-in"
    assert matrix.cell("rotated", "float32").exchange == "re-index"
    assert (matrix.index, matrix.store_precision) == ("flat", "binary")


def test_an_approximate_index_is_named_with_its_parameters():
    matrix = compared(embedded(float32=FP32, close=CLOSE), index=Index(kind="hnsw"))
    assert matrix.index == "hnsw16"
    assert matrix.cell("float32", "float32").overlap_at_k.value > 0.97


# ------------------------------------------------------------------------------- upgrades


def test_an_index_survives_an_upgrade_that_is_drop_in():
    answer = judge_upgrade(MATRIX, ["close"], ["float32"])
    assert (answer.survives, answer.decided) == ("yes", True)
    assert "queries by close on documents by float32" in answer.reason


def test_the_worst_pair_answers():
    assert judge_upgrade(MATRIX, ["close", "worse"], ["float32"]).survives == "degraded"
    answer = judge_upgrade(MATRIX, ["close", "rotated"], ["float32", "worse"])
    assert (answer.survives, answer.decided) == ("no", True)
    assert answer.worst.queries_by == "rotated"


def test_what_is_missing_leaves_a_yes_open():
    gone = (MissingMember(name="phone", bundle="b", reason="no such device"),)
    answer = judge_upgrade(replace(MATRIX, missing=gone), ["close"], ["float32"])
    assert (answer.survives, answer.decided) == ("yes", False)
    assert "phone: no such device" in answer.reason
    nothing = judge_upgrade(replace(MATRIX, missing=gone), [], ["float32"])
    assert (nothing.survives, nothing.decided, nothing.worst) == ("no", False, None)


# ------------------------------------------------------------------------------ bad input


def test_k_larger_than_the_corpus_is_refused():
    with pytest.raises(ConfigError, match="k = 300 is too large for made, which has 500"):
        compared(embedded(float32=FP32), policy=ExchangePolicy(k=300))


@pytest.mark.parametrize("borders", [(0.8, 0.9), (1.1, 0.8), (0.9, -0.1)])
def test_borders_in_the_wrong_order_are_refused(borders):
    drop_in, degraded = borders
    with pytest.raises(ConfigError, match="are no borders"):
        ExchangePolicy(min_drop_in=drop_in, min_degraded=degraded)


def test_embeddings_of_other_texts_or_another_size_are_refused():
    fewer = replace(FP32, documents=FP32.documents[:-1])
    with pytest.raises(ShapeMismatchError, match="fewer documents"):
        compared(embedded(float32=FP32, fewer=fewer))
    broken = replace(FP32, queries=np.full_like(FP32.queries, np.nan))
    with pytest.raises(NonFiniteError):
        compared(embedded(float32=FP32, broken=broken))
