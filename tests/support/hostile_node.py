"""A node that ends every text it says with one that is meant to act on whoever shows it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.node_server import NodeServer

WORDS = frozenset({"status", "state", "object", "type", "role", "finish_reason", "verdict_kind"})
"""Keys whose values are one of a few words: another would be refused before it is shown."""
OPEN = frozenset({"special_tokens", "parameters"})
"""Objects whose keys are anything."""


class HostileNode:
    """Passes requests on to a node and spoils its answers with ``payload``."""

    def __init__(self, node: NodeServer, port: int) -> None:
        self.node = node
        self.url = f"http://127.0.0.1:{port}"
        self.payload = ""

    def spoiled(self, value: Any, key: str = "") -> Any:
        """The same with every text spoiled."""
        match value:
            case dict():
                mark = self.payload if key in OPEN else ""
                return {f"{name}{mark}": self.spoiled(each, name) for name, each in value.items()}
            case list():
                return [self.spoiled(each, key) for each in value]
            case str() if key not in WORDS:
                return f"{value}{self.payload}"
        return value

    def answer(self, method: str, path: str, content: bytes) -> tuple[int, str, bytes]:
        """Status, content type and spoiled body."""
        connection = HTTPConnection("127.0.0.1", self.node.port, timeout=10)
        said = {"host": "localhost", "content-type": "application/json", "connection": "close"}
        connection.request(method, path, content, {**said, "accept": self.accept})
        response = connection.getresponse()
        kind, body = response.headers.get("content-type", ""), response.read()
        connection.close()
        return response.status, kind, self._spoiled_body(kind, body)

    accept = "*/*"

    def _spoiled_body(self, kind: str, body: bytes) -> bytes:
        if kind == "application/json":
            return json.dumps(self.spoiled(json.loads(body))).encode()
        return b"\n".join(self._spoiled_line(line) for line in body.split(b"\n"))

    def _spoiled_line(self, line: bytes) -> bytes:
        if not line.startswith(b"data: {"):
            return line
        return b"data: " + json.dumps(self.spoiled(json.loads(line[6:]))).encode()


@contextmanager
def hostile_node(node: NodeServer) -> Iterator[HostileNode]:
    """One in front of ``node``, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length") or 0))
            hostile.accept = self.headers.get("accept", "*/*")
            status, kind, body = hostile.answer(self.command, self.path, content)
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = _pass_on

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hostile = HostileNode(node, server.server_address[1])
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield hostile
        finally:
            server.shutdown()
            thread.join()
