"""Models that are loaded when a request asks for them: one load for all that ask; used on the event loop only."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from neuron.engine.api import Fetch
from neuron.engine.registry import Entry
from neuron.engine.request import LoadSpec
from neuron.engine.running import Running
from neuron.engine.status import ModelStatus
from neuron.errors import QueueFull, ShuttingDown
from neuron.settings import Settings

RETRY_S = 5.0
"""How long a failed load speaks for the requests that follow it."""


class Demand:
    """What may be loaded on request, and who waits for it."""

    def __init__(
        self,
        settings: Settings,
        running: Running,
        entries: Mapping[str, Entry],
        begin_load: Callable[[LoadSpec, Fetch], Entry],
    ) -> None:
        self.settings = settings
        self._running = running
        self._entries = entries
        self._begin_load = begin_load
        self._offered: dict[str, tuple[LoadSpec, Fetch]] = {}
        self._waiting: Counter[str] = Counter()
        self._stopped = asyncio.Event()

    def offer(self, models: Iterable[tuple[LoadSpec, Fetch]]) -> None:
        """See `neuron.engine.api.EngineApi.offer`."""
        self._offered.update({spec.model_id: (spec, fetch) for spec, fetch in models})

    def offers(self, entry: Entry) -> bool:
        """Whether a request has this model loaded again."""
        return entry.spec.model_id in self._offered

    def statuses(self) -> list[ModelStatus]:
        """Offered models that are in no other state."""
        absent = (spec for name, (spec, _) in self._offered.items() if name not in self._entries)
        return [
            ModelStatus(id=s.model_id, harness=s.harness, state="available", source=s.source) for s in absent
        ]

    def stop(self) -> None:
        """Refuse who waits for a model."""
        self._stopped.set()
        self._running.notify()

    @asynccontextmanager
    async def hold(self, model_id: str) -> AsyncIterator[None]:
        """See `neuron.engine.api.EngineApi.hold`."""
        entry = await self._entry(model_id) if model_id in self._offered else self._entries.get(model_id)
        if entry is None or (entry.state != "loaded" and model_id not in self._offered):
            yield  # who uses it says that it is not there
            return
        with claimed(entry, self._running):
            if entry.state == "loading":
                with self._queued(model_id):
                    await self._until_done(entry)
            if entry.failure is not None:
                raise entry.failure
            yield

    async def _entry(self, model_id: str) -> Entry:
        """The offered model, loaded or on its way in."""
        while True:
            entry = self._entries.get(model_id)
            if entry is not None and (entry.state == "unloading" or entry.closing):
                with self._queued(model_id):
                    await self._until_gone(entry)
            elif entry is None or (entry.state == "failed" and time.monotonic() - entry.failed_s > RETRY_S):
                return self._begin_load(*self._offered[model_id])
            else:
                return entry

    @contextmanager
    def _queued(self, model_id: str) -> Iterator[None]:
        """Count among those that wait for the model. Raises `QueueFull`."""
        limit = self.settings.max_in_flight + self.settings.max_queue_depth
        if self._waiting[model_id] >= limit:
            raise QueueFull(f"{limit} requests wait for model '{model_id}' already", retry_after_s=5)
        self._waiting[model_id] += 1
        try:
            yield
        finally:
            self._waiting[model_id] -= 1

    async def _until_gone(self, entry: Entry) -> None:
        """Until a model that leaves is out of memory, or stays after all."""
        if entry.state == "unloading":
            await self._until_done(entry)
        else:
            await self._running.until(
                lambda: not entry.closing or entry.state != "loaded" or self._stopped.is_set(),
                self.settings.queue_timeout_s,
            )
            self._check_stopped()

    async def _until_done(self, entry: Entry) -> None:
        """Until the load or unload that runs has ended."""
        assert entry.task is not None
        stopped = asyncio.ensure_future(self._stopped.wait())
        try:
            await asyncio.wait({entry.task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
        self._check_stopped()

    def _check_stopped(self) -> None:
        if self._stopped.is_set():
            raise ShuttingDown("the node is shutting down and loads no model", retry_after_s=15)


@contextmanager
def claimed(entry: Entry, running: Running) -> Iterator[None]:
    """Keep a model in memory as long as a request is on its way to it."""
    entry.claims += 1
    try:
        yield
    finally:
        entry.claims -= 1
        if entry.model is not None:
            entry.model.gate.used_s = time.monotonic()
        running.notify()
