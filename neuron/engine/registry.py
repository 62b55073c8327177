"""Models by id and the one load or unload of each that runs; used on the event loop only."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

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

    def status(self) -> ModelStatus:
        """A snapshot."""
        model = self.model
        common = {"id": self.spec.model_id, "harness": self.spec.harness, "state": self.state}
        if model is None:
            error = str(self.failure) if self.failure else None
            return ModelStatus(**common, progress=self.progress, error=error)  # type: ignore[arg-type]
        return ModelStatus(
            **common,  # type: ignore[arg-type]
            devices=model.devices,
            weight_bytes=model.weight_bytes,
            context=model.context,
            dtype=model.dtype,
            reasoning=model.text.reasoning,
            tool_call=model.text.tool_call,
            generates=model.generates,
            fingerprint=model.fingerprint,
            loaded_at_s=model.loaded_at_s,
            load=model.figures(),
            load_s=self.load_s,
        )


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
