"""Who is told to come again finds room then, and is told a time at which there is some."""

from __future__ import annotations

import pytest

from neuron.engine import promises
from neuron.engine.promises import Promises
from neuron.errors import QueueFull
from tests.engine.test_gate import Asked, Door, door, run


def full(queue: int = 4) -> Door:
    """A gate with one place and a queue, all taken."""
    it = door(places=1, queue=queue)
    it.gate.mean_duration_s = 2.0
    for _ in range(queue + 1):
        it.ask("a")
    return it


def refused(it: Door, *, returns: bool = False) -> QueueFull:
    with pytest.raises(QueueFull) as caught:
        it.gate.check("a", None, 1, returns)
    return caught.value


def test_room_that_comes_free_is_for_those_who_come_again() -> None:
    async def scenario() -> None:
        it = full()
        refused(it)
        it.finish()
        assert "1 places kept" in refused(it).message
        it.gate.check("a", None, 1, returns=True)

    run(scenario)


def test_who_comes_again_redeems_what_was_promised() -> None:
    async def scenario() -> None:
        it = full()
        refused(it)
        it.finish()
        it.gate.check("a", None, 1, returns=True)
        assert it.gate.promises.outstanding() == 0
        it.gate.check("a", None, 1)

    run(scenario)


def test_half_of_the_queue_is_for_everybody() -> None:
    async def scenario() -> None:
        it = full(queue=4)
        for _ in range(20):
            refused(it)
        for _ in range(2):
            it.finish()
        refused(it)
        it.finish()
        it.gate.check("a", None, 1)

    run(scenario)


def test_each_is_told_a_later_time_than_the_one_before_and_never_more_than_a_minute() -> None:
    async def scenario() -> None:
        it = full(queue=1)
        waits_s = [refused(it).details["retry_after_s"] for _ in range(40)]
        assert waits_s[:4] == [4, 6, 8, 10]
        assert waits_s[-1] == 60

    run(scenario)


def test_before_anything_has_ended_the_oldest_that_runs_says_how_long_it_takes() -> None:
    async def scenario() -> None:
        it = door(places=1, queue=0)
        it.gate.enter(Asked("a", started_s=promises.time.monotonic() - 7), it.started.append, it.refuse)
        assert refused(it).details["retry_after_s"] == 8

    run(scenario)


def test_a_promise_ends_when_nobody_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(promises.time, "monotonic", lambda: now_s)
    made = Promises()
    made.make(5)
    now_s = 106.9
    assert made.outstanding() == 1
    now_s = 107.1
    assert made.outstanding() == 0
