"""The bytes of a stream: events, comments, ends; silence is never longer than a second."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from neuron.errors import NumericalError
from tests.support.fake_engine import Script
from tests.support.node_server import NodeServer, dechunked, http

CHAT = ("/v1/chat/completions", {"model": "org/tiny", "messages": [{"role": "user", "content": "hi"}]})
RESPONSES = ("/v1/responses", {"model": "org/tiny", "input": "hi"})
EITHER = pytest.mark.parametrize(("path", "body"), [CHAT, RESPONSES])


def stream(node: NodeServer, path: str, body: dict[str, Any]) -> bytes:
    status, headers, payload = node.post(path, {**body, "stream": True})
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["cache-control"] == "no-cache"
    assert isinstance(payload, bytes)
    return payload


def test_chat_lines_are_data_alone(node: NodeServer) -> None:
    payload = stream(node, *CHAT)
    events = payload.split(b"\n\n")
    assert events[-1] == b""
    assert events[-2] == b"data: [DONE]"
    assert all(re.fullmatch(rb"data: [^\r\n]+", event) for event in events[:-1])


def test_responses_lines_are_an_event_and_its_data_of_the_same_type(node: NodeServer) -> None:
    events = stream(node, *RESPONSES).split(b"\n\n")
    assert events.pop() == b""
    for event in events:
        name, data = re.fullmatch(rb"event: (\S+)\ndata: ([^\r\n]+)", event).groups()  # type: ignore[union-attr]
        assert json.loads(data)["type"] == name.decode()
    assert b"[DONE]" not in b"".join(events)


def test_odd_text_survives_the_lines_however_a_client_cuts_them(node: NodeServer) -> None:
    odd = "a\nb\r\n\r\ndata: [DONE]\n\n\x00\x1c\u2028\u2029\x85😀"
    node.engine.script = Script(texts=list(odd))
    payload = stream(node, *CHAT)
    chunks = [json.loads(e[6:]) for e in payload.split(b"\n\n")[:-2]]
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == odd
    assert payload.decode().splitlines() == payload.decode().split("\n")[:-1]


@EITHER
def test_an_error_after_the_headers_ends_the_stream_without_done(
    node: NodeServer, path: str, body: dict[str, Any]
) -> None:
    node.engine.script = Script(texts=["x"], fail=NumericalError("not finite"))
    payload = stream(node, path, body)
    assert b"[DONE]" not in payload
    assert b'"finish_reason":"stop"' not in payload
    last = json.loads(payload.split(b"\n\n")[-2].rpartition(b"data: ")[2])
    error = last["error"] if path == CHAT[0] else last["response"]["error"]
    assert error["message"] == "not finite"


@EITHER
def test_queue_and_prefill_are_not_silent(node: NodeServer, path: str, body: dict[str, Any]) -> None:
    node.engine.script = Script(before_s=2.3)
    gaps, payload = [], b""
    with node.connect() as sock:
        content = json.dumps({**body, "stream": True}).encode()
        sock.sendall(http("POST", path, content, {"content-type": "application/json"}))
        before = time.monotonic()
        while part := sock.recv(65536):
            gaps.append(time.monotonic() - before)
            before = time.monotonic()
            payload += part
    assert max(gaps) < 1.5
    text = dechunked(payload.partition(b"\r\n\r\n")[2])
    if path == CHAT[0]:
        assert text.count(b": ping\n\n") == 2
        assert text.startswith(b"data: ")
    else:
        assert text.count(b"event: response.in_progress\n") == 3
        numbers = [int(n) for n in re.findall(rb'"sequence_number":(\d+)', text)]
        assert numbers == list(range(len(numbers)))


def test_the_role_comes_at_admission(node: NodeServer) -> None:
    node.engine.script = Script(before_s=0.8)
    began_s = time.monotonic()
    with node.connect() as sock:
        content = json.dumps({**CHAT[1], "stream": True}).encode()
        sock.sendall(http("POST", CHAT[0], content, {"content-type": "application/json"}))
        while b'"role":"assistant"' not in sock.recv(65536):
            pass
        assert time.monotonic() - began_s < 0.5
