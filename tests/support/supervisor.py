"""What stands around a node in service: a manager that is notified, and the node as that manager starts it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support import kept_output
from tests.support.node_process import NEURON, clean_env
from tests.support.node_server import eventually


class Manager:
    """The receiving end of ``NOTIFY_SOCKET``."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.messages: list[dict[str, str]] = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind("\0" + address[1:] if address.startswith("@") else address)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while raw := self._sock.recv(65536):
            lines = (line.partition("=") for line in raw.decode().splitlines())
            self.messages.append({key: value for key, _, value in lines})
        self._sock.close()

    def close(self) -> None:
        """Take no more."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._sock.getsockname())

    def said(self, key: str) -> list[str]:
        """Every value of a key so far, in order."""
        return [message[key] for message in list(self.messages) if key in message]

    def await_(self, key: str, text: str = "", within_s: float = 20) -> None:
        """Until a value of the key holds the text."""
        eventually(lambda: any(text in value for value in self.said(key)), within_s)


@contextmanager
def manager(folder: Path) -> Iterator[Manager]:
    """A manager that listens in ``folder``."""
    one = Manager(str(folder / "notify"))
    try:
        yield one
    finally:
        one.close()


@dataclass
class Service:
    """A process whose log is followed."""

    popen: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def events(self, name: str) -> list[dict[str, Any]]:
        """JSON log lines of one event."""
        found = [json.loads(line) for line in list(self.lines) if line.startswith("{")]
        return [line for line in found if line["event"] == name]

    def await_event(self, name: str, n: int = 1, within_s: float = 30) -> dict[str, Any]:
        """The ``n``-th line of an event, once it is there."""
        eventually(lambda: len(self.events(name)) >= n or self.popen.poll() is not None, within_s)
        assert len(self.events(name)) >= n, "".join(self.lines)
        return self.events(name)[n - 1]

    @property
    def url(self) -> str:
        """Where it listens."""
        url: str = self.await_event("listening")["url"]
        return url


@contextmanager
def service(
    *args: str | Path,
    env: dict[str, str] | None = None,
    command: Sequence[str] = (*NEURON, "serve"),
    **more: Any,
) -> Iterator[Service]:
    """``neuron serve`` with a log in JSON, killed on the way out."""
    kept_output.given(env or {})
    popen = subprocess.Popen(
        [*command, *map(str, args)],
        stderr=subprocess.PIPE,
        text=True,
        env=clean_env({"NEURON_LOG_FORMAT": "json", **(env or {})}),
        start_new_session=True,
        **more,
    )
    one = Service(popen)

    def follow() -> None:
        assert popen.stderr is not None
        for line in popen.stderr:
            one.lines.append(line)
            kept_output.lines.append(line)

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        yield one
    finally:
        if popen.poll() is None:
            os.killpg(popen.pid, 9)
        popen.wait(10)
        follower.join(10)
        assert popen.stderr is not None
        popen.stderr.close()
