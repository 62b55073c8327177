"""Server-sent events: bytes of an event, keep-alive while nothing happens, an end that is noticed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any

import msgspec
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import Receive, Send

PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"
SILENCE_S = 1.0
MAX_WAITING = 16
"""Chunks ahead of a slow reader; text behind them is joined where it is generated."""

SEPARATORS = {one.encode(): b"\\u%04x" % ord(one) for one in "\x85\u2028\u2029"}
"""Ends of lines to Unicode and not to this format: many a client cuts a line there, in the middle of JSON."""
_SEPARATOR = re.compile(b"|".join(SEPARATORS))

Chunks = AsyncGenerator[bytes, None]


def data(value: Any) -> bytes:
    """An event of data alone."""
    said = msgspec.json.encode(value, enc_hook=str)
    return b"data: " + _SEPARATOR.sub(lambda found: SEPARATORS[found[0]], said) + b"\n\n"


def named(event: str, value: Any) -> bytes:
    """An event whose ``event:`` line repeats its type."""
    return b"event: " + event.encode() + b"\n" + data(value)


async def kept_alive(chunks: Chunks, ping: Callable[[], bytes], silence_s: float = SILENCE_S) -> Chunks:
    """``chunks``, those that came meanwhile joined, and ``ping()`` whenever nothing came for ``silence_s``."""
    ahead = _Ahead()
    pump = asyncio.create_task(ahead.fill(chunks))
    try:
        while not ahead.ended or ahead.chunks:
            try:
                async with asyncio.timeout(silence_s):
                    await ahead.some.wait()
            except TimeoutError:
                yield ping()
            if joined := ahead.take():
                yield joined
        await pump  # raises what the chunks ended with
    finally:
        pump.cancel()
        await asyncio.wait({pump})
        await chunks.aclose()


class _Ahead:
    """Chunks that wait to be sent. One task fills it for a whole stream, since one for each chunk is dear."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.some = asyncio.Event()
        """Set when there are chunks, and when no more will come."""
        self.ended = False
        self._room = asyncio.Event()

    def take(self) -> bytes:
        """All that wait, as one."""
        joined, self.chunks = b"".join(self.chunks), []
        self._room.set()
        if not self.ended:
            self.some.clear()
        return joined

    async def fill(self, chunks: Chunks) -> None:
        """Every chunk of a stream, never more than `MAX_WAITING` at a time."""
        try:
            async for chunk in chunks:
                self.chunks.append(chunk)
                self.some.set()
                while len(self.chunks) >= MAX_WAITING:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self.ended = True
            self.some.set()


class EventResponse(ASGIStreamingResponse):
    """A stream of events over a source that must be left however the response ends.

    The framework drops an abandoned generator and leaves it to the garbage collector; here the generator is closed
    and then ``source`` is exited, at once, whether the text ended, the client left or the server cancelled.
    """

    __slots__ = ("chunks", "source")

    def __init__(
        self, chunks: Chunks, source: AbstractAsyncContextManager[Any], headers: dict[str, str]
    ) -> None:
        super().__init__(
            iterator=chunks,
            status_code=200,
            media_type="text/event-stream",
            headers={**headers, "cache-control": "no-cache", "x-accel-buffering": "no"},
        )
        self.chunks = chunks
        self.source = source

    async def send_body(self, send: Send, receive: Receive) -> None:
        """Send the events; on return the source has been left."""
        async with self.source, aclosing(self.chunks):
            await super().send_body(send, receive)
