"""Clients that are slow to ask, slow to send, slow to read: ended, and the others are served."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from neuron.daemon import protocol
from tests.support.fake_engine import FakeEngine, Script
from tests.support.node_server import NodeServer, eventually, http, node_server

CHAT = {"model": "org/tiny", "messages": [{"role": "user", "content": "hi"}]}
PARTIAL_BODY = http(
    "POST", "/models/unload", b"{", {"content-type": "application/json", "content-length": "100"}
)

BEGINNINGS = {
    "nothing": b"",
    "half a request line": b"GET /hea",
    "half the headers": b"GET /health HTTP/1.1\r\nhost: localhost\r\n",
    "half a body": PARTIAL_BODY,
    "a second request by half": b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\nGET /hea",
}


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[NodeServer]:
    for name, value in {"header_s": 0.4, "body_s": 0.4, "write_s": 0.4, "max_connections": 20}.items():
        monkeypatch.setattr(protocol.DeadlineProtocol, name, value)
    with node_server(FakeEngine()) as node:
        yield node


@pytest.mark.parametrize("name", BEGINNINGS)
def test_a_request_that_does_not_arrive_is_ended(hasty: NodeServer, name: str) -> None:
    with hasty.connect() as sock:
        sock.sendall(BEGINNINGS[name])
        sock.settimeout(3)
        received = b""
        while part := sock.recv(65536):
            received += part
    if name != "a second request by half":
        assert received.startswith(b"HTTP/1.1 408 ")


def test_bytes_that_drip_do_not_move_the_deadline_of_headers(hasty: NodeServer) -> None:
    with hasty.connect() as sock:
        sock.settimeout(0.05)
        for sent in range(200):
            sock.sendall(b"GET /health HTTP/1.1\r\nx: " if sent == 0 else b"a")
            try:
                assert sock.recv(100).startswith(b"HTTP/1.1 408 ")
            except TimeoutError:
                continue
            break
        assert sent < 20


def test_a_long_generation_is_no_slow_client(hasty: NodeServer) -> None:
    hasty.engine.script = Script(before_s=1.2)
    assert hasty.post("/v1/chat/completions", CHAT)[0] == 200


def test_half_open_connections_over_the_limit_leave_the_node_reachable_soon(hasty: NodeServer) -> None:
    silent = [hasty.connect() for _ in range(30)]
    refused = [sock for sock in silent[20:] if b" 503 " in sock.recv(200)]
    assert len(refused) == 10
    eventually(lambda: answers(hasty), within_s=3)
    for sock in silent:
        sock.close()


def answers(node: NodeServer) -> bool:
    try:
        return node.get("/health")[0] == 200
    except (OSError, IndexError):
        return False


@pytest.mark.parametrize("takes_bytes", [0, 1])
def test_a_reader_that_takes_nothing_or_next_to_nothing_is_ended(hasty: NodeServer, takes_bytes: int) -> None:
    hasty.engine.script = Script(texts=["x" * 10_000] * 100_000)
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(10)
        sock.connect(("127.0.0.1", hasty.port))
        content = b'{"model":"org/tiny","stream":true,"messages":[{"role":"user","content":"hi"}]}'
        sock.sendall(http("POST", "/v1/chat/completions", content, {"content-type": "application/json"}))
        eventually(lambda: len(hasty.engine.streams) == 1)

        def is_left() -> bool:
            if takes_bytes:
                sock.recv(takes_bytes)
            return hasty.engine.streams[0].left.is_set()

        eventually(is_left, within_s=30)


def test_connections_are_kept_between_requests(hasty: NodeServer) -> None:
    with hasty.connect() as sock:
        for _ in range(3):
            sock.sendall(b"GET /ready HTTP/1.1\r\nhost: localhost\r\n\r\n")
            received = b""
            while b'{"ready":true}' not in received:
                received += sock.recv(65536)
