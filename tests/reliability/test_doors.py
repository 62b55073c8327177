"""Who may come in: names, origins and declarations that must change nothing, and the ways around a key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from neuron.daemon import body, guards
from neuron.daemon.operations import OPERATIONS, Operation
from neuron.keys import Scope
from tests.support.callers import RING
from tests.support.fake_engine import FakeEngine
from tests.support.fake_process import CHAT, FakeProcess, fake_process
from tests.support.node_server import NodeServer, http, node_server, parsed, read_all
from tests.support.scorecard import Scorecard

TARGET = 80
CHANGES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/models/load": {"model_id": "org/new"},
    "/models/unload": {"model_id": "org/tiny"},
    "/drain": {},
}
"""Requests that change the node, or cost it something: path → body."""
HOSTS = (
    "evil.example",
    "127.0.0.1.evil",
    "localhost.evil",
    "evil.localhost",
    "localhost@evil",
    "evil@localhost",
    "localhost/ready?x=",
    "localhost#",
    "localhost\\evil",
    "localhost, evil",
    "192.0.2.1",
    "127.0.0.2",
    "127.1",
    "2130706433",
    "0x7f.0.0.1",
    "0.0.0.0",
    "[::2]",
    "[::ffff:127.0.0.1]",
    "[::1",
    "::1",
    "localhost:x",
    "localhost:99999",
    "xn--lcalhost-jwb",
    "*",
    "",
)
ORIGINS = (
    "null",
    "",
    "*",
    "http://evil.example",
    "https://127.0.0.1.evil",
    "http://localhost.evil",
    "http://localhost@evil.example",
    "http://evil.example/localhost",
    "http://localhost/x",
    "http://localhost#x",
    "http://user@localhost",
    "http://192.0.2.1",
    "http://[::2]",
    "//localhost",
    "localhost",
    "file://",
    "file://localhost",
    "chrome-extension://localhost",
    "ftp://localhost",
    "http://localhost http://evil.example",
)
TYPES = (
    "text/plain",
    "text/plain; application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/jsonx",
    "application/json+x",
    "application/ld+json",
    "text/json",
    "application/json, text/plain",
    "*/*",
    "",
)


class Door(NamedTuple):
    """A request with one header that must keep it out."""

    path: str
    header: str
    value: str
    status: int


DOORS = [
    *(Door(path, "host", host, 403) for path in CHANGES for host in HOSTS),
    *(Door(path, "origin", origin, 403) for path in CHANGES for origin in ORIGINS),
    *(Door(path, "content-type", media, 415) for path in CHANGES for media in TYPES),
]
kept_out: set[Door] = set()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeProcess]:
    with fake_process(tmp_path_factory.mktemp("node")) as running:
        yield running


def state(node: FakeProcess) -> Any:
    """What of the node a request could change."""
    models = [model["id"] for model in node.ask("GET", "/models?all=true")[2]]
    ran = [request for request in node.ask("GET", "/requests")[2] if request["state"] != "refused"]
    return models, ran, node.ask("GET", "/ready")[2]


@pytest.mark.parametrize("door", DOORS, ids=lambda d: f"{d.path} {d.header} {d.value}")
def test_a_stranger_changes_nothing(node: FakeProcess, door: Door) -> None:
    before = state(node)
    status, headers, _ = node.ask("POST", door.path, CHANGES[door.path], **{door.header: door.value})
    assert status == door.status
    assert not [name for name in headers if name.startswith("access-control")]
    assert state(node) == before
    kept_out.add(door)


@pytest.mark.parametrize("path", CHANGES)
def test_a_preflight_is_granted_nothing(node: FakeProcess, path: str) -> None:
    asked = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    with node.connect() as sock:
        sock.sendall(http("OPTIONS", path, b"", asked))
        status, headers, _ = parsed(read_all(sock))
    assert status == 403
    assert not [name for name in headers if name.startswith("access-control")]


def test_the_same_requests_do_change_the_node_where_nothing_is_wrong(
    tmp_path: Any, scorecard: Scorecard
) -> None:
    with fake_process(tmp_path) as node:
        for path, content in CHANGES.items():
            if path != "/drain":
                before = state(node)
                assert node.ask("POST", path, content, origin="http://localhost:3000")[0] == 200
                assert state(node) != before, path
        assert node.ask("POST", "/drain", {})[0] == 202
    if len(kept_out) >= TARGET:
        scorecard(36, f"{len(kept_out)} requests, 0 changes", f">= {TARGET}, 0 state changes", True)


def test_without_the_guards_a_stranger_comes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards.Guards, "check", lambda self, headers, version: None)
    monkeypatch.setattr(body, "_demand_json", lambda request: None)
    with node_server(FakeEngine()) as node:
        for name, value in {"host": "evil.example", "origin": "null", "content-type": "text/plain"}.items():
            said = {"content-type": "application/json", name: value}
            content = json.dumps(CHAT).encode()
            assert node.request("POST", "/v1/chat/completions", content, said)[0] == 200


GUARDED = [operation for operation in OPERATIONS if operation.scope is not Scope.OPEN]


def ways_around(path: str) -> dict[str, tuple[str, dict[str, str]]]:
    """The same route by another name: target, headers."""
    first, rest = path[1:2], path[2:]
    return {
        "as it is": (path, {}),
        "two slashes": ("/" + path, {}),
        "slashes inside": (path.replace("/", "//"), {}),
        "a slash at the end": (path + "/", {}),
        "a letter in hex": (f"/%{ord(first):02x}{rest}", {}),
        "a slash in hex": (path.replace("/", "%2f")[3:].join(["/", ""]), {}),
        "capitals": (path.upper(), {}),
        "up and down": ("/ready/.." + path, {}),
        "the whole address": ("http://localhost" + path, {}),
        "another path in the host": (path, {"host": "localhost/ready?x="}),
        "a path that was rewritten": (path, {"x-original-url": "/ready", "x-rewrite-url": "/ready"}),
        "another method": (path, {"x-http-method-override": "GET"}),
        "as a neighbour": (path, {"x-forwarded-for": "127.0.0.1", "x-forwarded-host": "localhost"}),
        "an empty key": (path, {"authorization": "Bearer "}),
        "a key of another scheme": (path, {"authorization": "Basic bmV1cm9uOm5ldXJvbg=="}),
        "a key that is no text": (path, {"authorization": "Bearer clé"}),
        "a wrong key": (path, {"x-api-key": "k" * 4000}),
        "a parameter": (path + "?key=x&api_key=x&token=x", {}),
    }


@pytest.fixture(scope="module")
def guarded() -> Iterator[NodeServer]:
    with node_server(FakeEngine(), keys=RING) as running:
        yield running


@pytest.mark.parametrize("operation", GUARDED, ids=lambda o: o.id)
def test_no_way_leads_around_a_key(guarded: NodeServer, operation: Operation) -> None:
    path = operation.path.replace("{model_id}", "org/tiny").replace("{", "").replace("}", "")
    content = json.dumps(next(iter(operation.examples.values()), {})).encode()
    for way, (target, headers) in ways_around(path).items():
        said = {"content-type": "application/json", **headers}
        status, _, answer = guarded.request(operation.method, target, content, said)
        assert status in (401, 403, 404, 405), (way, status, answer)
        if status in (404, 405):
            assert "org/tiny" not in str(answer), way
    assert guarded.engine.streams == []
    assert guarded.engine.loads == []
    assert set(guarded.engine.models) == {"org/tiny"}
