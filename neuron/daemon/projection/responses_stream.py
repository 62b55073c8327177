"""Events → one response, whole or as typed events numbered from 0. Both come out of the same items."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

import msgspec

from neuron.daemon import errors, sse
from neuron.daemon.projection import logprobs
from neuron.daemon.projection import responses as projection
from neuron.daemon.projection.answer import cut
from neuron.daemon.projection.response_items import FunctionCall, Growing, Message, Reasoning
from neuron.engine.events import Event, Failed, Finished, ReasoningDelta, TextDelta, ToolCallDelta
from neuron.engine.status import ModelStatus
from neuron.errors import NeuronError
from neuron.wire import response_items as items
from neuron.wire import responses as wire
from neuron.wire.responses import StreamEvent

T = TypeVar("T", bound=Growing)
Keep = Callable[[wire.Response], Awaitable[bool]]
"""Keeps a response that ended, and says whether that worked."""


class ResponsesAnswer:
    """One answer: a response object, the items in it, and the counter of events."""

    def __init__(
        self, request: wire.ResponsesRequest, request_id: str, model: ModelStatus | None, keep: Keep | None
    ) -> None:
        self.request_id = request_id
        self.response = projection.begun(request, model, stored=keep is not None)
        self.one_call = request.parallel_tool_calls is False
        self._keep = keep
        self._items: list[Growing] = []
        self._numbers = itertools.count()

    async def whole(self, events: AsyncIterator[Event]) -> wire.Response:
        """The answer that is not streamed. Raises what the engine's `Failed` says."""
        async for event in events:
            match event:
                case Finished():
                    return await self._ended(event)
                case Failed():
                    raise event.error
            self._grow(event)
        raise cut()

    def ping(self) -> bytes:
        """An event, not a comment: some clients count events to know that a response lives."""
        return self._state("response.in_progress", self.response)

    async def stream(self, events: AsyncIterator[Event]) -> AsyncGenerator[bytes, None]:
        """Created, in progress, each item and its deltas, and the end, which holds everything."""
        yield self._state("response.created", self.response)
        yield self._state("response.in_progress", self.response)
        async for event in events:
            match event:
                case Finished():
                    for said in self._closing(event):
                        yield self._send(said)
                    response = await self._ended(event)
                    yield self._state(f"response.{response.status}", response)
                    return
                case Failed():
                    yield self._failed(event.error)
                    return
            for said in self._grow(event):
                yield self._send(said)
        yield self._failed(cut())

    def _grow(self, event: Event) -> list[StreamEvent]:
        """Put a delta to its item, which begins, and ends the one before, where the kind of text changes."""
        match event:
            case TextDelta():
                said, message = self._current(Message, lambda: Message(at=len(self._items)))
                return [*said, message.delta(event.text, logprobs.output_tokens(event.logprobs))]
            case ReasoningDelta():
                said, reasoning = self._current(Reasoning, lambda: Reasoning(at=len(self._items)))
                return [*said, reasoning.delta(event.text)]
            case ToolCallDelta() if event.call == 0 or not self.one_call:
                return self._grow_call(event)
        return []

    def _grow_call(self, event: ToolCallDelta) -> list[StreamEvent]:
        last = self._items[-1] if self._items else None
        said: list[StreamEvent] = []
        if not (isinstance(last, FunctionCall) and last.number == event.call):
            last = FunctionCall(
                at=len(self._items), number=event.call, call_id=event.id or "", name=event.name or ""
            )
            said = self._begin(last)
        return [*said, last.delta(event.arguments)] if event.arguments else said

    def _current(self, kind: type[T], new: Callable[[], T]) -> tuple[list[StreamEvent], T]:
        """The last item if it is of ``kind``, else a new one, and what beginning it says."""
        if self._items and isinstance(last := self._items[-1], kind):
            return [], last
        item = new()
        return self._begin(item), item

    def _begin(self, item: Growing) -> list[StreamEvent]:
        said = self._items[-1].closed("completed") if self._items else []
        self._items.append(item)
        return [*said, *item.opened()]

    def _closing(self, finished: Finished) -> Iterable[StreamEvent]:
        """What ends the last item. An answer without any is an empty message."""
        said = [] if self._items else self._begin(Message(at=0))
        return [*said, *self._items[-1].closed(projection.status_of(finished.reason))]

    async def _ended(self, finished: Finished) -> wire.Response:
        if not self._items:
            self._begin(Message(at=0))
        response = projection.ended(
            self.response, self._output(projection.status_of(finished.reason)), finished
        )
        if self._keep is not None:
            response.store = await self._keep(response)
        return response

    def _output(self, last: items.ItemStatus) -> list[items.OutputItem]:
        """All items; those before the last are whole."""
        return [item.item(last if item is self._items[-1] else "completed") for item in self._items]

    def _failed(self, error: NeuronError) -> bytes:
        text = errors.v1_body(error, self.request_id)["error"].message
        response = projection.failed(self.response, error, text)
        response = msgspec.structs.replace(response, output=self._output("incomplete"), store=False)
        return self._state("response.failed", response)

    def _state(self, kind: str, response: wire.Response) -> bytes:
        return self._send(wire.ResponseEvent(type=kind, response=response))

    def _send(self, event: StreamEvent) -> bytes:
        event.sequence_number = next(self._numbers)
        return sse.named(event.type, event)
