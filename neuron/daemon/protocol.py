"""uvicorn's h11 protocol with deadlines: for headers, for a body, for a reader that takes nothing."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from neuron.log import event

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 512
HEADER_S = 10.0
BODY_S = 30.0
BODY_BYTES_PER_S = 100_000
"""Each 100 KB that arrived buys the body another second."""
WRITE_S = 30.0

TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
)


NO_HTTP = "Invalid HTTP request received."


def is_told(record: logging.LogRecord) -> bool:
    """Whether a line of the server underneath says what no event of ours says."""
    return record.getMessage() != NO_HTTP


logging.getLogger("uvicorn.error").addFilter(is_told)


class DeadlineProtocol(H11Protocol):
    """One connection. The server underneath waits for ever for what a client began to send."""

    header_s = HEADER_S
    body_s = BODY_S
    write_s = WRITE_S
    max_connections = MAX_CONNECTIONS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._receiving: object = None
        """What is awaited of the client: h11's `IDLE` (headers) or `SEND_BODY`; None: nothing."""
        self._began_s = 0.0
        self._body_bytes = 0
        self._read_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or turn away what is over the limit."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            event(log, "connection refused", level=logging.WARNING, connections=len(self.connections))
            transport.write(TOO_MANY)
            transport.close()
            return
        self._await(h11.IDLE)

    def data_received(self, data: bytes) -> None:
        """Take the bytes, then see what is still awaited."""
        super().data_received(data)
        if self._receiving is h11.SEND_BODY:
            self._body_bytes += len(data)
        self._await(self.conn.their_state)

    def send_400_response(self, msg: str) -> None:
        """Answer bytes that are no request."""
        event(log, "refused", level=logging.WARNING, status=400, code="invalid_http")
        super().send_400_response(msg)

    def _await(self, state: object) -> None:
        state = state if state in (h11.IDLE, h11.SEND_BODY) else None
        if state is self._receiving or self.transport.is_closing():
            return
        self._disarm()
        self._receiving, self._body_bytes, self._began_s = state, 0, self.loop.time()
        if state is not None:
            self._read_timer = self.loop.call_at(self._deadline_s(), self._check)

    def _deadline_s(self) -> float:
        if self._receiving is h11.IDLE:
            return self._began_s + self.header_s
        return self._began_s + self.body_s + self._body_bytes / BODY_BYTES_PER_S

    def _check(self) -> None:
        """End the connection, unless what arrived since moved the deadline."""
        if self.loop.time() < self._deadline_s():
            self._read_timer = self.loop.call_at(self._deadline_s(), self._check)
            return
        if self._receiving is h11.IDLE or not self.cycle.response_started:
            self.transport.write(TIMED_OUT)
        self.transport.close()

    def _disarm(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def on_response_complete(self) -> None:
        """Idle between requests is for the keep-alive timer, until something arrives."""
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE:
            begun = bool(self.conn.trailing_data[0])
            self._await(h11.IDLE if begun else None)

    def pause_writing(self) -> None:
        """The reader is slow: it has `write_s` to take something."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.write_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It did."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._disarm()
        if self._write_timer is not None:
            self._write_timer.cancel()
        super().connection_lost(exc)
