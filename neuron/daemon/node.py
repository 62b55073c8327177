"""What every handler is given: the engine and the facts about this node."""

from __future__ import annotations

import asyncio
import difflib
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from neuron.daemon.drain import Drain
from neuron.daemon.events import Events
from neuron.daemon.metrics import Metrics
from neuron.daemon.readings import Readings
from neuron.daemon.requests import Requests
from neuron.daemon.store import ResponseStore
from neuron.engine.api import EngineApi
from neuron.errors import ModelNotLoaded
from neuron.hardware import Host
from neuron.settings import Settings

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Node:
    """Handed to handlers as the dependency ``node``."""

    engine: EngineApi
    settings: Settings
    """Those in force; `take` exchanges them."""
    host: Host
    readings: Readings
    url: str
    """Where applications of this host reach it."""
    requests: Requests
    metrics: Metrics
    events: Events
    drain: Drain
    responses: ResponseStore | None = None
    """None: no responses are kept."""
    began_s: float = field(default_factory=time.monotonic)
    background: set[asyncio.Task[Any]] = field(default_factory=set)
    """Loads that outlive their request; a task that nobody holds may be collected."""

    def take(self, settings: Settings) -> None:
        """Go on with other settings."""
        self.settings = settings
        self.drain.default_s = settings.drain_s
        self.engine.configure(settings)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run ``work`` whatever becomes of the caller."""
        task = asyncio.create_task(work)
        self.background.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """Let go of it. Taking the exception says that it was seen: the engine logs why a load failed."""
        self.background.discard(task)
        if not task.cancelled():
            task.exception()

    def loaded_ids(self) -> list[str]:
        """Ids that answer now, one of each model."""
        models = self.engine.status().models
        return [model.id for model in models if model.state == "loaded" and model.alias_of is None]

    def not_loaded(self, model_id: str) -> ModelNotLoaded:
        """The error for an id that does not answer."""
        loaded = self.loaded_ids()
        near = difflib.get_close_matches(model_id, loaded, n=1)
        return ModelNotLoaded(
            f"model '{model_id}' not loaded; loaded: {', '.join(loaded) or 'none'}",
            param="model",
            hint=f"did you mean {near[0]}?" if near else None,
        )
