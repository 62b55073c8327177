"""Many requests at one moment, from one thread over plain sockets, so that the client adds little to the times."""

from __future__ import annotations

import json
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.support.node_server import http, parsed


@dataclass(slots=True)
class Answer:
    """One answer, as far as it has come."""

    sent_s: float = 0.0
    first_s: float = 0.0
    """When its status line was there."""
    raw: bytes = b""
    is_whole: bool = False

    @property
    def status(self) -> int:
        """Of the status line."""
        return int(self.raw.split(b" ", 2)[1])

    @property
    def retry_after(self) -> str:
        """The header, empty without it."""
        headers = parsed(self.raw)[1]
        return headers.get("retry-after", "")

    @property
    def took_s(self) -> float:
        """From the last byte of the request to the status line."""
        return self.first_s - self.sent_s


@contextmanager
def connections(url: str, n: int) -> Iterator[list[socket.socket]]:
    """Connections over which a request has been answered already, so that accepting them is done."""
    where = urlsplit(url)
    with ExitStack() as stack:
        socks = [
            stack.enter_context(socket.create_connection((where.hostname, where.port), 60)) for _ in range(n)
        ]
        for sock in socks:
            sock.sendall(b"GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n")
        for sock in socks:
            assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        yield socks


class Burst:
    """One request over every connection at once, and when each status line comes."""

    def __init__(self, socks: Sequence[socket.socket], path: str, body: dict[str, Any]) -> None:
        request = http("POST", path, json.dumps(body).encode(), {"content-type": "application/json"})
        self.answers = [Answer() for _ in socks]
        self._selector = selectors.DefaultSelector()
        for sock, answer in zip(socks, self.answers, strict=True):
            sock.sendall(request)
            answer.sent_s = time.monotonic()
            self._selector.register(sock, selectors.EVENT_READ, answer)

    def ended(self, n: int, within_s: float = 60) -> list[Answer]:
        """So many answers that are whole, the first ones to be so."""
        deadline_s = time.monotonic() + within_s
        while len(self._selector.get_map()) > len(self.answers) - n:
            ready = self._selector.select(max(0.0, deadline_s - time.monotonic()))
            assert ready, "no answer in time"
            now_s = time.monotonic()
            for key, _ in ready:
                self._read(key, now_s)
        return [answer for answer in self.answers if answer.is_whole]

    def _read(self, key: selectors.SelectorKey, now_s: float) -> None:
        """Up to the end, at which the node closes the connection, as the request asks for."""
        sock, answer = key.fileobj, key.data
        assert isinstance(sock, socket.socket)
        part = sock.recv(65536)
        answer.first_s, answer.raw = answer.first_s or now_s, answer.raw + part
        if not part:
            answer.is_whole = True
            self._selector.unregister(sock)
