"""While a service manager watches: a line of status that is kept current, and signs of life that mean progress."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from neuron.daemon.notify import Notify
from neuron.engine.status import EngineStatus, ModelStatus

STATUS_S = 2.0
"""Longest time between two looks at the engine."""
EXTEND_S = 10
"""How long the manager waits for the next word of a node that drains."""


class Supervision:
    """Tells the manager how the engine is, from the event loop: a loop that hangs gives no sign."""

    def __init__(self, notify: Notify, status: Callable[[], EngineStatus]) -> None:
        self._notify = notify
        self._status = status
        self._said = ""
        self.draining = False

    async def run(self) -> None:
        """Until cancelled."""
        interval_s = min(STATUS_S, (self._notify.watchdog_s or STATUS_S * 3) / 3)
        while self._notify.listens:
            self.look()
            await asyncio.sleep(interval_s)

    def look(self) -> None:
        """One look: what changed, and whether decoding makes progress."""
        status = self._status()
        if (words := in_words(status, self.draining)) != self._said:
            self._said = words
            self._notify.say(STATUS=words)
        if self._notify.watchdog_s and not status.decode.stalled:
            self._notify.say(WATCHDOG=1)
        if self.draining:
            self._notify.say(EXTEND_TIMEOUT_USEC=EXTEND_S * 1_000_000)

    def drain(self) -> None:
        """The node is about to end."""
        self.draining = True
        self._notify.say(STOPPING=1)
        self.look()


def in_words(status: EngineStatus, draining: bool = False) -> str:
    """The node in one line: ``2 models; 3 running, 1 waiting; loading smollm2 45 %``."""
    models = [model for model in status.models if model.alias_of is None]  # each once, whatever ids it has
    figures = [model.load for model in models if model.load is not None]
    loaded = [model.id for model in models if model.state == "loaded"]
    running, waiting = sum(f.in_flight for f in figures), sum(f.queue_depth for f in figures)
    parts = [
        *(["draining"] if draining else []),
        ", ".join(loaded) if 0 < len(loaded) < 4 else f"{len(loaded)} models",
        f"{running} running, {waiting} waiting",
        *(_loading(model) for model in models if model.state == "loading"),
        *(["decoding is stalled"] if status.decode.stalled else []),
    ]
    return "; ".join(parts)


def _loading(model: ModelStatus) -> str:
    progress = model.progress
    done = (
        f" {progress.done_bytes * 100 // progress.total_bytes} %" if progress and progress.total_bytes else ""
    )
    return f"loading {model.id}{done}"
