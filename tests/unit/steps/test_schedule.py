"""Who runs when."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from exporter.steps.schedule import Turns, run_stands

LONG_S = 20.0


def stand(name: str, *, timed: bool = True):
    return SimpleNamespace(device=SimpleNamespace(name=name, measures_latency=timed))


def test_results_come_in_the_order_of_the_stands():
    stands = [stand("emulated:a", timed=False), stand("local"), stand("ssh://b")]
    assert run_stands(stands, lambda one: one.device.name, Turns()) == [
        "emulated:a",
        "local",
        "ssh://b",
    ]


def test_machines_elsewhere_work_at_the_same_time():
    both = threading.Barrier(2, timeout=LONG_S)  # breaks unless two threads wait at once
    run_stands([stand("ssh://a"), stand("ssh://b")], lambda _: both.wait(), Turns())


def test_a_machine_elsewhere_works_while_this_one_is_timed():
    both = threading.Barrier(2, timeout=LONG_S)
    run_stands([stand("local"), stand("ssh://b")], lambda _: both.wait(), Turns())


def test_emulated_devices_work_at_the_same_time_as_each_other():
    both = threading.Barrier(2, timeout=LONG_S)
    stands = [stand("emulated:a", timed=False), stand("emulated:b", timed=False)]
    run_stands(stands, lambda _: both.wait(), Turns())


def test_nothing_emulated_starts_before_this_machine_is_timed():
    order: list[str] = []
    stands = [stand("emulated:a", timed=False), stand("local"), stand("local:avx2")]
    run_stands(stands, lambda one: order.append(one.device.name), Turns())
    assert order == ["local", "local:avx2", "emulated:a"]


def test_what_others_need_of_this_machine_waits_until_it_was_timed():
    turns, timing, compiled = Turns(), threading.Event(), threading.Event()

    def work(one):
        if one.device.name == "local":
            timing.set()
            assert not compiled.wait(0.3), "somebody compiled while this machine was timed"
        else:
            assert timing.wait(LONG_S)
            with turns.here():
                compiled.set()

    run_stands([stand("local"), stand("ssh://b")], work, turns)
    assert compiled.is_set()


def test_an_error_ends_what_the_others_wait_for():
    turns, ended = Turns(), threading.Event()
    turns.on_interrupt(ended.set)

    def work(one):
        if one.device.name == "local":
            raise KeyboardInterrupt
        assert ended.wait(LONG_S), "nobody ended it"

    with pytest.raises(KeyboardInterrupt):
        run_stands([stand("ssh://b"), stand("local")], work, turns)
    assert ended.is_set()


def test_a_single_stand_runs_in_this_thread():
    (thread,) = run_stands([stand("ssh://b")], lambda _: threading.current_thread(), Turns())
    assert thread is threading.current_thread()
