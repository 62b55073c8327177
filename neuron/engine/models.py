"""Models come and go: one load or unload of an id at a time, in the background; used on the event loop only."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from neuron.engine.absent import cancelled, mending, not_loaded, unloading
from neuron.engine.api import Fetch, Find
from neuron.engine.demand import Demand, claimed
from neuron.engine.harness import HARNESSES, Harnesses
from neuron.engine.load_failure import as_load_failure, log_failed_load
from neuron.engine.load_log import LoadLog
from neuron.engine.loaded import LoadedModel
from neuron.engine.plan import LoadPlan
from neuron.engine.registry import Entries, Entry, in_thread
from neuron.engine.repeat import asked_changes, check_same, lifetime, same_model
from neuron.engine.request import LoadSpec
from neuron.engine.room import Room
from neuron.engine.running import Running
from neuron.engine.status import Activation, Loads, ModelStatus
from neuron.errors import (
    AlreadyLoaded,
    InvalidValue,
    NeuronError,
)
from neuron.log import event
from neuron.progress import Progress, Report
from neuron.settings import Settings

log = logging.getLogger("neuron.engine")

PROGRESS_POLL_S = 0.1
WAIT = Progress("wait for memory")
"""Told only where a load does wait: for another one, or until models have gone."""
FAULT_WINDOW_S = 600.0
"""A device that fails a second time within it is not one that a new load mends."""
MAX_FAILED = 32
"""Failed loads that are remembered; the oldest go first."""


class Models:
    """The models of a node in any state, and the pre-warm of those named at start."""

    def __init__(
        self,
        settings: Settings,
        harnesses: Callable[[Callable[[], list[LoadedModel]]], Harnesses],
        running: Running,
        call_soon: Callable[..., None],
    ) -> None:
        """``harnesses`` makes them, given what says which models are in memory."""
        self._settings = settings
        self._harnesses = harnesses(self._in_memory)
        self._running = running
        self._call_soon = call_soon
        self._entries = Entries()
        self._tasks: set[asyncio.Task[None]] = set()
        self._memory = asyncio.Lock()
        """Held by the one load that measures and takes memory."""
        self.demand = Demand(settings, running, self._entries, self._begin_load)
        self._room = Room(settings, running, self._entries, self._evict, self.demand.offers)
        self.activation = Activation()
        self.loads = Loads()
        self.broken = asyncio.Event()
        """Set when a device failed again, or the model that it failed under can't be loaded anew."""
        self._fault_s = -FAULT_WINDOW_S

    def warm(self) -> None:
        """Import torch in the background, so that the first load does not wait for it."""
        if "torch" in self._settings.harnesses:
            self._spawn(self._import_harness())

    async def load(self, spec: LoadSpec, fetch: Fetch) -> tuple[str, ...]:
        """See `neuron.engine.api.EngineApi.load`."""
        entry = self._entries.get(spec.model_id)
        if entry is None and (there := same_model(self._entries.distinct(), spec)):
            self._entries[spec.model_id] = there
            event(log, "model has one more id", id=there.spec.model_id, alias=spec.model_id)
            return ("alias", *self._change(there, spec))
        if entry is None or entry.state == "failed":
            await self._until_loaded(self._begin_load(spec, fetch))
            return ()
        if entry.state == "unloading":
            raise unloading(spec.model_id)
        if entry.state == "loading":
            await self._until_loaded(entry)
            return self._change(entry, spec)
        if changed := self._change(entry, spec):
            return changed
        raise AlreadyLoaded(f"model '{spec.model_id}' is already loaded")

    async def _until_loaded(self, entry: Entry) -> None:
        """Until a load has ended; raises what it raised."""
        assert entry.task is not None
        await asyncio.shield(entry.task)
        if entry.failure is not None:
            raise entry.failure

    def _change(self, entry: Entry, spec: LoadSpec) -> tuple[str, ...]:
        """Take what a repeated load says of a model in memory; the names of what it said.

        Raises:
            LoadedDifferently, InvalidValue
        """
        check_same(entry, spec)
        changed = asked_changes(spec)
        if changed:
            pinned, entry.ttl_s = lifetime(entry, spec, self._settings.ttl_s)
            entry.spec = replace(entry.spec, pinned=pinned)
            self._watch_idle(entry)
            event(log, "model changed", id=spec.model_id, pinned=pinned, ttl_s=entry.ttl_s)
        return changed

    async def plan(self, spec: LoadSpec, find: Find) -> LoadPlan:
        """See `neuron.engine.api.EngineApi.plan`."""
        self._harnesses.check(spec.harness)
        plan = await in_thread("plan", lambda: self._harnesses.torch().plan(spec, find()))
        return self._room.preview(plan)

    async def progress(self, model_id: str) -> AsyncIterator[Progress]:
        """See `neuron.engine.api.EngineApi.load_progress`."""
        entry = self._entries.get(model_id)
        last = None
        running = entry is not None
        while entry is not None and running:
            running = entry.state == "loading"
            if entry.progress is not None and entry.progress != last:
                last = entry.progress
                yield last
            if running:
                await asyncio.sleep(PROGRESS_POLL_S)

    async def unload(self, model_id: str, *, now: bool = False) -> None:
        """See `neuron.engine.api.EngineApi.unload`."""
        entry = self._entries.get(model_id)
        if entry is None or entry.state == "failed":
            raise not_loaded(self._entries, model_id)
        if entry.state == "loading":
            await self._cancel_load(entry)
            return
        if entry.state == "loaded":
            self._begin_unload(entry, "asked", 0.0 if now else self._settings.drain_s)
        elif now:
            await self._end_work(entry, 0.0)
        assert entry.task is not None
        await asyncio.shield(entry.task)

    def configure(self, settings: Settings) -> None:
        """See `neuron.engine.api.EngineApi.configure`."""
        self._settings = settings
        self.demand.settings = self._room.settings = settings
        for entry in self._entries.distinct():
            if entry.model is not None:
                entry.model.gate.configure(settings)

    def activate(self, models: Iterable[tuple[LoadSpec, Fetch]]) -> None:
        """See `neuron.engine.api.EngineApi.activate`."""
        wanted = list(models)
        if not wanted:
            return
        pending = tuple(spec.model_id for spec, _ in wanted)
        self.activation = Activation(state="pre_warming", pending=pending)
        self._spawn(self._activate(wanted))

    def serving(self, model_id: str) -> LoadedModel:
        """The model, if it takes work. Raises `HarnessNotEnabled`, `ModelUnloading`, `ModelNotLoaded`."""
        for name in HARNESSES:
            self._harnesses.check(name)
        entry = self._entries.get(model_id)
        if entry is not None and entry.state == "unloading":
            raise unloading(model_id)
        if entry is not None and entry.mending:
            raise mending(model_id)
        if entry is None or entry.model is None:
            raise not_loaded(self._entries, model_id)
        return entry.model

    @contextmanager
    def using(self, model_id: str) -> Iterator[LoadedModel]:
        """The model, which no other one drives out of memory meanwhile. Raises what `serving` raises."""
        model = self.serving(model_id)
        with claimed(self._entries[model_id], self._running):
            yield model

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Every model in any state."""
        there = [entry.status(name) for name, entry in list(self._entries.items())]
        return (*there, *self.demand.statuses())

    def status(self, model_id: str) -> ModelStatus | None:
        """One model in any state."""
        entry = self._entries.get(model_id)
        if entry is not None:
            return entry.status(model_id)
        return next((status for status in self.demand.statuses() if status.id == model_id), None)

    def close(self) -> None:
        """Forget every model; loads that run come to nothing."""
        for task in self._tasks:
            task.cancel()
        self._entries.clear()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _begin_load(self, spec: LoadSpec, fetch: Fetch) -> Entry:
        """Raises `UnknownHarness`, `HarnessNotEnabled`; `InvalidValue` for a pinned model that is to expire."""
        self._harnesses.check(spec.harness)
        by_settings = spec.model_id in self._settings.pinned
        pinned = by_settings if spec.pinned is None else spec.pinned
        if pinned and spec.ttl_s:
            raise InvalidValue(f"model '{spec.model_id}' is pinned and can't have a ttl", param="ttl_s")
        ttl_s = 0 if pinned else self._settings.ttl_s if spec.ttl_s is None else spec.ttl_s
        entry = Entry(replace(spec, pinned=pinned), ttl_s=ttl_s or None)
        self._entries[spec.model_id] = entry
        entry.task = self._spawn(self._load(entry, fetch))
        return entry

    def _begin_unload(self, entry: Entry, reason: str, drain_s: float) -> asyncio.Task[None]:
        """Takes effect at once: nobody is admitted any more."""
        event(log, "unload started", id=entry.spec.model_id, reason=reason, idle_s=entry.idle_s)
        entry.state = "unloading"
        if entry.expiry is not None:
            entry.expiry.cancel()
        entry.task = self._spawn(self._unload(entry, drain_s))
        return entry.task

    def _evict(self, entry: Entry) -> asyncio.Task[None]:
        return self._begin_unload(entry, "memory", self._settings.drain_s)

    def _watch_idle(self, entry: Entry) -> None:
        """Have the model go when it has been idle for its time to live, as that is now."""
        if entry.expiry is not None:
            entry.expiry.cancel()
        entry.expiry = None if entry.ttl_s is None else self._spawn(self._expire(entry, entry.ttl_s))

    async def _expire(self, entry: Entry, ttl_s: float) -> None:
        """Unload the model once nobody has used it for so long."""
        while (idle_s := entry.idle_s or 0.0) < ttl_s:
            await asyncio.sleep(ttl_s - idle_s)
        entry.expiry = None  # which this is
        self._begin_unload(entry, "idle", self._settings.drain_s)

    def _in_memory(self) -> list[LoadedModel]:
        """Called on any thread."""
        models = [entry.model for entry in self._entries.distinct()]
        return [model for model in models if model is not None]

    async def _import_harness(self) -> None:
        try:
            await in_thread("import-torch", self._harnesses.torch)
        except NeuronError as e:
            event(log, "harness is not usable", level=logging.ERROR, code=e.code, cause=str(e))

    async def _cancel_load(self, entry: Entry) -> None:
        """End a load; on return nothing holds its memory. A download that runs ends at its next step."""
        task = entry.task
        assert task is not None
        entry.cancelled = True
        if not entry.reading:
            task.cancel()
        await asyncio.wait({task})

    async def _load(self, entry: Entry, fetch: Fetch) -> None:
        said = LoadLog(entry.spec.model_id)

        def report(progress: Progress) -> None:
            if entry.cancelled:
                raise cancelled(entry)
            entry.progress = progress
            said(progress)

        started_s = time.monotonic()
        name = entry.spec.model_id
        event(log, "load started", id=name)
        try:
            await self._bring(entry, fetch, report)
        except (Exception, asyncio.CancelledError) as e:
            if entry.cancelled:
                e.with_traceback(None)  # whose frames hold on to half-loaded weights
                await self._end_cancelled(entry)
                return
            if not isinstance(e, Exception):
                raise
            log_failed_load(name, e)
            # without its traceback, whose frames would hold on to half-loaded weights
            entry.failure = as_load_failure(e).with_traceback(None)
            entry.state, entry.failed_s = "failed", time.monotonic()
            self.loads = replace(self.loads, failed=self.loads.failed + 1)
            self._forget_old_failures()
            await in_thread("free-memory", self._harnesses.free_memory)
        else:
            entry.state, entry.mending = "loaded", False
            self._watch_device(entry)
            entry.load_s = time.monotonic() - started_s
            self.loads = replace(self.loads, loaded=self.loads.loaded + 1)
            event(log, "model loaded", id=name, seconds=entry.load_s)
            self._watch_idle(entry)

    async def _bring(self, entry: Entry, fetch: Fetch, report: Report) -> None:
        """From wherever the files are into memory, one model at a time."""
        name = entry.spec.model_id
        entry.path = await in_thread(f"fetch-{name}", lambda: fetch(report))
        if self._memory.locked():
            report(WAIT)
        async with self._memory:
            await self._room.make(entry, lambda: self._plan(entry), lambda: report(WAIT))
            report(Progress("read"))
            entry.reading = True
            entry.model = await in_thread(f"load-{name}", lambda: self._read(entry, report))
        if entry.cancelled:  # too late for the loading thread to see
            await self._drop(entry)
            raise cancelled(entry)

    async def _end_cancelled(self, entry: Entry) -> None:
        """Leave nothing of a load but what to tell those who wait for it."""
        entry.failure, entry.state, entry.failed_s = cancelled(entry), "failed", time.monotonic()
        self._entries.forget(entry)
        await in_thread("free-memory", self._harnesses.free_memory)
        event(log, "load cancelled", id=entry.spec.model_id)

    def _watch_device(self, entry: Entry) -> None:
        assert entry.model is not None
        entry.model.slot.on_broken = lambda why: self._call_soon(self._on_broken, entry, why)

    def _on_broken(self, entry: Entry, why: str) -> None:
        """Load the model anew, off the way of requests to others; the second time, give the process up."""
        event(log, "device failed", level=logging.ERROR, id=entry.spec.model_id, cause=why)
        now_s = time.monotonic()
        again, self._fault_s = now_s - self._fault_s < FAULT_WINDOW_S, now_s
        if entry.state != "loaded":
            return  # it leaves anyway
        entry.state, entry.mending, entry.reading = "loading", True, True
        if again:
            self.broken.set()
        entry.task = self._spawn(self._mend(entry))

    async def _mend(self, entry: Entry) -> None:
        model, path = entry.model, entry.path
        assert path is not None
        await self._running.end(lambda m: m is model, 0.0, lambda: mending(entry.spec.model_id))
        await self._drop(entry)
        if self.broken.is_set():
            return
        await in_thread("free-memory", self._harnesses.free_memory)
        await self._load(entry, lambda report: path)
        if entry.failure is not None and not entry.cancelled:
            self.broken.set()

    async def _plan(self, entry: Entry) -> LoadPlan:
        path = entry.path
        assert path is not None
        return await in_thread("plan", lambda: self._harnesses.torch().plan(entry.spec, path))

    def _read(self, entry: Entry, report: Report) -> LoadedModel:
        assert entry.path is not None
        return self._harnesses.torch().load(entry.spec, entry.path, report)

    async def _unload(self, entry: Entry, drain_s: float) -> None:
        name = entry.spec.model_id
        await self._end_work(entry, drain_s)
        await self._drop(entry)
        self._entries.forget(entry)
        await in_thread("free-memory", self._harnesses.free_memory)
        event(log, "model unloaded", id=name)

    async def _end_work(self, entry: Entry, drain_s: float) -> None:
        """Let the model's work end within ``drain_s``, then fail what is left."""
        model = entry.model
        if model is not None:
            await self._running.end(lambda m: m is model, drain_s, lambda: unloading(model.id))

    async def _drop(self, entry: Entry) -> None:
        """Let go of a model that has no work; on return nothing holds its memory."""
        model = entry.model
        assert model is not None
        dropped = asyncio.Event()
        model.worker.drop_slot(model.slot, lambda: self._call_soon(dropped.set))
        await dropped.wait()
        entry.model = None

    def _forget_old_failures(self) -> None:
        failed = [name for name, entry in self._entries.items() if entry.state == "failed"]
        for name in failed[:-MAX_FAILED]:
            del self._entries[name]

    async def _activate(self, wanted: list[tuple[LoadSpec, Fetch]]) -> None:
        for spec, fetch in wanted:
            now = self.activation
            self.activation = replace(now, pending=now.pending[1:], in_progress=spec.model_id)
            failed, completed = now.failed, now.completed
            try:
                await self.load(spec, fetch)
            except AlreadyLoaded:
                completed = (*completed, spec.model_id)
            except NeuronError as e:
                failed = (*failed, (spec.model_id, str(e)))
            else:
                completed = (*completed, spec.model_id)
            self.activation = replace(self.activation, in_progress=None, failed=failed, completed=completed)
        self.activation = replace(self.activation, state="ready")
