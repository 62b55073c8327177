"""The engine as the daemon and the embedded chat see it. `neuron.engine.engine.Engine` is the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from neuron.engine.events import Event
from neuron.engine.plan import LoadPlan
from neuron.engine.request import ChatPrompt, Generation, LoadSpec, Prompt, TextPrompt, TokenPrompt
from neuron.engine.status import EngineStatus, ModelStatus
from neuron.files import Headers
from neuron.keys import ANONYMOUS
from neuron.progress import Progress, Report
from neuron.settings import Settings

Fetch = Callable[[Report], Path]
"""Brings a model's files here and returns the folder or the ``.gguf`` file. Runs in a thread of its own."""


Find = Callable[[], Path | Headers]
"""Finds a model's files here, or reads their headers from afar. Runs in a thread of its own."""


class EventStream(Protocol):
    """The events of one generation. Leaving the ``async with`` early, or `cancel`, ends the generation."""

    def __aiter__(self) -> AsyncIterator[Event]: ...
    async def __aenter__(self) -> EventStream: ...
    async def __aexit__(self, *exc: object) -> None: ...
    def cancel(self) -> None: ...


class Journey(Protocol):
    """Who is told how far a request has come."""

    def admit(self) -> None:
        """It has a place or waits for one."""
        ...

    def start(self) -> None:
        """The device begins."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Embeddings:
    """Vectors of several inputs, in their order."""

    vectors: tuple[tuple[float, ...], ...]
    """float32 values, normalised as the model says."""
    prompt_tokens: int


class EngineApi(Protocol):
    """Every method but `status` and `model` must be called from the event loop that `start` was called from."""

    @property
    def broken(self) -> asyncio.Event:
        """Set when a device can't be used any more by this process."""
        ...

    async def start(self) -> None:
        """Begin; returns at once, heavy imports happen in the background."""
        ...

    async def load(self, spec: LoadSpec, fetch: Fetch) -> tuple[str, ...]:
        """Load and return when the model is in memory. Joins a running load of the same id; raises what it raised.

        A time to live or a pin that is said for a model in memory is changed there; what comes back is their names.
        The load goes on when the caller is cancelled.

        Raises:
            AlreadyLoaded: it is in memory, and there is nothing to change.
            ModelUnloading: it leaves, or its load was cancelled.
            LoadedDifferently: it is in memory, from other files, in another dtype or on another device.
            UnknownHarness, HarnessNotEnabled, PreflightError, InvalidModelFile, ShuttingDown
        """
        ...

    def load_progress(self, model_id: str) -> AsyncIterator[Progress]:
        """Progress of a running load, newest only; ends when the load ended (see `model` for how)."""
        ...

    async def plan(self, spec: LoadSpec, find: Find) -> LoadPlan:
        """What a load would take, and whether it fits; no memory of a device is taken.

        Raises:
            what `load` raises for the files.
        """
        ...

    async def unload(self, model_id: str, *, now: bool = False) -> None:
        """Refuse new work for the model, let running work end (bounded), or fail it ``now``; free the model.

        A load that runs is cancelled: who waits for it gets `ModelUnloading`.

        Raises:
            ModelNotLoaded
        """
        ...

    def offer(self, models: Iterable[tuple[LoadSpec, Fetch]]) -> None:
        """Let `hold` load these."""
        ...

    def hold(self, model_id: str) -> AbstractAsyncContextManager[None]:
        """Keep the model in memory for a request that is on its way to it; an offered one is loaded first.

        A model that is neither loaded nor offered is left for the request to be refused.

        Raises:
            QueueFull: too many wait for it.
            ShuttingDown, and what `load` raises.
        """
        ...

    def configure(self, settings: Settings) -> None:
        """Go on with other limits: places, queues, times. What runs and waits stays."""
        ...

    def activate(self, models: Iterable[tuple[LoadSpec, Fetch]]) -> None:
        """Load these one after the other in the background, shown in ``status().activation``."""
        ...

    async def submit(self, generation: Generation) -> EventStream:
        """Render, tokenise, admit. Returns once the generation has a place or is queued.

        Raises:
            ModelNotLoaded, ModelUnloading, HarnessNotEnabled, PromptTooLong, PromptNeverFits, InsufficientCache,
            QueueFull, OverShare, ShuttingDown, TemplateRenderFailed, InvalidValue
        """
        ...

    async def tokenize(self, model_id: str, prompt: Prompt) -> list[int]:
        """Ids of a prompt as `submit` would compute them, of any length. Raises what it raises before the work."""
        ...

    async def detokenize(self, model_id: str, ids: Sequence[int]) -> str:
        """Text of ids, special tokens included. Raises `InvalidValue` for an id that the vocabulary lacks."""
        ...

    async def render(self, model_id: str, prompt: ChatPrompt) -> str:
        """A conversation in the model's template, as text. Raises `TemplateRenderFailed`."""
        ...

    async def embed(
        self,
        model_id: str,
        inputs: Sequence[TextPrompt | TokenPrompt],
        journey: Journey | None = None,
        *,
        principal: str = ANONYMOUS,
        principal_limit: int | None = None,
        returns: bool = False,
    ) -> Embeddings:
        """One vector for each input. Raises what `submit` raises; `PromptTooLong` names the input in ``param``."""
        ...

    def status(self) -> EngineStatus:
        """A snapshot; never waits."""
        ...

    def model(self, model_id: str) -> ModelStatus | None:
        """One model in any state."""
        ...

    def refuse_new(self) -> None:
        """Refuse new work from now on; what was admitted goes on."""
        ...

    async def drain(self, timeout_s: float, *, finish_queued: bool = False) -> None:
        """Refuse new work, wait for running streams, then fail what is left with `ShuttingDown`.

        What waits for a place is failed at once, or runs too with ``finish_queued``.
        """
        ...

    async def close(self) -> None:
        """Cancel everything, free the models, end the threads."""
        ...
