"""Keys over HTTP: every route for every kind of caller, in every spelling of its path, streaming and not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from neuron.daemon.access import Access, ScopeTable, credentials
from neuron.daemon.operations import OPERATIONS, Operation
from neuron.errors import InvalidApiKey, NeuronError, OverShare
from neuron.key_file import change
from neuron.keys import Keyring, Scope
from neuron.settings import Settings
from tests.support.callers import (
    LIMITED_SECRET,
    OPERATOR,
    OPERATOR_SECRET,
    READER,
    READER_SECRET,
    RING,
    bearer,
)
from tests.support.fake_engine import FakeEngine, Script
from tests.support.node_server import NodeServer, http, node_server, parsed

CHAT = {"model": "org/tiny", "messages": [{"role": "user", "content": "hi"}]}
CALLERS: dict[str, dict[str, str]] = {
    "no key": {},
    "wrong": bearer("nk_" + "A" * 43),
    "infer": bearer(READER_SECRET),
    "manage": bearer(OPERATOR_SECRET),
    "infer in Anthropic's header": {"x-api-key": READER_SECRET},
    "manage in Anthropic's header": {"x-api-key": OPERATOR_SECRET},
}
GRANTS = {"no key": Scope.OPEN, "wrong": Scope.OPEN, "infer": Scope.INFER, "manage": Scope.MANAGE}


@pytest.fixture(scope="module")
def guarded() -> Iterator[NodeServer]:
    with node_server(FakeEngine(), keys=RING) as node:
        yield node


def granted(caller: str) -> Scope:
    return GRANTS[caller.partition(" in ")[0]]


def expected_refusal(caller: str, needed: Scope) -> int | None:
    if granted(caller) >= needed:
        return None
    return 403 if granted(caller) is Scope.INFER else 401


def path_of(operation: Operation) -> str:
    path = operation.path.replace("{model_id}", "org/tiny").replace("{response_id}", "resp_1")
    return f"{path}?follow=false" if path == "/events" else path


def bodies(operation: Operation) -> list[bytes]:
    """Every example of the operation, each as a stream too where it can be one."""
    if operation.body is None:
        return [b""]
    plain = [{**example, "model": "org/tiny"} for example in operation.examples.values()]
    streams = [{**body, "stream": True} for body in plain] if operation.events else []
    return [json.dumps(body).encode() for body in (*plain, *streams)]


def assert_untouched(engine: FakeEngine) -> None:
    """Nobody got as far as the engine."""
    assert [*engine.loads, *engine.streams, *engine.prompts, *engine.calls] == []
    assert set(engine.models) == {"org/tiny"}


def assert_shape(path: str, status: int, body: Any) -> None:
    code = {401: "invalid_api_key", 403: "insufficient_scope"}[status]
    if path.startswith("/v1/messages"):
        kind = {401: "authentication_error", 403: "permission_error"}[status]
        assert (body["type"], body["error"]["type"]) == ("error", kind)
    elif path.startswith("/v1"):
        assert (body["error"]["code"], body["error"]["type"]) == (code, "invalid_request_error")
    else:
        assert (body["code"], type(body["error"])) == (code, str)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.id)
def test_every_route_asks_for_its_scope_before_anything_else(
    guarded: NodeServer, operation: Operation, caller: str
) -> None:
    guarded.engine.__init__()  # type: ignore[misc]
    refusal = expected_refusal(caller, operation.scope)
    for content in bodies(operation):
        headers = {"content-type": "application/json", **CALLERS[caller]}
        status, said, body = guarded.request(operation.method, path_of(operation), content, headers)
        if refusal is None:
            assert status not in (401, 403)
            continue
        assert status == refusal
        assert said["connection"] == "close"
        assert (said.get("www-authenticate") == "Bearer") is (status == 401)
        assert said["x-request-id"]
        assert_shape(operation.path, status, body)
    if refusal is not None:
        assert_untouched(guarded.engine)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.id)
def test_without_keys_nobody_is_asked(operation: Operation, node: NodeServer) -> None:
    content = bodies(operation)[0]
    headers = {"content-type": "application/json"}
    assert node.request(operation.method, path_of(operation), content, headers)[0] not in (401, 403)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: o.id)
@pytest.mark.parametrize("caller", ["no key", "infer"])
def test_no_spelling_of_a_path_gets_around_its_scope(
    guarded: NodeServer, operation: Operation, caller: str
) -> None:
    if granted(caller) >= operation.scope:
        return
    guarded.engine.__init__()  # type: ignore[misc]
    path = path_of(operation)
    spellings = [
        f"{path}/",
        f"/{path}",
        path.replace("/", "//"),
        f"{path}//",
        f"{path}?x=1",
        f"{path}?x=/ready",
        f"/ready/..{path}",
        f"/ready/../..{path}",
        f"/.{path}",
        path.replace("/", "/%2e/", 1),
        path.replace("/", "%2F"),
        "/" + path[1:].replace("/", "%2f"),
        f"/%6{path[1:]}",
        path.upper(),
        f"{path};/ready",
        f"{path}%00",
        f"http://localhost{path}",
    ]
    content = bodies(operation)[0]
    for spelling in spellings:
        request = http(
            operation.method, spelling, content, {"content-type": "application/json", **CALLERS[caller]}
        )
        assert parsed(guarded.raw(request))[0] >= 400, spelling
    assert_untouched(guarded.engine)


def test_the_table_reads_a_path_as_the_router_does() -> None:
    table = ScopeTable(OPERATIONS)
    assert table.of("POST", "//models///load/") is Scope.MANAGE
    assert table.of("GET", "/models/a/b/c") is Scope.INFER
    assert table.of("GET", "/v1/responses/r/input_items/") is Scope.INFER
    assert table.of("GET", "/ready/") is Scope.OPEN
    for method, path in [
        ("POST", "/models/a"),
        ("GET", "/v1/responses/r/more"),
        ("GET", "/ready/x"),
        ("HEAD", "/ready"),
        ("get", "/ready"),
        ("GET", ""),
        ("DELETE", "/models/a"),
        ("GET", "/models\n/a"),
        ("POST", "/v1/chat/completions/x"),
    ]:
        assert table.of(method, path) is None, (method, path)
    assert table.methods("//models/load/") == ("GET", "POST")  # GET: a model may be named so
    assert table.methods("/nowhere") == ()


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/nowhere", 404, None),
        ("GET", "/v1/nowhere", 404, None),
        ("POST", "/v1/messages/nowhere", 404, None),
        ("PUT", "/health", 405, "GET"),
        ("GET", "/v1/chat/completions", 405, "POST"),
        ("PUT", "/v1/messages", 405, "POST"),
        ("DELETE", "/drain", 405, "POST"),
    ],
)
def test_what_is_not_there_is_told_to_who_has_a_key(
    guarded: NodeServer, method: str, path: str, status: int, allow: str | None
) -> None:
    assert guarded.request(method, path, b"", CALLERS["no key"])[0] == 401
    answers = [guarded.request(method, path, b"", CALLERS[who]) for who in ("infer", "manage")]
    assert [found for found, _, _ in answers] == [status, status]
    (_, said, body), (_, routers, framework) = answers
    assert (said.get("allow"), said["connection"]) == (allow, "close")
    assert set((routers.get("allow") or allow or "").split(", ")) >= set((allow or "").split(", "))
    for answer in (body, framework):
        answer.pop("request_id", None)
    assert body == framework


def test_only_manage_reaches_the_router_with_what_the_table_lacks(guarded: NodeServer) -> None:
    statuses = [guarded.request("OPTIONS", "/v1/models", b"", CALLERS[who])[0] for who in ("infer", "manage")]
    assert statuses == [405, 204]


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({"authorization": "Bearer a"}, [b"a"]),
        ({"authorization": "bearer   a "}, [b"a"]),
        ({"Authorization": "BEARER a"}, [b"a"]),
        ({"authorization": "Basic a"}, []),
        ({"authorization": "a"}, []),
        ({"authorization": "Bearer"}, []),
        ({"x-api-key": "b"}, [b"b"]),
        ({"authorization": "Bearer a", "X-Api-Key": "b"}, [b"a", b"b"]),
        ({"api-key": "c", "cookie": "key=d"}, []),
    ],
)
def test_what_counts_as_a_key(headers: dict[str, str], found: list[bytes]) -> None:
    assert credentials([(k.encode(), v.encode()) for k, v in headers.items()]) == found


def test_either_header_may_hold_the_key(guarded: NodeServer) -> None:
    both = {"authorization": "Bearer stale", "x-api-key": READER_SECRET}
    assert guarded.get("/health", **both)[0] == 200
    odd = {"authorization": b"Bearer \xff\xfe\x80".decode("latin-1")}
    assert guarded.request("GET", "/health", b"", odd)[0] == 401


def test_a_refused_body_is_not_read_and_its_sender_hears_why(guarded: NodeServer) -> None:
    large = {**CHAT, "padding": "x" * (4 << 20)}
    for _ in range(5):
        answer = httpx.post(f"{guarded.url}/v1/chat/completions", json=large, trust_env=False)
        assert answer.status_code == 401


def test_the_engine_is_told_who_asks(guarded: NodeServer) -> None:
    guarded.engine.__init__()  # type: ignore[misc]
    asked = [
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", {"model": "org/tiny", "prompt": ["a", "b"]}),
        ("/v1/responses", {"model": "org/tiny", "input": "a"}),
        ("/v1/messages", {**CHAT, "max_tokens": 5}),
    ]
    for path, body in asked:
        assert guarded.post(path, body, **bearer(LIMITED_SECRET))[0] == 200
    said = {(s.generation.principal, s.generation.principal_limit) for s in guarded.engine.streams}
    assert (len(guarded.engine.streams), said) == (5, {("limited", 3)})
    embedded = {"model": "org/tiny", "input": "a"}
    assert guarded.post("/v1/embeddings", embedded, **bearer(READER_SECRET))[0] == 200
    assert guarded.engine.embedders == [("reader", None)]


def test_without_a_limit_of_its_own_a_key_has_the_nodes() -> None:
    settings = Settings(port=0, max_per_principal=7)
    with node_server(FakeEngine(), settings, keys=RING) as node:
        for secret in (READER_SECRET, LIMITED_SECRET):
            node.post("/v1/chat/completions", CHAT, **bearer(secret))
        assert [s.generation.principal_limit for s in node.engine.streams] == [7, 3]
    with node_server(FakeEngine(), settings) as node:
        node.post("/v1/chat/completions", CHAT)
        found = node.engine.streams[0].generation
        assert (found.principal, found.principal_limit) == ("anonymous", 7)


def test_the_official_clients_send_keys(guarded: NodeServer) -> None:
    guarded.engine.__init__()  # type: ignore[misc]
    for key, error in [(READER_SECRET, None), ("nk_wrong", openai.AuthenticationError)]:
        client = openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=key, max_retries=0)
        for stream in (False, True):
            if error is None:
                answer = client.chat.completions.create(**CHAT, stream=stream)  # type: ignore[call-overload]
                assert list(answer) if stream else answer.choices
                continue
            with pytest.raises(error) as refused:
                client.chat.completions.create(**CHAT, stream=stream)  # type: ignore[call-overload]
            assert refused.value.code == "invalid_api_key"
        client.close()


def test_anthropics_clients_send_keys_in_both_their_ways(guarded: NodeServer) -> None:
    guarded.engine.__init__()  # type: ignore[misc]
    body: Any = {**CHAT, "max_tokens": 5}
    for said in ({"api_key": READER_SECRET}, {"api_key": None, "auth_token": READER_SECRET}):
        client = anthropic.Anthropic(base_url=guarded.url, max_retries=0, **said)
        assert client.messages.create(**body).content
        with client.messages.stream(**body) as stream:
            assert stream.get_final_message().content
    wrong = anthropic.Anthropic(base_url=guarded.url, api_key="nk_wrong", max_retries=0)
    with pytest.raises(anthropic.AuthenticationError):
        wrong.messages.create(**body)


def test_a_caller_over_its_share_is_429_in_each_shape_and_the_client_comes_back(guarded: NodeServer) -> None:
    refusal = OverShare("3 answers run or wait", retry_after_s=1)
    guarded.engine.__init__(Script(refuse=refusal))  # type: ignore[misc]
    asked = [
        ("/v1/chat/completions", CHAT),
        ("/v1/messages", {**CHAT, "max_tokens": 5}),
    ]
    for path, body in asked:
        for stream in (False, True):
            status, headers, said = guarded.post(path, {**body, "stream": stream}, **bearer(READER_SECRET))
            assert (status, headers["retry-after"], said["error"]["type"]) == (429, "1", "rate_limit_error")
    calls = 0

    def once_more(generation: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            guarded.engine.script = Script()

    guarded.engine.on_submit = once_more
    client = openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=READER_SECRET, max_retries=2)
    assert client.chat.completions.create(**CHAT).choices  # type: ignore[call-overload]
    assert calls == 2
    client.close()


# ---- reload


def header(secret: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {secret}".encode())]


def passes(access: Access, secret: str) -> bool:
    try:
        access.admit("GET", "/health", header(secret))
    except InvalidApiKey:
        return False
    return True


def test_a_reload_takes_new_keys_and_drops_revoked_ones(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    change(path, lambda ring: ring.with_key(READER))
    settings = Settings(keys_file=path)
    access = Access(settings, Keyring((READER,)))
    change(path, lambda ring: ring.with_key(OPERATOR))
    assert not passes(access, OPERATOR_SECRET)
    access.reload(settings)()
    assert passes(access, OPERATOR_SECRET)
    change(path, lambda ring: ring.without("reader", path))
    assert passes(access, READER_SECRET)
    access.reload(settings)()
    assert not passes(access, READER_SECRET)


@pytest.mark.parametrize("harm", ["exposed", "broken", "gone", "emptied"])
def test_a_reload_that_fails_keeps_the_keys_and_never_opens_the_node(
    tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEURON_STATE", str(tmp_path))
    path = tmp_path / "keys.toml"
    change(path, lambda ring: ring.with_key(READER))
    access = Access(Settings(), Keyring((READER,)))
    match harm:
        case "exposed":
            path.chmod(0o644)
        case "broken":
            path.write_text("[a")
        case "gone":
            path.unlink()
        case "emptied":
            change(path, lambda ring: ring.without("reader", path))
    if harm == "emptied":
        access.reload(Settings())()
    else:
        with pytest.raises(NeuronError):
            access.reload(Settings())
    assert passes(access, READER_SECRET) is (harm != "emptied")
    assert not passes(access, "nk_other")
    assert READER_SECRET not in caplog.text


def test_a_reload_guards_a_node_that_was_open(tmp_path: Path) -> None:
    access = Access(Settings())
    assert passes(access, "")
    path = tmp_path / "keys.toml"
    change(path, lambda ring: ring.with_key(READER))
    access.reload(Settings(keys_file=path))()
    assert not passes(access, "")
    assert passes(access, READER_SECRET)
