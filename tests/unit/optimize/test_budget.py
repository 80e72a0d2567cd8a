"""The budget of a search, on a clock that the test sets."""

from __future__ import annotations

import threading

import pytest

from exporter.optimize.budget import SearchBudget, WorkClock


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_only_work_counts(clock):
    work = WorkClock(clock)
    clock.now_s += 50.0  # nobody works: read from the cache, judged, waited
    with work.running():
        clock.now_s += 3.0
    clock.now_s += 50.0
    assert work.worked_s == 3.0


def test_work_under_way_counts(clock):
    work = WorkClock(clock)
    with work.running():
        clock.now_s += 3.0
        assert work.worked_s == 3.0


def test_work_side_by_side_counts_once(clock):
    work = WorkClock(clock)
    with work.running(), work.running():
        clock.now_s += 3.0
    assert work.worked_s == 3.0


def test_work_that_fails_counts_and_ends(clock):
    work = WorkClock(clock)
    with pytest.raises(ValueError, match="ours"), work.running():
        clock.now_s += 3.0
        raise ValueError("ours")
    clock.now_s += 3.0
    assert work.worked_s == 3.0


def test_threads_that_overlap_are_kept_apart(clock):
    """One thread's end must not stop the clock of the other."""
    work, inside, go_on = WorkClock(clock), threading.Event(), threading.Event()

    def other() -> None:
        with work.running():
            inside.set()
            assert go_on.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(10)
    with work.running():
        clock.now_s += 1.0
    clock.now_s += 1.0
    go_on.set()
    thread.join()
    assert work.worked_s == 2.0


def test_a_budget_is_spent_by_work_alone(clock):
    work = WorkClock(clock)
    budget = SearchBudget(5.0, work)
    clock.now_s += 1000.0
    assert budget.refusal() is None
    with work.running():
        clock.now_s += 4.9
    assert budget.refusal() is None
    with work.running():
        clock.now_s += 0.1
    assert budget.refusal() == "not tried: the search budget of 5 s was spent"


def test_a_budget_begins_when_it_is_made(clock):
    work = WorkClock(clock)
    with work.running():
        clock.now_s += 60.0
    assert SearchBudget(5.0, work).refusal() is None


def test_without_a_limit_nothing_is_refused(clock):
    work = WorkClock(clock)
    budget = SearchBudget(None, work)
    with work.running():
        clock.now_s += 1e9
    assert budget.refusal() is None
