"""The process: a socket bound first, a drain on a signal, an end at once on the second."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from neuron.daemon.listen import bind, url_of
from neuron.errors import AddressInUse, ConfigError
from neuron.settings import Settings
from tests.support.node_server import eventually, http, node_server, parsed, read_all

CHAT = {"model": "org/tiny", "messages": [{"role": "user", "content": "hi"}]}


class Process:
    """A node process and what it said."""

    def __init__(self, settings: dict[str, Any], script: dict[str, Any]) -> None:
        command = [sys.executable, "-m", "tests.support.serve_fake", json.dumps(settings), json.dumps(script)]
        self.popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.popen.stdout is not None
        self.url = self.popen.stdout.readline().strip()
        self.port = int(self.url.rpartition(":")[2])

    def connect(self, method: str, path: str, body: Any = None) -> socket.socket:
        content = b"" if body is None else json.dumps(body).encode()
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=15)
        sock.sendall(http(method, path, content, {"content-type": "application/json"}))
        return sock

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, str], Any]:
        with self.connect(method, path, body) as sock:
            return parsed(read_all(sock))

    def end(self, within_s: float = 10) -> tuple[int, str, list[dict[str, Any]]]:
        """Exit code, what was printed after the URL, log lines."""
        out, err = self.popen.communicate(timeout=within_s)
        return self.popen.returncode, out.strip(), [json.loads(line) for line in err.splitlines()]


@contextmanager
def process(script: dict[str, Any] | None = None, **settings: Any) -> Iterator[Process]:
    node = Process(settings, script or {})
    try:
        yield node
    finally:
        node.popen.kill()
        node.popen.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_node_drains_and_exits_0(number: signal.Signals) -> None:
    with process(models=["a/b"]) as node:
        assert node.ask("GET", "/health")[2]["activation"]["pending"] == ["a/b"]
        node.popen.send_signal(number)
        code, out, lines = node.end(5)
    assert code == 0
    assert out == '["start", "activate a/b", "drain", "close"] False'
    assert [line["event"] for line in lines] == ["listening", "draining", "stopped"]


def test_a_running_stream_ends_whole_and_new_work_is_refused() -> None:
    with (
        process({"texts": ["x"] * 20, "step_s": 0.1}) as node,
        node.connect("POST", "/v1/chat/completions", {**CHAT, "stream": True}) as stream,
    ):
        assert b" 200 " in stream.recv(65536)
        node.popen.terminate()
        eventually(lambda: node.ask("GET", "/ready")[0] == 503)
        status, headers, body = node.ask("POST", "/v1/chat/completions", CHAT)
        assert (status, body["error"]["code"]) == (503, "shutting_down")
        assert 1 <= int(headers["retry-after"]) <= 60
        assert node.ask("GET", "/health")[0] == 200
        assert b"data: [DONE]" in read_all(stream)
        assert node.end()[0] == 0


def test_a_stream_over_the_drain_time_ends_with_an_error_event() -> None:
    with (
        process({"texts": ["x"] * 1000, "step_s": 0.1}, drain_s=0.5) as node,
        node.connect("POST", "/v1/chat/completions", {**CHAT, "stream": True}) as stream,
    ):
        assert b" 200 " in stream.recv(65536)
        node.popen.terminate()
        answer = read_all(stream)
        assert node.end()[0] == 0
    assert b"[DONE]" not in answer
    last = answer.removesuffix(b"\r\n0\r\n\r\n").rpartition(b"data: ")[2]
    assert json.loads(last)["error"]["code"] == "shutting_down"


def test_a_second_signal_ends_at_once() -> None:
    with (
        process({"texts": ["x"] * 1000, "step_s": 0.1}, drain_s=60) as node,
        node.connect("POST", "/v1/chat/completions", {**CHAT, "stream": True}) as stream,
    ):
        assert b" 200 " in stream.recv(65536)
        node.popen.terminate()
        eventually(lambda: node.ask("GET", "/ready")[0] == 503)
        node.popen.terminate()
        began_s = time.monotonic()
        assert node.popen.wait(5) == 0
        assert time.monotonic() - began_s < 1


def test_the_socket_needs_nothing_heavy() -> None:
    code = (
        "import sys; from neuron.daemon import listen, server; from neuron.settings import Settings;"
        "listen.bind(Settings(port=0)).close();"
        "print(sorted({'torch', 'litestar', 'uvicorn', 'asyncio'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_a_port_in_use_is_said_in_one_line() -> None:
    with bind(Settings(port=0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(AddressInUse, match=f"127.0.0.1 port {port} is in use") as caught:
            bind(Settings(port=port))
    assert "--port" in (caught.value.hint or "")


def test_an_answer_on_a_kept_connection_does_not_wait_for_an_ack() -> None:
    with node_server() as node, node.connect() as sock:
        request = http("GET", "/version", b"", {"connection": "keep-alive"})
        took_s = sorted(exchange_s(sock, request) for _ in range(15))
    assert took_s[7] < 0.03  # a delayed acknowledgement takes 40 ms


def exchange_s(sock: socket.socket, request: bytes) -> float:
    """Seconds from a request to the end of its answer's JSON."""
    began_s, answer = time.monotonic(), b""
    sock.sendall(request)
    while not answer.endswith(b"}"):
        answer += sock.recv(65536)
    return time.monotonic() - began_s


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1"])
def test_an_address_beyond_loopback_needs_insecure(address: str) -> None:
    with pytest.raises(ConfigError, match="no keys"):
        bind(Settings(port=0, bind=address))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_loopback_addresses_need_nothing(address: str) -> None:
    with bind(Settings(port=0, bind=address)) as sock:
        assert url_of(sock).startswith("http://127.0.0.")


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1"])
def test_keys_allow_any_address(address: str) -> None:
    with bind(Settings(port=0, bind=address), guarded=True) as sock:
        assert url_of(sock).startswith("http://127.0.0.1:")


def test_insecure_allows_any_address() -> None:
    with bind(Settings(port=0, bind="0.0.0.0", insecure=True)) as sock:
        assert url_of(sock).startswith("http://127.0.0.1:")


@pytest.mark.parametrize("address", ["nowhere.invalid", "300.1.1.1", "192.0.2.1", "a" * 300])
def test_what_is_no_address_of_this_host_is_a_config_error(address: str) -> None:
    with pytest.raises(ConfigError):
        bind(Settings(port=0, bind=address, insecure=True))
