"""Host, Origin, methods and the shape of headers: refused before any route, on every path."""

from __future__ import annotations

import logging

import pytest

from neuron.daemon.guards import allowed_hosts, host_of
from neuron.log import as_line
from neuron.settings import Settings
from tests.support.fake_engine import FakeEngine
from tests.support.node_server import NodeServer, http, node_server, parsed

GOOD_HOSTS = [
    "localhost",
    "LOCALHOST:1",
    "127.0.0.1:13131",
    "[::1]",
    "[::1]:80",
    "[0:0:0:0:0:0:0:1]",
    "localhost.",
    "gpu.lan",
    "gpu:13131",
]
BAD_HOSTS = [
    "evil.example",
    "127.0.0.1.evil",
    "localhost.evil",
    "localhost/health?x=",
    "localhost@evil",
    "evil@localhost",
    "192.0.2.1",
    "127.0.0.2",
    "2130706433",
    "[::2]",
    "[::1",
    "localhost:x",
    "localhost:99999",
    "*",
    "xn--lcalhost-jwb",
]
BAD_ORIGINS = [
    "null",
    "http://evil.example",
    "https://127.0.0.1.evil",
    "http://192.0.2.1",
    "localhost",
    "file://localhost",
    "chrome-extension://localhost",
    "http://localhost/x",
    "http://user@localhost",
    "",
]


@pytest.mark.parametrize("host", GOOD_HOSTS)
def test_names_of_this_node_are_answered(node: NodeServer, host: str) -> None:
    assert node.get("/health", host=host)[0] == 200


@pytest.mark.parametrize("host", BAD_HOSTS)
@pytest.mark.parametrize("path", ["/health", "/v1/models", "/nowhere"])
def test_other_names_are_forbidden_on_every_path(node: NodeServer, path: str, host: str) -> None:
    status, headers, body = node.get(path, host=host)
    assert status == 403
    assert headers["x-request-id"]
    code = body["error"]["code"] if path == "/v1/models" else body["code"]
    assert code == "forbidden_host"


@pytest.mark.parametrize("origin", BAD_ORIGINS)
def test_foreign_origins_are_forbidden_also_on_get(node: NodeServer, origin: str) -> None:
    assert node.get("/health", origin=origin)[0] == 403
    assert node.post("/models/unload", {"model_id": "org/tiny"}, origin=origin)[0] == 403
    assert "org/tiny" in node.engine.models


def test_own_origins_pass_and_nothing_is_said_of_cors(node: NodeServer) -> None:
    status, headers, _ = node.get("/health", origin="http://localhost:3000")
    assert status == 200
    assert not [name for name in headers if name.startswith("access-control")]


def test_a_preflight_is_not_granted(node: NodeServer) -> None:
    asked = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    status, headers, _ = node.request("OPTIONS", "/v1/chat/completions", b"", asked)
    assert status == 403
    assert not [name for name in headers if name.startswith("access-control")]


def test_an_operator_can_add_names() -> None:
    settings = Settings(port=0, allowed_hosts=("Node.Example",), public_url="https://api.example:8443/v1")
    assert {"node.example", "api.example", "localhost", "127.0.0.1", "::1"} <= allowed_hosts(
        settings, ["box"]
    )


def test_a_wildcard_bind_answers_to_addresses_but_not_to_their_pages() -> None:
    with node_server(FakeEngine(), Settings(port=0, bind="0.0.0.0", insecure=True)) as node:
        assert node.get("/health", host="192.0.2.7")[0] == 200
        assert node.get("/health", host="192.0.2.7", origin="http://192.0.2.7")[0] == 200
        assert node.get("/health", host="192.0.2.7", origin="http://192.0.2.8")[0] == 403
        assert node.get("/health", host="evil.example")[0] == 403
        assert node.get("/health", host="0.0.0.0")[0] == 200


@pytest.mark.parametrize("authority", ["", ":80", "[x]", "a:b:c"])
def test_what_is_no_authority_has_no_host(authority: str) -> None:
    assert host_of(authority) is None


RAW = {
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "no host in 1.0": b"GET /health HTTP/1.0\r\n\r\n",
    "two hosts": b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    "both lengths": b"POST /models/unload HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /models/unload HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "101 headers": b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"a: b\r\n" * 100 + b"\r\n",
    "a 200 KB header": b"GET /health HTTP/1.1\r\nHost: localhost\r\nx: " + b"a" * 200_000 + b"\r\n\r\n",
    "no protocol": b"hello\r\n\r\n",
    "a space in the target": b"GET /hea lth HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a folded header": b"GET /health HTTP/1.1\r\nHost: localhost\r\n x\r\n\r\n",
    "a null in a header": b"GET /health HTTP/1.1\r\nHost: local\0host\r\n\r\n",
    "a negative length": b"POST /models/load HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


@pytest.mark.parametrize("name", RAW)
def test_bytes_that_are_no_clean_request_are_refused_and_the_node_goes_on(
    node: NodeServer, name: str
) -> None:
    with node.connect() as sock:
        sock.sendall(RAW[name])
        answer = sock.recv(65536)
    assert 400 <= int(answer.split()[1]) < 500
    assert node.get("/health")[0] == 200


def test_bytes_that_are_no_http_are_one_event_and_no_line_of_a_library(
    node: NodeServer, caplog: pytest.LogCaptureFixture
) -> None:
    with node.connect() as sock:
        sock.sendall(RAW["no protocol"])
        assert sock.recv(65536).startswith(b"HTTP/1.1 400 ")
    (line,) = (as_line(record) for record in caplog.records if record.levelno >= logging.WARNING)
    assert (line["event"], line["status"], line["code"]) == ("refused", 400, "invalid_http")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/v1/nowhere", 404),
        ("GET", "/v1", 404),
        ("GET", "/schema", 404),
        ("POST", "/health", 405),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("PUT", "/models/load", 405),
    ],
)
def test_wrong_paths_and_methods_have_the_shape_of_their_side(
    node: NodeServer, method: str, path: str, status: int
) -> None:
    found, headers, body = node.request(method, path, b"", {})
    assert found == status
    assert headers["x-request-id"]
    assert isinstance(body["error"], dict if path.startswith("/v1") else str)
    assert ("allow" in headers) is (status == 405)


def test_request_ids_are_given_never_taken(node: NodeServer) -> None:
    ids = {node.get("/ready", **{"x-request-id": "mine"})[1]["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert "mine" not in ids


def test_a_path_is_decoded_once(node: NodeServer) -> None:
    assert parsed(node.raw(http("GET", "/v1/models/org%252Ftiny", b"", {})))[0] == 404
