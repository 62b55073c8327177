"""Answers that may have to wait until their model is loaded: pings keep a stream alive meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from litestar.response.base import ASGIResponse

from neuron.daemon import errors, respond, shapes, sse
from neuron.daemon.body import AnyRequest
from neuron.daemon.node import Node
from neuron.daemon.record import Record
from neuron.engine.api import EngineApi
from neuron.errors import NeuronError

Rest = Callable[[], Awaitable[ASGIResponse]]
PROMPT_S = sse.SILENCE_S
"""Errors within this are answered with a status; later, a stream has begun and they are its events."""


class _Held:
    """A model that is in memory for one request, or on its way there."""

    def __init__(self, engine: EngineApi, model_id: str) -> None:
        self._stack = AsyncExitStack()
        self.task = asyncio.ensure_future(self._stack.enter_async_context(engine.hold(model_id)))

    async def release(self) -> None:
        """Stop waiting for it, or let go of it."""
        self.task.cancel()
        await asyncio.wait({self.task})
        await self._stack.aclose()


async def answered(request: AnyRequest, node: Node, record: Record, rest: Rest) -> ASGIResponse:
    """What ``rest`` answers, the model held in memory until then. Raises what the load and ``rest`` raise."""
    record.read()
    held, is_late = _Held(node.engine, record.model or ""), False
    try:
        waited = asyncio.wait({held.task}, timeout=PROMPT_S if record.stream else None)
        await respond.unless_gone(request, waited)
        is_late = not held.task.done()
        if is_late:
            record.hand_over()
            late = sse.kept_alive(_late(request, record, held, rest), lambda: sse.PING)
            return sse.EventResponse(late, _left(record, held), {})
        held.task.result()
        record.held()
        return await rest()
    finally:
        if not is_late:
            await held.release()


async def _late(request: AnyRequest, record: Record, held: _Held, rest: Rest) -> sse.Chunks:
    """The stream that ``rest`` answers with, or the error in its place."""
    try:
        with record:
            await held.task
            record.held()
            response = await rest()
    except NeuronError as error:
        yield _error(request, error)
        return
    assert isinstance(response, sse.EventResponse)
    async with response.source:
        async for chunk in response.chunks:
            yield chunk


def _error(request: AnyRequest, error: NeuronError) -> bytes:
    """An error as an event of the format that the path has."""
    path, request_id = request.scope["path"], respond.request_id(request)
    body = shapes.of(path).body(error, request_id)
    if path == "/v1/messages":
        return sse.named("error", body)
    if path == "/v1/responses":
        said = errors.v1_body(error, request_id)["error"]
        fields = {"code": said.code, "message": said.message, "param": said.param}
        return sse.named("error", {"type": "error", **fields, "sequence_number": 0})
    return sse.data(body)


@asynccontextmanager
async def _left(record: Record, held: _Held) -> AsyncIterator[None]:
    """Let go of the model and end the record, however the stream ended."""
    try:
        yield
    finally:
        await held.release()
        record.close()
