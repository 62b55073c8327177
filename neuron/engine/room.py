"""Room for a load: which models go, where the settings let models go at all; used on the event loop only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace

from neuron.engine.plan import LoadPlan
from neuron.engine.registry import Entries, Entry
from neuron.engine.running import Running
from neuron.settings import Settings


def victims(entries: Iterable[Entry], missing_bytes: int) -> list[Entry]:
    """The least recently used of ``entries`` that together give so many bytes back; none if all of them can't."""
    found: list[Entry] = []
    for entry in sorted(entries, key=lambda entry: entry.used_s):
        if missing_bytes <= 0:
            break
        found.append(entry)
        missing_bytes -= entry.held_bytes
    return found if missing_bytes <= 0 else []


class Room:
    """Unloads models for the sake of another: idle ones, never pinned ones, none that a request waits for."""

    def __init__(
        self,
        settings: Settings,
        running: Running,
        entries: Entries,
        unload: Callable[[Entry], asyncio.Task[None]],
        returns: Callable[[Entry], bool],
    ) -> None:
        """``unload`` begins at once; ``returns`` says whether a request has a model loaded again."""
        self.settings = settings
        self._running = running
        self._entries = entries
        self._unload = unload
        self._returns = returns

    def preview(self, plan: LoadPlan) -> LoadPlan:
        """The plan with the models that would be unloaded for it now."""
        if not self.settings.unload_when_short or not plan.missing_bytes:
            return plan
        gone = victims(self._idle(), plan.missing_bytes)
        return replace(
            plan,
            evicts=tuple(entry.spec.model_id for entry in gone),
            evicted_bytes=sum(entry.held_bytes for entry in gone),
        )

    async def make(
        self, entry: Entry, plan: Callable[[], Awaitable[LoadPlan]], waits: Callable[[], None]
    ) -> None:
        """Unload what must go for the load of ``entry``; nothing where that does not help: the load then says why.
        ``waits`` is called where it takes time.

        A load that requests wait for waits until models have done their work, up to ``queue_timeout_s``.
        """
        if not self.settings.unload_when_short or entry.spec.force:
            return
        deadline_s = time.monotonic() + self.settings.queue_timeout_s
        while missing := (await plan()).missing_bytes:
            waits()
            gone = victims(self._idle(), missing) or await self._awaited(entry, missing, deadline_s)
            if not gone:
                return
            await asyncio.wait([self._unload(one) for one in gone])

    async def _awaited(self, entry: Entry, missing: int, deadline_s: float) -> list[Entry]:
        """Victims, once enough models are idle; none where that can't come, or not in time."""
        wanted = victims(self._loaded(), missing) if entry.claims else []
        asked = [one for one in wanted if self._returns(one)]
        for one in asked:
            one.closing = True
        try:
            if wanted:
                await self._running.until(
                    lambda: bool(victims(self._idle(), missing)), deadline_s - time.monotonic()
                )
            return victims(self._idle(), missing)
        finally:
            for one in asked:
                one.closing = one.state != "loaded"
            self._running.notify()

    def _loaded(self) -> list[Entry]:
        return [e for e in self._entries.distinct() if e.state == "loaded" and not e.spec.pinned]

    def _idle(self) -> list[Entry]:
        return [entry for entry in self._loaded() if entry.idle_s is not None]
