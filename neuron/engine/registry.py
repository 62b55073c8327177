"""Models by id and the one load or unload of each that runs; used on the event loop only."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from neuron.engine.budgets import firm_bytes, in_use_bytes
from neuron.engine.loaded import LoadedModel
from neuron.engine.request import LoadSpec
from neuron.engine.status import ModelState, ModelStatus
from neuron.errors import NeuronError
from neuron.progress import Progress

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Entry:
    """One model in any state."""

    spec: LoadSpec
    state: ModelState = "loading"
    model: LoadedModel | None = None
    failure: NeuronError | None = None
    load_s: float = 0.0
    progress: Progress | None = None
    """Written by the loading thread."""
    task: asyncio.Task[None] | None = None
    """The load or unload that runs."""
    expiry: asyncio.Task[None] | None = None
    """Unloads it once it has been idle for long enough."""
    ttl_s: float | None = None
    path: Path | None = None
    """Its files."""
    claims: int = 0
    """Requests that are on their way to it: it is not unloaded for want of memory before they have been served."""
    closing: bool = False
    """New requests wait: another model needs its memory once its work is done."""
    cancelled: bool = False
    """An unload came while it was loading. Read by the loading thread, which then ends."""
    reading: bool = False
    """The loading thread takes memory: only it can give that back."""
    mending: bool = False
    """It is being loaded anew after its device failed."""
    failed_s: float = 0.0
    """`time.monotonic` of the failure."""

    @property
    def idle_s(self) -> float | None:
        """How long nobody has used it; None while it works or is not loaded."""
        model = self.model
        if model is None or self.state != "loaded" or self.claims or model.gate.busy:
            return None
        return time.monotonic() - model.gate.used_s

    @property
    def used_s(self) -> float:
        """`time.monotonic` of the last use; the future for one that is being used."""
        idle_s = self.idle_s
        return math.inf if idle_s is None else time.monotonic() - idle_s

    @property
    def held_bytes(self) -> int:
        """What unloading it gives back."""
        return in_use_bytes(self.model) + firm_bytes(self.model) if self.model else 0

    def status(self, name: str | None = None) -> ModelStatus:
        """A snapshot; under another ``name`` that it has, its memory does not count again."""
        own = self._status()
        if name in (None, own.id):
            return own
        return replace(own, id=name, alias_of=own.id, weight_bytes=None)

    def _status(self) -> ModelStatus:
        model = self.model
        spec = self.spec
        common = {
            "id": spec.model_id,
            "harness": spec.harness,
            "state": self.state,
            "source": spec.source,
            "pinned": bool(spec.pinned),
            "ttl_s": self.ttl_s,
        }
        if model is None:
            error = str(self.failure) if self.failure else None
            return ModelStatus(**common, progress=self.progress, error=error)  # type: ignore[arg-type]
        return ModelStatus(
            **common,  # type: ignore[arg-type]
            devices=model.devices,
            weight_bytes=model.weight_bytes,
            context=model.context,
            dtype=model.dtype,
            weights=model.weights,
            reasoning=model.text.reasoning,
            tool_call=model.text.tool_call,
            generates=model.generates,
            fingerprint=model.fingerprint,
            loaded_at_s=model.loaded_at_s,
            load=model.figures(),
            load_s=self.load_s,
            path=None if self.path is None else str(self.path),
            quant=model.quant,
            device=model.device,
            idle_s=self.idle_s,
            sampling=model.defaults,
        )


class Entries(dict[str, Entry]):
    """Models by every id that they answer to."""

    def distinct(self) -> list[Entry]:
        """Each of them once."""
        return list(dict.fromkeys(self.values()))

    def forget(self, entry: Entry) -> None:
        """Take a model out under all its ids."""
        for name in [name for name, one in self.items() if one is entry]:
            del self[name]


async def in_thread(name: str, work: Callable[[], T]) -> T:
    """Run slow ``work`` in a daemon thread of its own, so that neither a pool nor the exit of the process waits."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = work()
        except BaseException as e:  # a panic of a native library is no Exception; it goes to who waits
            error = e
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            pass  # the loop was closed meanwhile: nobody waits any more

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future
