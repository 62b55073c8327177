"""A chat without a node: the engine runs in this process, on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import queue
import secrets
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from dataclasses import replace
from typing import Any, Self, TypeVar

from neuron import log
from neuron.client import ChatDelta, ChatEnd, ChatPart
from neuron.engine.api import EngineApi, EventStream
from neuron.engine.events import Event, Failed, Finished, ReasoningDelta, TextDelta
from neuron.engine.request import LoadSpec
from neuron.errors import StreamCut
from neuron.progress import Progress, Report
from neuron.settings import Settings, resolve
from neuron.wire.chat import ChatCompletionRequest
from neuron.wire.node import ModelInfo
from neuron.wire.tokenize import TokenizeRequest, TokenizeResponse

T = TypeVar("T")
CLOSE_S = 5.0
"""How long leaving waits for the engine's threads."""


def _real_engine(settings: Settings) -> EngineApi:
    from neuron.engine.engine import Engine

    return Engine(settings)


class EmbeddedNode:
    """What `NodeClient` offers a chat, without a socket: `load`, `models`, `tokenize` and `chat`."""

    def __init__(
        self, settings: Settings | None = None, engine: Callable[[Settings], EngineApi] = _real_engine
    ) -> None:
        log.silence()
        self._engine = engine(settings or resolve({}, os.environ))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="embedded-engine", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._wait(self._engine.start())
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            asyncio.run_coroutine_threadsafe(self._engine.close(), self._loop).result(CLOSE_S)
        except TimeoutError:
            pass  # a download or a step that can't be cut short; the process ends around it
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        """The thread's life: the loop until it is stopped, then the end of what is left on it."""
        self._loop.run_forever()
        self._loop.run_until_complete(_cancel_all())
        self._loop.close()

    def load(self, model: str, report: Report) -> str:
        """Fetch and load a model into this process; returns the id to ask it by."""
        from neuron.sources.fetch import fetch, model_id

        spec = LoadSpec(model_id=model_id(model))
        self._wait(self._load(spec, lambda inner: fetch(model, _with_notes(inner, report)), report))
        return spec.model_id

    def models(self) -> list[ModelInfo]:
        """Models that are loaded or loading."""
        from neuron.daemon.projection.node import LISTED, model_info

        return [model_info(model) for model in self._engine.status().models if model.state in LISTED]

    def model(self, model_id: str) -> ModelInfo | None:
        """One of them, or None."""
        return next((model for model in self.models() if model.id == model_id), None)

    def unload(self, model_id: str) -> None:
        """Free a model."""
        self._wait(self._engine.unload(model_id))

    def tokenize(self, request: TokenizeRequest) -> TokenizeResponse:
        """The tokens of a text or of a conversation, and how many the model takes."""
        from neuron.daemon.projection.tokenize import prompt

        model_id = request.model or ""
        model = self._engine.model(model_id)
        ids = self._wait(self._engine.tokenize(model_id, prompt(request, model)))
        return TokenizeResponse(tokens=ids, count=len(ids), max_model_len=model.context if model else 0)

    def chat(self, request: ChatCompletionRequest) -> Generator[ChatPart, None, None]:
        """An answer as it is made; closing the iterator stops it."""
        from neuron.daemon.projection.chat import generation
        from neuron.daemon.projection.chat_answer import usage

        stream = self._wait(self._engine.submit(generation(request, f"chat-{secrets.token_hex(8)}")))
        for event in self._events(stream):
            match event:
                case TextDelta():
                    yield ChatDelta(event.text)
                case ReasoningDelta():
                    yield ChatDelta(reasoning=event.text)
                case Finished():
                    yield ChatEnd(event.reason, usage(event.usage))
                    return
                case Failed():
                    raise event.error
        raise StreamCut("the answer was cut off before its end")

    def _events(self, stream: EventStream) -> Iterator[Event]:
        """The stream's events, brought from the loop's thread to this one."""
        events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        pump = asyncio.run_coroutine_threadsafe(_pump(stream, events), self._loop)
        try:
            while (event := events.get()) is not None:
                yield event
            pump.result(CLOSE_S)  # raises what broke the stream
        finally:
            self._loop.call_soon_threadsafe(stream.cancel)
            pump.cancel()

    async def _load(self, spec: LoadSpec, fetch: Callable[[Report], Any], report: Report) -> None:
        loading = asyncio.ensure_future(self._engine.load(spec, fetch))
        await asyncio.sleep(0)  # lets the load begin, so that there is progress to watch
        async for progress in self._engine.load_progress(spec.model_id):
            report(progress)
        await loading

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the loop and wait here; Ctrl-C ends the waiting."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise


async def _cancel_all() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


def _with_notes(inner: Report, report: Report) -> Report:
    """`inner`, but notes go to ``report`` at once: of the engine's progress only the newest is seen."""

    def both(progress: Progress) -> None:
        if progress.note:
            report(progress)
        inner(replace(progress, note=None))

    return both


async def _pump(stream: EventStream, events: queue.SimpleQueue[Event | None]) -> None:
    """Every event, then None, also when something broke."""
    try:
        async with stream:
            async for event in stream:
                events.put(event)
    finally:
        events.put(None)
