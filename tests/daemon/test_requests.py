"""``GET /requests``: every request is told of, its times add up, and no text is kept unless that is wanted."""

from __future__ import annotations

import json
import logging
import socket
import time
from typing import Any

import pytest

from neuron.errors import DeviceFault, InvalidValue, QueueFull
from neuron.settings import Settings
from neuron.wire.node import RequestInfo
from tests.daemon.test_disconnects import begin
from tests.support.callers import OPERATOR_SECRET, READER_SECRET, RING, bearer
from tests.support.fake_engine import Call, Script, Think
from tests.support.node_server import NodeServer, eventually, node_server

MESSAGES = [{"role": "user", "content": "the secret word"}]
CHAT = ("/v1/chat/completions", {"model": "org/tiny", "messages": MESSAGES})
COMPLETIONS = ("/v1/completions", {"model": "org/tiny", "prompt": ["a", "b"], "n": 2})
EMBEDDINGS = ("/v1/embeddings", {"model": "org/tiny", "input": ["the secret", "word"]})
PHASES = ("read_ms", "load_ms", "prepare_ms", "queue_ms", "prefill_ms", "decode_ms", "deliver_ms")


def told(node: NodeServer, request_id: str) -> dict[str, Any]:
    """What the node says of a request that has ended."""
    found: dict[str, Any] = {}

    def ended() -> bool:
        found.update(node.get(f"/requests/{request_id}")[2])
        return found["state"] not in ("queued", "prefill", "decoding")

    eventually(ended)
    return found


def phases(info: dict[str, Any]) -> list[float]:
    return [info[name] for name in PHASES]


@pytest.mark.parametrize("stream", [False, True])
def test_the_times_are_those_that_the_engine_took_and_add_up(node: NodeServer, stream: bool) -> None:
    node.engine.script = Script(texts=["x"] * 5, submit_s=0.1, before_s=0.2, step_s=0.1)
    began_s = time.monotonic()
    _, headers, _ = node.post(CHAT[0], {**CHAT[1], "stream": stream})
    waited_ms = (time.monotonic() - began_s) * 1e3
    info = told(node, headers["x-request-id"])
    assert sum(phases(info)) == pytest.approx(info["total_ms"], rel=0.02)
    assert info["total_ms"] == pytest.approx(waited_ms, abs=60)
    assert phases(info) == pytest.approx([0, 0, 100, 200, 100, 400, 0], abs=60)
    assert info["first_token_ms"] == pytest.approx(400, abs=60)
    assert info["tokens_per_s"] == pytest.approx(10, rel=0.3)


def test_a_body_that_comes_slowly_and_a_client_that_reads_slowly_have_times_of_their_own(
    node: NodeServer,
) -> None:
    node.engine.script = Script(texts=["x" * 1_000_000] * 24)
    content = json.dumps(CHAT[1]).encode()
    head = f"POST {CHAT[0]} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", node.port)) as client:
        client.sendall(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content[:9])
        time.sleep(0.4)
        client.sendall(content[9:])
        request_id = node.get("/requests?limit=1")[2][0]["id"]
        time.sleep(1.2)
        left = 24_000_000
        while left > 0:
            left -= len(client.recv(1 << 20))
    info = told(node, request_id)
    assert info["read_ms"] > 350
    assert info["deliver_ms"] > 500
    assert sum(phases(info)) == pytest.approx(info["total_ms"], rel=0.02)


def test_everything_is_told_of_a_request_that_finished(node: NodeServer) -> None:
    node.engine.script = Script(texts=[Think("hm"), "yes"], reason="length")
    asked = {**CHAT[1], "temperature": 0.5, "seed": 3, "max_tokens": 9, "stop": ["secret"], "stream": True}
    _, headers, _ = node.post(CHAT[0], asked)
    info = told(node, headers["x-request-id"])
    assert {
        k: v for k, v in info.items() if not k.endswith("_ms") and k not in ("arrived", "tokens_per_s")
    } == {
        "id": headers["x-request-id"],
        "path": CHAT[0],
        "state": "finished",
        "stream": True,
        "model": "org/tiny",
        "prompt_tokens": 7,
        "cached_tokens": 2,
        "completion_tokens": 2,
        "reasoning_tokens": 1,
        "drafted_tokens": 5,
        "drafted_right_tokens": 3,
        "finish_reason": "length",
        "parameters": {"temperature": 0.5, "seed": 3, "max_tokens": 9, "stop_strings": 1},
    }
    assert abs(info["arrived"] - time.time()) < 30


def test_several_prompts_and_answers_count_each_once(node: NodeServer) -> None:
    _, headers, body = node.post(*COMPLETIONS)
    info = told(node, headers["x-request-id"])
    assert info["n_prompts"] == 2
    assert info["prompt_tokens"] == body["usage"]["prompt_tokens"] == 14
    assert info["completion_tokens"] == body["usage"]["completion_tokens"] == 12
    assert info["parameters"]["n"] == 2


def test_a_request_that_runs_is_told_of_with_its_counts_so_far(node: NodeServer) -> None:
    node.engine.script = Script(texts=["x"] * 100_000, before_s=0.3, step_s=0.02)
    with begin(node, CHAT[0], {**CHAT[1], "stream": True}):
        eventually(lambda: len(node.engine.running) == 1)
        running = lambda: node.get("/requests?limit=1")[2][0]  # noqa: E731
        assert running()["state"] == "queued"
        eventually(lambda: running()["state"] == "decoding")
        first = running()
        eventually(lambda: running()["completion_tokens"] > first["completion_tokens"])
        assert first["queue_ms"] == pytest.approx(300, abs=80)
        assert "finish_reason" not in first
    assert told(node, first["id"])["state"] == "cut"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "state", "code"),
    [
        (Script(fail=DeviceFault("the device fell off")), "failed", "device_fault"),
        (Script(fail=InvalidValue("no such thing")), "failed", "invalid_value"),
        (Script(refuse=QueueFull("the queue is full")), "refused", "rate_limit_exceeded"),
    ],
)
def test_failures_and_refusals_are_told_by_their_code(
    node: NodeServer, script: Script, stream: bool, state: str, code: str
) -> None:
    node.engine.script = script
    for path, body in (CHAT, EMBEDDINGS):
        _, headers, _ = node.post(path, {**body, **({"stream": stream} if path == CHAT[0] else {})})
        info = told(node, headers["x-request-id"])
        assert (info["state"], info["code"]) == (state, code)
        cause = script.fail or script.refuse
        assert info.get("cause") == (None if code == "invalid_value" else str(cause))


@pytest.mark.parametrize(
    ("moment", "event", "reason"),
    [
        (Script(submit_s=60), "refused", "code"),
        (Script(before_s=60), "generation", "finish"),
        (Script(texts=["x"] * 9, step_s=60), "generation", "finish"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_one_whose_client_left_is_cut_and_has_its_line(
    node: NodeServer, caplog: pytest.LogCaptureFixture, moment: Script, event: str, reason: str, stream: bool
) -> None:
    caplog.set_level(logging.INFO)
    node.engine.script = moment
    seen: list[object] = []
    node.engine.on_submit = seen.append
    with begin(node, CHAT[0], {**CHAT[1], "stream": stream}):
        eventually(lambda: len(seen) == 1)
        request_id = node.get("/requests?limit=1")[2][0]["id"]
    assert told(node, request_id)["state"] == "cut"
    lines = [vars(r) for r in caplog.records if r.getMessage() in ("generation", "refused")]
    assert [line["message"] for line in lines] == [event]
    fields = lines[0]["neuron_fields"]
    assert (fields["id"], fields[reason]) == (request_id, "client_gone")


def test_an_embedding_waits_runs_and_ends(node: NodeServer) -> None:
    node.engine.script = Script(before_s=0.2, step_s=0.3)
    _, headers, _ = node.post(*EMBEDDINGS)
    info = told(node, headers["x-request-id"])
    assert (info["state"], info["finish_reason"], info["n_prompts"]) == ("finished", "done", 2)
    assert phases(info) == pytest.approx([0, 0, 0, 200, 300, 0, 0], abs=60)
    assert "completion_tokens" not in info


def test_an_embedding_whose_client_left_is_cut(node: NodeServer) -> None:
    node.engine.script = Script(before_s=60)
    with begin(node, *EMBEDDINGS):
        eventually(lambda: node.get("/requests?limit=1")[2][0].get("model") is not None)
        request_id = node.get("/requests?limit=1")[2][0]["id"]
    assert told(node, request_id)["state"] == "cut"


def test_what_has_no_route_has_its_line_too(node: NodeServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    _, headers, _ = node.post("/chat/completions", CHAT[1])
    _, other, _ = node.get(CHAT[0])
    lines = [vars(r)["neuron_fields"] for r in caplog.records if r.getMessage() == "refused"]
    assert [(line["id"], line["status"], line["code"]) for line in lines] == [
        (headers["x-request-id"], 404, "not_found"),
        (other["x-request-id"], 405, "method_not_allowed"),
    ]


@pytest.mark.parametrize("body", [CHAT, EMBEDDINGS])
def test_text_is_not_kept_unless_the_operator_wants_it(node: NodeServer, body: Any) -> None:
    _, headers, _ = node.post(*body)
    assert "secret" not in json.dumps(told(node, headers["x-request-id"]))


def test_text_is_kept_when_the_operator_wants_it() -> None:
    with node_server(settings=Settings(port=0, log_prompts=True)) as node:
        node.engine.script = Script(texts=[Think("hm"), "yes ", Call('{"a":1}', name="f")])
        _, headers, _ = node.post(*CHAT)
        info = told(node, headers["x-request-id"])
        assert json.loads(info["prompts"][0]) == MESSAGES
        assert (info["reasoning"], info["answers"]) == (["hm"], ['yes f{"a":1}'])
        _, headers, _ = node.post(*EMBEDDINGS)
        assert told(node, headers["x-request-id"])["prompts"] == ["the secret", "word"]


def test_the_key_that_was_shown_is_named() -> None:
    with node_server(keys=RING) as node:
        node.post(*CHAT, **bearer(READER_SECRET))
        (info,) = node.get("/requests", **bearer(OPERATOR_SECRET))[2]
        assert info["principal"] == "reader"
        assert node.get("/requests", **bearer(READER_SECRET))[0] == 403


def test_only_the_last_ones_are_kept_and_newest_are_first() -> None:
    with node_server(settings=Settings(port=0, requests_kept=3)) as node:
        ids = [node.post(*CHAT)[1]["x-request-id"] for _ in range(5)]
        eventually(lambda: node.get(f"/requests/{ids[1]}")[0] == 404)
        assert [info["id"] for info in node.get("/requests")[2]] == ids[:1:-1]
        assert [info["id"] for info in node.get("/requests?limit=2")[2]] == ids[:2:-1]
        status, _, body = node.get(f"/requests/{ids[0]}")
        assert (status, body["code"]) == (404, "request_not_found")


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "", "1.0"])
def test_a_limit_outside_its_range_is_refused(node: NodeServer, limit: str) -> None:
    status, _, body = node.get(f"/requests?limit={limit}")
    assert (status, body["code"]) == (400, "invalid_value")


def test_what_is_told_has_a_documented_type(node: NodeServer) -> None:
    import msgspec

    node.post(*CHAT)
    msgspec.convert(node.get("/requests")[2], list[RequestInfo])
