"""Answers: JSON, and a generation as one body or as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from neuron.daemon import errors, sse
from neuron.daemon.access import CALLER
from neuron.daemon.body import AnyRequest, ClientGone
from neuron.daemon.projection.answer import Answer
from neuron.daemon.record import Record
from neuron.daemon.requests import Requests
from neuron.engine.api import EngineApi, EventStream
from neuron.engine.request import Generation
from neuron.errors import InvalidValue
from neuron.keys import ANONYMOUS

T = TypeVar("T")

IGNORED_HEADER = "x-neuron-ignored-params"
MAX_IGNORED_NAMED = 32
RETRIES_HEADER = "x-stainless-retry-count"
"""How often official clients have tried before, as they say."""
RECORD = "record"
"""In a request's state: its `Record`, where it asks for text or vectors."""


def json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> ASGIResponse:
    """A wire value as an answer."""
    return ASGIResponse(
        body=errors.encoded(body),
        status_code=status,
        media_type="application/json",
        headers=dict(headers or {}),
    )


def request_id(request: AnyRequest) -> str:
    """The id that the guards gave this request."""
    return str(request.scope["state"]["request_id"])


def begin(request: AnyRequest, requests: Requests) -> Record:
    """The record of a request for text or vectors."""
    state = request.scope["state"]
    record = requests.begin(request_id(request), request.scope["path"], state["arrived_s"])
    name = state[CALLER].name
    record.principal = None if name == ANONYMOUS else name
    state[RECORD] = record
    return record


def admitted(request: AnyRequest) -> bool:
    """Whether the request was admitted; then its own line in the log says how it ended."""
    record = request.scope["state"].get(RECORD)
    return record is not None and record.admitted


def asked_by(request: AnyRequest) -> dict[str, Any]:
    """Who asks and how much they may have, as the guards found it, and whether they ask again; in the engine's
    words."""
    caller = request.scope["state"][CALLER]
    returns = request.headers.get(RETRIES_HEADER, "0") != "0"
    return {"principal": caller.name, "principal_limit": caller.limit, "returns": returns}


def ignored_header(names: Iterable[str]) -> dict[str, str]:
    """The header that names hints without effect; names come from the client, so only plain ones are echoed."""
    plain = [
        n for n in names if n.isascii() and n.replace("_", "").replace(".", "").replace("-", "").isalnum()
    ]
    shown = ", ".join(name[:64] for name in plain[:MAX_IGNORED_NAMED])
    return {IGNORED_HEADER: shown} if shown else {}


async def generation(
    request: AnyRequest,
    engine: EngineApi,
    wanted: Generation,
    answer: Answer,
    record: Record,
    ignored: Iterable[str],
) -> ASGIResponse:
    """Submit ``wanted`` and answer in the format of ``answer``. Raises what admission refuses with."""
    demand_generates(engine, wanted.model_id)
    wanted = replace(wanted, **asked_by(request))
    record.expect([wanted])
    return await answered(request, engine.submit(wanted), answer, record, ignored)


def demand_generates(engine: EngineApi, model_id: str) -> None:
    """Raise `InvalidValue` for a model that is there and only embeds."""
    model = engine.model(model_id)
    if model is not None and model.state == "loaded" and not model.generates:
        raise InvalidValue(
            f"model '{model_id}' is an encoder: it embeds and writes no text",
            hint="send the texts to /v1/embeddings",
            param="model",
        )


async def answered(
    request: AnyRequest,
    submitted: Awaitable[EventStream],
    answer: Answer,
    record: Record,
    ignored: Iterable[str],
) -> ASGIResponse:
    """Wait for admission and answer in the format of ``answer``. Raises what admission refuses with."""
    headers = ignored_header(ignored)
    events = await unless_gone(request, submitted)
    record.admit()
    if record.stream:
        record.hand_over()
        chunks = sse.kept_alive(answer.stream(record.watch(events)), answer.ping)
        return sse.EventResponse(chunks, _left(events, record), headers)
    async with events:
        body = await unless_gone(request, answer.whole(record.watch(events)))
    return whole(body, record, headers)


def whole(body: Any, record: Record, headers: Mapping[str, str]) -> ASGIResponse:
    """A wire value as the answer to ``record``, which ends when it is written."""
    response = WholeResponse(body=errors.encoded(body), media_type="application/json", headers=dict(headers))
    response.record = record
    record.hand_over()
    return response


class WholeResponse(ASGIResponse):
    """One body; its record ends behind the last byte, or when nobody takes it."""

    __slots__ = ("record",)

    record: Record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.record.close()

    async def send_body(self, send: Send, receive: Receive) -> None:
        """The body, then its end, which waits until a slow reader has taken all but a buffer of it."""
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@asynccontextmanager
async def _left(events: EventStream, record: Record) -> AsyncIterator[None]:
    """Leave ``events`` and write the record's line, however the stream ended."""
    try:
        async with events:
            yield
    finally:
        record.close()


async def unless_gone(request: AnyRequest, work: Awaitable[T]) -> T:
    """The result of ``work``, which is cancelled as soon as the client leaves. Raises `ClientGone`.

    The server does not cancel a handler whose client left; only who asks for the disconnect learns of it.
    """
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientGone
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.wait({task, gone})


async def _disconnected(request: AnyRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
