"""Admission: a place and cache bytes for each generation, callers in turns; used on the event loop only."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from neuron.engine.promises import Promises
from neuron.engine.turns import Turns
from neuron.errors import InsufficientCache, NeuronError, OverShare, QueueFull
from neuron.settings import Settings


class Entrant(Protocol):
    """What asks for a place: a generation or an embedding."""

    @property
    def principal(self) -> str: ...
    @property
    def principal_limit(self) -> int | None: ...
    @property
    def kv_bytes(self) -> int: ...
    @property
    def n_answers(self) -> int: ...
    @property
    def started_s(self) -> float: ...
    @property
    def ended_s(self) -> float: ...


E = TypeVar("E", bound=Entrant)


@dataclass(slots=True)
class _Waiting:
    entrant: Entrant
    start: Callable[[], None]
    timer: asyncio.TimerHandle


@dataclass(slots=True, kw_only=True)
class Gate:
    """Counts what one model has given out. Bytes are looked at before places. Callers take turns in the queue, and
    nobody overtakes whose turn it is."""

    max_in_flight: int
    max_queue_depth: int
    queue_timeout_s: float
    kv_budget_bytes: int
    kv_used_bytes: int = 0
    rejected_queue_full: int = 0
    rejected_over_share: int = 0
    rejected_timeout: int = 0
    mean_duration_s: float = 0.0
    """Running mean of how long a generation held its place."""
    used_s: float = field(default_factory=time.monotonic)
    """`time.monotonic` when somebody last left, or of the load."""
    running: set[Entrant] = field(default_factory=set)
    waiting: Turns[_Waiting] = field(default_factory=Turns)
    promises: Promises = field(default_factory=Promises)

    def configure(self, settings: Settings) -> None:
        """Take other limits. What has a place keeps it; who waits enters if there is room now."""
        self.max_in_flight, self.max_queue_depth = settings.max_in_flight, settings.max_queue_depth
        self.queue_timeout_s = settings.queue_timeout_s
        self._advance()

    def check(
        self, principal: str, principal_limit: int | None, n_answers: int, returns: bool = False
    ) -> None:
        """Refuse who can't enter now, whatever it asks for, before the work of preparing it; raises as `enter`.

        Up to half of the queue is kept for those who were told to come again: who was refused before and
        ``returns`` has it, so that who asks without a pause does not always come first.
        """
        self._check_share(principal, principal_limit, n_answers)
        kept = 0 if returns else min(self.promises.outstanding(), self.max_queue_depth // 2)
        nobody_fits = self.waiting or (self.running and self.in_flight >= self.max_in_flight)
        if nobody_fits and len(self.waiting) >= self.max_queue_depth - kept:
            raise self._full(kept)
        if returns:
            self.promises.keep()

    def enter(self, entrant: E, start: Callable[[E], None], refuse: Callable[[E, NeuronError], None]) -> None:
        """Start the entrant now or queue it; ``refuse`` is called later if it waits too long.

        Raises `OverShare` when its caller has enough, and `QueueFull` when there is no room to wait.
        """
        self._check_share(entrant.principal, entrant.principal_limit, entrant.n_answers)
        if not self.waiting and self._fits(entrant):
            self._start(entrant, lambda: start(entrant))
            return
        if len(self.waiting) >= self.max_queue_depth:
            raise self._full()
        patience_s = self.queue_timeout_s
        timer = asyncio.get_running_loop().call_later(
            patience_s, lambda: self._time_out(entrant, refuse, patience_s)
        )
        self.waiting.add(entrant.principal, _Waiting(entrant, lambda: start(entrant), timer))

    def leave(self, entrant: Entrant) -> None:
        """Give back what the entrant held, or its place in the queue, and start who comes next. Idempotent."""
        if entrant in self.running:
            self.running.remove(entrant)
            self.kv_used_bytes -= entrant.kv_bytes
            self._learn(entrant.ended_s - entrant.started_s)
        else:
            self._withdraw(entrant)
        self.used_s = time.monotonic()
        self._advance()

    def retry_after_s(self) -> int:
        """Seconds until a place is likely to be free, 1 to 60: from how long generations took (or, before the first
        has ended, take), and how many come before, those who were told to come again among them."""
        rounds = (len(self.waiting) + self.promises.outstanding() + 1) / self.max_in_flight
        return math.ceil(min(60, max(1, rounds * (self.mean_duration_s or self._longest_s()))))

    def _longest_s(self) -> float:
        """How long the oldest that runs has been at it."""
        return max((time.monotonic() - e.started_s for e in self.running if e.started_s), default=0.0)

    @property
    def busy(self) -> bool:
        """Whether somebody is in or waits."""
        return bool(self.running or self.waiting)

    @property
    def in_flight(self) -> int:
        """Answers that are being computed."""
        return sum(entrant.n_answers for entrant in self.running)

    def _check_share(self, principal: str, limit: int | None, n_answers: int) -> None:
        """An entrant that is larger than its caller's share by itself passes when the caller has nothing else."""
        if limit is None:
            return
        held = sum(e.n_answers for e in self._all() if e.principal == principal)
        if not held or held + n_answers <= limit:
            return
        self.rejected_over_share += 1
        raise OverShare(
            f"{held} answers for {principal!r} run or wait on this model, and it may have {limit}",
            hint="wait for one of them to end",
            retry_after_s=self.retry_after_s(),
        )

    def _full(self, kept: int = 0) -> QueueFull:
        self.rejected_queue_full += 1
        wait_s = self.retry_after_s()
        self.promises.make(wait_s)
        held = f", {kept} places kept for those who come again" if kept else ""
        return QueueFull(
            f"the queue is full: {len(self.running)} running, {len(self.waiting)} waiting{held}",
            retry_after_s=wait_s,
        )

    def _all(self) -> Iterator[Entrant]:
        yield from self.running
        yield from (entry.entrant for entry in self.waiting)

    def _fits(self, entrant: Entrant) -> bool:
        if self.kv_used_bytes + entrant.kv_bytes > self.kv_budget_bytes:
            return False
        return not self.running or self.in_flight + entrant.n_answers <= self.max_in_flight

    def _start(self, entrant: Entrant, start: Callable[[], None]) -> None:
        self.running.add(entrant)
        self.kv_used_bytes += entrant.kv_bytes
        start()

    def _advance(self) -> None:
        while self.waiting and self._fits(self.waiting.first().entrant):
            entry = self.waiting.take()
            entry.timer.cancel()
            self._start(entry.entrant, entry.start)

    def _withdraw(self, entrant: Entrant) -> None:
        for entry in list(self.waiting):
            if entry.entrant is entrant:
                entry.timer.cancel()
                self.waiting.remove(entrant.principal, entry)

    def _time_out(self, entrant: E, refuse: Callable[[E, NeuronError], None], waited_s: float) -> None:
        """``refuse`` is expected to end in `leave`, which takes the entrant out of the queue."""
        self.rejected_timeout += 1
        refuse(entrant, self._waited_too_long(entrant, waited_s))

    def _waited_too_long(self, entrant: Entrant, waited_s: float) -> NeuronError:
        free = self.kv_budget_bytes - self.kv_used_bytes
        waited = f"waited {waited_s:g} s"
        if entrant.kv_bytes > free:
            return InsufficientCache(
                f"{waited} for {entrant.kv_bytes >> 20} MB of cache, {free >> 20} MB are free",
                hint="ask for fewer tokens, or try again later",
                required_mb=entrant.kv_bytes >> 20,
                free_mb=free >> 20,
                retry_after_s=self.retry_after_s(),
            )
        return QueueFull(f"{waited} in the queue", retry_after_s=self.retry_after_s())

    def _learn(self, duration_s: float) -> None:
        first = self.mean_duration_s == 0
        self.mean_duration_s += (duration_s - self.mean_duration_s) * (1.0 if first else 0.2)
