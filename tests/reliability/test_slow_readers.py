"""A client that takes its stream a byte at a time: nobody waits for it, and it costs no more than its answer."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.reliability.faulty import CHAT, ask, asked, faulty, text_of
from tests.support.node_process import NodeProcess
from tests.support.node_server import dechunked, eventually, http
from tests.support.tiny_chat import save_tiny_chat
from tests.support.tiny_models import CASES

N_TOKENS = 3000
LOGPROBS = 20
N_READERS = 2
MIB = 1 << 20


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model root with ``tiny``, of a context for long answers."""
    root = tmp_path_factory.mktemp("long")
    save_tiny_chat(root / "tiny", replace(CASES[0], values={"max_position_embeddings": 8192}))
    return root


class Reader:
    """A connection that reads bytes one by one, until it is told to hurry."""

    def __init__(self, url: str) -> None:
        self._hurry = threading.Event()
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._sock.settimeout(120)
        self._sock.connect(("127.0.0.1", int(url.rpartition(":")[2])))
        body = asked(N_TOKENS, stream=True, logprobs=True, top_logprobs=LOGPROBS)
        content = json.dumps(body).encode()
        self._sock.sendall(http("POST", CHAT, content, {"content-type": "application/json"}))
        self.received = bytearray()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while part := self._sock.recv(1 << 20 if self._hurry.is_set() else 1):
            self.received += part
            if not self._hurry.is_set():
                time.sleep(0.005)

    def rest(self) -> bytes:
        """All of the answer's body, once the rest was read fast."""
        self._hurry.set()
        self._thread.join(120)
        self._sock.close()
        return dechunked(bytes(self.received).partition(b"\r\n\r\n")[2])


@contextmanager
def reading(running: NodeProcess) -> Iterator[list[Reader]]:
    readers = [Reader(running.url) for _ in range(N_READERS)]
    try:
        yield readers
    finally:
        for reader in readers:
            reader.rest()


def n_tokens(body: bytes) -> int:
    """Tokens of a streamed answer, counted by their log probabilities."""
    events = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event.startswith(b"data: {")]
    choices = [choice for event in events for choice in json.loads(event)["choices"]]
    return sum(len((choice.get("logprobs") or {}).get("content") or []) for choice in choices)


def test_a_stream_that_is_read_byte_by_byte_holds_up_nobody_and_goes_on(root: Path) -> None:
    with faulty(root, "") as running:
        golden = text_of(ask(running))
        before_mb = running.rss_mb()
        with reading(running) as readers:
            eventually(lambda: running.get("/health").json()["models"][0]["in_flight"] == N_READERS, 60)
            assert all(text_of(ask(running)) == golden for _ in range(5))
            eventually(lambda: running.get("/health").json()["models"][0]["in_flight"] == 0, 120)
            assert all(len(reader.received) < 100_000 for reader in readers), "they were not slow"
            held_mb = running.rss_mb() - before_mb
            bodies = [reader.rest() for reader in readers]
    assert all(body.endswith(b"data: [DONE]\n\n") for body in bodies)
    assert [n_tokens(body) for body in bodies] == [N_TOKENS] * N_READERS
    assert held_mb < 8 * sum(map(len, bodies)) / MIB
