"""A peer beats us only when it is surely faster and also closer."""

from __future__ import annotations

import pytest
from bench_values import OURS, PEER, fidelity, series

from benchmarks.dominance import is_closer, judge_dominance

CLOSER, FURTHER, SAME = fidelity(0.9999, 0.99), fidelity(0.98, 0.90), fidelity(0.999, 0.97)


def judge(peer_ms, peer_fidelity, **changes):
    timed = series({OURS: 10.0, PEER: peer_ms}, **changes)
    return judge_dominance(timed, {OURS: SAME, PEER: peer_fidelity}, OURS, [PEER])


def test_a_faster_and_closer_peer_dominates():
    found = judge(8.0, CLOSER)
    assert found.dominated_by == (PEER,)
    assert found.time_ratios[PEER].value == pytest.approx(0.8, rel=0.02)
    assert "BEATEN by peer (0.8" in found.line


@pytest.mark.parametrize(
    ("peer_ms", "peer_fidelity"), [(8.0, FURTHER), (8.0, SAME), (12.0, CLOSER), (10.0, CLOSER)]
)
def test_faster_alone_or_closer_alone_is_not_enough(peer_ms, peer_fidelity):
    found = judge(peer_ms, peer_fidelity)
    assert found.dominated_by == ()
    assert found.line == "1x16: no peer is both faster and closer"


def test_what_noise_leaves_open_is_no_defeat():
    assert judge(9.8, CLOSER, noise=0.5).dominated_by == ()
    assert judge(9.8, CLOSER, noise=0.001).dominated_by == (PEER,)


def test_overlap_alone_makes_a_peer_closer():
    assert is_closer(fidelity(0.99, 0.98), SAME)
    assert is_closer(fidelity(0.9995, 0.90), SAME)
    assert not is_closer(fidelity(0.99, 0.97), SAME)


def test_without_overlap_the_cosine_decides():
    assert is_closer(fidelity(0.9995, None), SAME)
    assert not is_closer(fidelity(0.99, None), SAME)


def test_two_exact_graphs_are_equally_close():
    assert not is_closer(fidelity(1.0, 1.0), fidelity(1.0 - 1e-12, 1.0))


def test_a_single_round_has_no_verdict():
    with pytest.raises(ValueError, match="single round"):
        judge(8.0, CLOSER, rounds=1)
