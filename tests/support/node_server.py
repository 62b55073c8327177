"""A real server on a real socket, in a thread, over a fake engine; and plain HTTP over a raw socket."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from neuron.daemon.access import Access
from neuron.daemon.app import create_app
from neuron.daemon.listen import bind
from neuron.daemon.process import Server, config_of
from neuron.daemon.readings import Readings
from neuron.hardware import CpuReading, GpuReading, Host
from neuron.keys import Keyring
from neuron.settings import Settings
from tests.support.fake_engine import FakeEngine
from tests.support.hosts import CPU_HOST

CPU_READING = CpuReading(memory_used_mb=100, memory_free_mb=900, load_pct=12.5)


@dataclass
class NodeServer:
    """A node that listens."""

    engine: FakeEngine
    port: int
    loop: asyncio.AbstractEventLoop
    access: Access

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        """A connected socket that times out."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def raw(self, request: bytes) -> bytes:
        """Send bytes and read until the server closes."""
        with self.connect() as sock:
            sock.sendall(request)
            return read_all(sock)

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, dict[str, str], Any]:
        """POST JSON (or bytes as they are)."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", path, content, {"content-type": "application/json", **headers})

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], Any]:
        """GET."""
        return self.request("GET", path, b"", headers)

    def request(
        self, method: str, path: str, content: bytes, headers: dict[str, str]
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers (lower case) and body, decoded where it is JSON."""
        return parsed(self.raw(http(method, path, content, headers)))


def http(method: str, path: str, content: bytes, headers: dict[str, str]) -> bytes:
    """The bytes of a request that closes its connection."""
    said = {
        "host": "localhost",
        "connection": "close",
        **{k.replace("_", "-"): v for k, v in headers.items()},
    }
    if method == "POST":
        said.setdefault("content-length", str(len(content)))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def read_all(sock: socket.socket) -> bytes:
    """Everything until the end."""
    received = b""
    while part := sock.recv(65536):
        received += part
    return received


def parsed(answer: bytes) -> tuple[int, dict[str, str], Any]:
    """An answer with a length, or a chunked one."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = dechunked(body)
    is_json = headers.get("content-type") == "application/json"
    return int(first.split()[1]), headers, json.loads(body) if is_json else body


def dechunked(body: bytes) -> bytes:
    """The payload of a chunked body."""
    out = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        n = int(size, 16)
        out, body = out + rest[:n], rest[n + 2 :]
        if n == 0:
            break
    return out


@contextmanager
def node_server(
    engine: FakeEngine | None = None,
    settings: Settings | None = None,
    host: Host = CPU_HOST,
    keys: Keyring | None = None,
    gpus: Sequence[GpuReading] = (),
) -> Iterator[NodeServer]:
    """A node on a free port until the block ends."""
    engine = engine or FakeEngine()
    settings = settings or Settings(port=0)
    sock = bind(settings)
    port = 0 if settings.uds else sock.getsockname()[1]
    loop = asyncio.new_event_loop()
    readings = Readings(lambda: gpus, lambda: CPU_READING)
    access = Access(settings, keys)
    app = create_app(
        engine, settings, host=host, readings=readings, url=f"http://localhost:{port}", access=access
    )
    server = Server(config_of(app))
    thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve(sockets=[sock])))
    thread.start()
    try:
        eventually(lambda: server.started)
        yield NodeServer(engine, port, loop, access)
    finally:
        server.should_exit = True
        thread.join(10)
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        sock.close()


def eventually(condition: Callable[[], bool], within_s: float = 5.0) -> None:
    """Wait until ``condition``, or fail."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen in time"
        time.sleep(0.01)
