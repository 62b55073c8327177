"""Addresses in a request: the node asks nobody for what they name, and says that it takes text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.fake_process import FakeProcess, fake_process
from tests.support.opened import Opened

URLS = (
    "http://127.0.0.1:9/x.png",
    "http://localhost:9/",
    "http://[::1]:9/",
    "http://[::ffff:127.0.0.1]:9/",
    "http://0.0.0.0:9/",
    "http://0:9/",
    "http://127.1:9/",
    "http://2130706433:9/",
    "http://0x7f000001:9/",
    "http://017700000001:9/",
    "http://169.254.169.254/latest/meta-data/",
    "http://metadata.google.internal/",
    "http://user:pass@127.0.0.1:9/",
    "http://example.com@127.0.0.1:9/",
    "http://127.0.0.1:9\\@example.com/",
    "http://127.0.0.1:9#@example.com/",
    "http://[64:ff9b::7f00:1]:9/",
    "http:\\\\127.0.0.1:9\\",
    "http:127.0.0.1:9",
    "//127.0.0.1:9/",
    "HTTP://127.0.0.1:9/",
    "https://127.0.0.1:9/",
    "ftp://127.0.0.1:9/x",
    "gopher://127.0.0.1:9/_x",
    "dict://127.0.0.1:9/x",
    "ldap://127.0.0.1:9/x",
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "/etc/passwd",
    "data:image/png;base64,iVBORw0KGgo=",
    "jar:http://127.0.0.1:9!/",
    "unix:///var/run/docker.sock",
)


class Watched(NamedTuple):
    """A node and what it opens."""

    node: FakeProcess
    opened: Opened


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("node")
    opened = Opened(folder / "hook")
    with fake_process(folder, env=opened.env) as node:
        yield Watched(node, opened)


def with_parts(url: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every way to hand the address over in a part, which is refused."""
    picture = {"type": "image_url", "image_url": {"url": url}}
    yield "/v1/chat/completions", {"messages": [{"role": "user", "content": [picture]}]}
    for part in ({"type": "input_image", "image_url": url}, {"type": "input_file", "file_url": url}):
        yield "/v1/responses", {"input": [{"role": "user", "content": [part]}]}
    for kind in ("image", "document"):
        source = {"type": kind, "source": {"type": "url", "url": url}}
        yield "/v1/messages", {"max_tokens": 9, "messages": [{"role": "user", "content": [source]}]}


def with_text(url: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Ways in which it is a text like any other."""
    said = f"![a picture]({url}) <img src='{url}'>"
    yield "/v1/chat/completions", {"messages": [{"role": "user", "content": said}]}
    yield "/v1/responses", {"input": said, "instructions": said}
    yield "/v1/completions", {"prompt": said}
    yield "/v1/embeddings", {"input": said}


def reached(watched: Watched) -> list[str]:
    """Whom the node has tried to reach, and files that no program of Python reads, since the last time."""
    return [place for place in watched.opened.since() if place.startswith(("socket.", "/etc/passwd"))]


@pytest.mark.parametrize("url", URLS)
def test_nothing_that_a_request_names_is_fetched(watched: Watched, url: str) -> None:
    reached(watched)
    for path, body in with_parts(url):
        status, _, answer = watched.node.ask("POST", path, {"model": "org/tiny", **body})
        assert status == 400, (path, answer)
    for path, body in with_text(url):
        status, _, answer = watched.node.ask("POST", path, {"model": "org/tiny", **body})
        assert status == 200, (path, answer)
    for schema in ({"$ref": url}, {"$schema": url, "type": "object"}):
        format_ = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        body = {"model": "org/tiny", "messages": [{"role": "user", "content": "hi"}]}
        watched.node.ask("POST", "/v1/chat/completions", {**body, "response_format": format_})
    assert reached(watched) == []


def test_the_hook_would_tell(tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

    opened = Opened(tmp_path / "hook")
    code = "import socket; socket.socket().connect_ex(('127.0.0.1', 9)); open('/etc/passwd').close()"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **opened.env}, check=True)
    found = opened.since()
    assert "socket.connect ('127.0.0.1', 9)" in found
    assert "/etc/passwd" in found
