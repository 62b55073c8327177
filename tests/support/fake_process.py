"""A node of a fake engine as a process of its own: what it holds of the machine can be counted from outside."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.node_server import http, parsed, read_all

CHAT = {"model": "org/tiny", "messages": [{"role": "user", "content": "hi"}]}
HASTY = {"header_s": 0.5, "body_s": 0.5, "write_s": 0.5, "keep_alive_s": 1}
"""Seconds after which a client has been waited for long enough."""


class Held(NamedTuple):
    """What a process has."""

    fds: int
    threads: int
    rss_kb: int


class FakeProcess:
    """A node that listens on ``port``; its log goes to a file."""

    def __init__(
        self,
        log: Path,
        settings: dict[str, Any],
        deadlines: dict[str, float],
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        parts = [json.dumps(part) for part in (settings, {}, deadlines)]
        with log.open("wb") as file:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", "tests.support.serve_fake", *parts],
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env={**os.environ, **(env or {})},
            )
        assert self.popen.stdout is not None
        self.port = int(self.popen.stdout.readline().strip().rpartition(":")[2])

    def connect(self, timeout_s: float = 10) -> socket.socket:
        """A connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s)

    def ask(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and body of an answer."""
        content = b"" if body is None else json.dumps(body).encode()
        said = {"content-type": "application/json", **headers} if method == "POST" else headers
        with self.connect() as sock:
            sock.sendall(http(method, path, content, said))
            return parsed(read_all(sock))

    def is_well(self) -> bool:
        """It says so, and answers as it always does."""
        answer = self.ask("POST", "/v1/chat/completions", CHAT)
        text = answer[2]["choices"][0]["message"]["content"] if answer[0] == 200 else None
        return self.ask("GET", "/health")[0] == 200 and text == "Hello wörld"

    def held(self) -> Held:
        """What it has now."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text()
        numbers = {key: int(value) for key, value in re.findall(r"(Threads|VmRSS):\s+(\d+)", status)}
        return Held(len(os.listdir(f"/proc/{self.popen.pid}/fd")), numbers["Threads"], numbers["VmRSS"])

    def lines(self) -> list[dict[str, Any]]:
        """The log so far; fails where a line is no JSON object."""
        found = [json.loads(line) for line in self.log.read_bytes().splitlines()]
        assert all(isinstance(line, dict) for line in found)
        return found


@contextmanager
def fake_process(
    folder: Path,
    deadlines: dict[str, float] | None = None,
    env: Mapping[str, str] | None = None,
    **settings: Any,
) -> Iterator[FakeProcess]:
    """One that is ended on the way out; its log is in ``folder``."""
    node = FakeProcess(folder / "node.log", settings, deadlines or {}, env)
    try:
        yield node
    finally:
        node.popen.kill()
        node.popen.communicate()
