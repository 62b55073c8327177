"""Who gets the next place of a model: callers take turns, and none has more than its share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from neuron.engine.gate import Gate
from neuron.errors import InsufficientCache, NeuronError, OverShare, QueueFull
from neuron.settings import Settings


@dataclass(eq=False)
class Asked:
    """One request of a caller."""

    principal: str
    name: str = ""
    kv_bytes: int = 1
    n_answers: int = 1
    principal_limit: int | None = None
    started_s: float = 1.0
    ended_s: float = 2.0
    error: NeuronError | None = None


@dataclass
class Door:
    """A gate, and who came through it in which order."""

    gate: Gate
    started: list[Asked] = field(default_factory=list)

    def ask(self, principal: str, name: str = "", **more: int) -> Asked:
        asked = Asked(principal, name or principal, **more)  # type: ignore[arg-type]
        self.gate.enter(asked, self.started.append, self.refuse)
        return asked

    def refuse(self, asked: Asked, error: NeuronError) -> None:
        asked.error = error
        self.gate.leave(asked)

    def finish(self) -> None:
        """Whoever started first leaves."""
        self.gate.leave(next(a for a in self.started if a in self.gate.running))

    def names(self) -> list[str]:
        return [asked.name for asked in self.started]


def door(places: int = 1, queue: int = 100, kv_bytes: int = 1000, timeout_s: float = 60) -> Door:
    return Door(
        Gate(max_in_flight=places, max_queue_depth=queue, queue_timeout_s=timeout_s, kv_budget_bytes=kv_bytes)
    )


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    """The gate belongs to an event loop."""

    async def main() -> None:
        await scenario()

    asyncio.run(main())


def test_a_light_caller_waits_for_one_request_of_a_heavy_one() -> None:
    async def scenario() -> None:
        it = door()
        for n in range(51):
            it.ask("heavy", f"heavy {n}")
        it.ask("light")
        assert it.names() == ["heavy 0"]
        for _ in range(4):
            it.finish()
        assert it.names() == ["heavy 0", "heavy 1", "light", "heavy 2", "heavy 3"]

    run(scenario)


def test_callers_take_turns_and_each_ones_requests_stay_in_order() -> None:
    async def scenario() -> None:
        it = door()
        it.ask("x", "first")
        for name in ("a1", "a2", "a3", "b1", "b2", "c1"):
            it.ask(name[0], name)
        for _ in range(6):
            it.finish()
        assert it.names() == ["first", "a1", "b1", "c1", "a2", "b2", "a3"]
        it.finish()
        assert (len(it.gate.waiting), it.gate.kv_used_bytes, it.gate.running) == (0, 0, set())

    run(scenario)


def test_a_single_caller_is_served_in_order() -> None:
    async def scenario() -> None:
        it = door(places=2)
        names = [str(n) for n in range(8)]
        for name in names:
            it.ask("a", name)
        for _ in names:
            it.finish()
        assert it.names() == names

    run(scenario)


def test_nobody_overtakes_whose_turn_it_is_even_where_a_smaller_one_would_fit() -> None:
    async def scenario() -> None:
        it = door(places=10, kv_bytes=10)
        it.ask("a", "running", kv_bytes=6)
        it.ask("a", "large", kv_bytes=9)
        it.ask("b", "small", kv_bytes=1)
        assert it.names() == ["running"]
        it.finish()
        assert it.names() == ["running", "large", "small"]

    run(scenario)


def test_who_leaves_the_queue_costs_nobody_a_turn() -> None:
    async def scenario() -> None:
        it = door()
        it.ask("x", "first")
        gone = [it.ask("a", "a1"), it.ask("b", "b1")]
        it.ask("a", "a2")
        it.ask("b", "b2")
        for asked in gone:
            it.gate.leave(asked)
            it.gate.leave(asked)
        it.finish()
        it.finish()
        assert it.names() == ["first", "a2", "b2"]

    run(scenario)


def test_a_caller_over_its_share_is_refused_until_one_of_its_answers_ended() -> None:
    async def scenario() -> None:
        it = door()
        it.ask("a", principal_limit=2)
        it.ask("a", principal_limit=2)
        with pytest.raises(OverShare, match="2 answers for 'a' run or wait") as refused:
            it.ask("a", principal_limit=2)
        assert 1 <= refused.value.details["retry_after_s"] <= 60
        it.ask("b", principal_limit=2)
        it.finish()
        it.ask("a", principal_limit=2)
        assert it.gate.rejected_over_share == 1
        assert it.gate.rejected_queue_full == 0

    run(scenario)


def test_a_share_counts_answers_and_one_request_larger_than_it_passes_alone() -> None:
    async def scenario() -> None:
        it = door(places=8)
        it.ask("a", n_answers=4, principal_limit=3)
        with pytest.raises(OverShare):
            it.ask("a", principal_limit=3)
        it.finish()
        it.ask("a", n_answers=2, principal_limit=3)
        with pytest.raises(OverShare):
            it.ask("a", n_answers=2, principal_limit=3)
        it.ask("a", principal_limit=3)

    run(scenario)


def test_a_full_queue_and_a_long_wait_are_refused_as_before() -> None:
    async def scenario() -> None:
        it = door(queue=2, kv_bytes=10, timeout_s=0.05)
        it.ask("a", "running", kv_bytes=8)
        waiting = [it.ask("a", kv_bytes=8), it.ask("b", kv_bytes=1)]
        with pytest.raises(QueueFull, match="1 running, 2 waiting"):
            it.ask("c")
        await asyncio.sleep(0.2)
        assert [type(asked.error) for asked in waiting] == [InsufficientCache, QueueFull]
        assert (len(it.gate.waiting), it.names()) == (0, ["running"])

    run(scenario)


def test_new_limits_let_in_who_waits_and_keep_who_has_a_place() -> None:
    async def scenario() -> None:
        it = door(places=1)
        for name in "abc":
            it.ask(name)
        assert it.names() == ["a"]
        it.gate.configure(Settings(max_in_flight=2, max_queue_depth=0))
        assert it.names() == ["a", "b"]
        with pytest.raises(QueueFull):
            it.ask("d")
        it.gate.configure(Settings(max_in_flight=1, max_queue_depth=1))
        assert len(it.gate.running) == 2
        it.finish()
        assert it.names() == ["a", "b"]  # a place is free only when one runs no more
        it.finish()
        assert it.names() == ["a", "b", "c"]

    run(scenario)


def test_who_finds_no_room_is_told_before_the_work_and_counted_once() -> None:
    async def scenario() -> None:
        it = door(places=1, queue=1)
        it.gate.check("a", None, 1)
        it.ask("a")
        it.gate.check("a", None, 1)
        it.ask("a")
        with pytest.raises(QueueFull, match="1 running, 1 waiting"):
            it.gate.check("a", None, 1)
        assert it.gate.rejected_queue_full == 1
        with pytest.raises(OverShare, match="2 answers for 'a'"):
            it.gate.check("a", 2, 1)
        it.finish()
        it.gate.check("a", None, 1)

    run(scenario)


def test_without_a_queue_there_is_room_while_there_are_places() -> None:
    async def scenario() -> None:
        it = door(places=2, queue=0)
        it.gate.check("a", None, 1)
        it.ask("a")
        it.gate.check("a", None, 1)
        it.ask("a")
        with pytest.raises(QueueFull):
            it.gate.check("a", None, 1)

    run(scenario)
