"""Bodies that are not what they should be: always a 4xx in the envelope, never a 500, never a hang."""

from __future__ import annotations

import contextlib
import gc
import gzip
from typing import Any

import pytest

from neuron.daemon import body
from neuron.errors import MalformedJson, NeuronError
from neuron.wire.chat import ChatCompletionRequest
from tests.support.node_server import NodeServer, http, parsed, read_all

CHAT = "/v1/chat/completions"
GOOD = b'{"model": "org/tiny", "messages": [{"role": "user", "content": "hi"}]}'

MALFORMED = {
    "empty": b"",
    "cut": GOOD[:-1],
    "two values": GOOD + b"{}",
    "list": b"[]",
    "string": b'"x"',
    "null": b"null",
    "number": b"1",
    "not utf-8": b'{"model": "\xff"}',
    "not utf-8 outside strings": b"\xff",
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
    "utf-16": GOOD.decode().encode("utf-16"),
    "lone surrogate": b'{"model": "\\ud800"}',
    "swapped surrogates": b'{"model": "\\udc00\\ud800"}',
    "nan": b'{"model": NaN}',
    "deep lists": b"[" * 50_000,
    "deep objects": b'{"a":' * 10_000,
    "deep and closed": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "deeper than allowed": b'{"a":' * 70 + b"1" + b"}" * 70,
    "control character in a string": b'{"model": "\n"}',
    "python": b"{'model': 'x'}",
    "form": b"model=x&messages=y",
}


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("path", [CHAT, "/v1/responses", "/models/load", "/models/unload"])
def test_what_is_no_json_object_is_malformed(node: NodeServer, path: str, name: str) -> None:
    status, headers, body = node.post(path, MALFORMED[name])
    assert status == 400
    code = body["error"]["code"] if path.startswith("/v1") else body["code"]
    assert code == "malformed_json"
    assert headers["x-request-id"].startswith("req_")


def test_a_lone_surrogate_is_called_by_its_name(node: NodeServer) -> None:
    assert "surrogate" in node.post(CHAT, MALFORMED["lone surrogate"])[2]["error"]["message"]


BAD_MESSAGES: list[tuple[Any, str]] = [
    ([], "messages"),
    (None, "messages"),
    ("hi", "messages"),
    ([1], "messages[0]"),
    ([None], "messages[0]"),
    ([{"content": "x"}], "messages[0].role"),
    ([{"role": "robot", "content": "x"}], "messages[0].role"),
    ([{"role": ["user"], "content": "x"}], "messages[0].role"),
    ([{"role": "user", "content": 1}], "messages[0].content"),
    ([{"role": "user", "content": {}}], "messages[0].content"),
    ([{"role": "user", "content": "a"}, {"role": "user", "content": ["x"]}], "messages[1].content[0]"),
    (
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}],
        "messages[0].content[1]",
    ),
    ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text"),
    ([{"role": "assistant", "tool_calls": "x"}], "messages[0].tool_calls"),
    ([{"role": "assistant", "tool_calls": [{}]}], "messages[0].tool_calls[0].function"),
]


@pytest.mark.parametrize(("messages", "param"), BAD_MESSAGES)
def test_a_bad_message_is_refused_by_its_place(node: NodeServer, messages: Any, param: str) -> None:
    status, _, body = node.post(CHAT, {"model": "org/tiny", "messages": messages})
    assert (status, body["error"]["param"], body["error"]["code"]) == (400, param, "invalid_value")


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([], "input"),
        (5, "input"),
        ([{"type": "computer_call"}], "input[0].type"),
        ([{"role": "user", "content": [{"type": "input_image"}]}], "input[0].content[0]"),
        ([{"type": "function_call"}], "input[0].call_id"),
    ],
)
def test_bad_input_of_responses_is_refused_by_its_place(node: NodeServer, items: Any, param: str) -> None:
    status, _, body = node.post("/v1/responses", {"model": "org/tiny", "input": items})
    assert (status, body["error"]["param"]) == (400, param)


def messages_for(node: NodeServer, path: str, body: dict[str, Any]) -> list[Any]:
    got: list[Any] = []
    node.engine.on_submit = got.append
    status, _, answer = node.post(path, {"model": "org/tiny", **body})
    assert status == 200, answer
    return list(got[0].prompt.messages)


def test_messages_reach_the_template_as_they_are(node: NodeServer) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    said = [
        {"role": "developer", "content": "be kind"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            "name": "n",
        },
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "out", "tool_call_id": "c"},
        {"role": "assistant", "content": None},
    ]
    parsed_call = {**call, "function": {"name": "f", "arguments": {"a": 1}}}
    assert messages_for(node, CHAT, {"messages": said}) == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "ab", "name": "n"},
        {"role": "assistant", "content": None, "tool_calls": [parsed_call]},
        {"role": "tool", "content": "out", "tool_call_id": "c"},
        {"role": "assistant", "content": ""},
    ]


def test_items_of_responses_become_messages(node: NodeServer) -> None:
    items = [
        {"role": "user", "content": "hi"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes"}]},
        {"type": "reasoning", "summary": []},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "out"},
        {"role": "user", "content": [{"type": "input_text", "text": "go"}]},
    ]
    found = messages_for(node, "/v1/responses", {"input": items, "instructions": "be brief"})
    assert [m["role"] for m in found] == ["system", "user", "assistant", "tool", "user"]
    assert [call["function"]["name"] for call in found[2]["tool_calls"]] == ["f", "g"]
    assert (found[2]["content"], found[3]["content"], found[4]["content"]) == ("yes", "out", "go")


@pytest.mark.parametrize("kind", [{}, [], 1, None])
def test_a_part_whose_type_is_no_word_is_refused(node: NodeServer, kind: object) -> None:
    message = {"role": "user", "content": [{"type": kind, "text": "x"}]}
    assert node.post(CHAT, {"model": "org/tiny", "messages": [message]})[0] == 400


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "application/jsonx"],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/responses", "/models/load", "/models/unload"])
def test_a_body_that_is_not_declared_as_json_is_refused_and_does_nothing(
    node: NodeServer, path: str, content_type: str
) -> None:
    status, _, _ = node.post(path, b'{"model_id": "org/tiny"}', **{"content-type": content_type})
    assert status == 415
    assert node.engine.loads == []
    assert "org/tiny" in node.engine.models


def test_parameters_of_the_content_type_are_fine(node: NodeServer) -> None:
    assert node.post(CHAT, GOOD, **{"content-type": "Application/JSON; charset=utf-8"})[0] == 200


def test_a_compressed_body_is_refused_and_never_inflated(node: NodeServer) -> None:
    bomb = gzip.compress(b" " * 10_000_000)
    assert node.post(CHAT, bomb, **{"content-encoding": "gzip"})[0] == 415


LIMIT = 8 << 20


@pytest.mark.parametrize("path", [CHAT, "/models/load"])
def test_a_body_over_the_limit_is_413_and_the_client_can_read_it(node: NodeServer, path: str) -> None:
    status, _, body = node.post(path, b"[" + b" " * LIMIT)
    assert status == 413
    error = body["error"] if path == CHAT else body
    assert error["code"] == "request_too_large"


def test_a_chunked_body_over_the_limit_is_413(node: NodeServer) -> None:
    headers = {"content-type": "application/json", "transfer-encoding": "chunked"}
    head = http("POST", "/models/load", b"", headers).replace(b"content-length: 0\r\n", b"")
    chunks = b"1\r\n \r\n" * 70_000 + b"0\r\n\r\n"
    assert parsed(node.raw(head + chunks))[0] == 413


def test_a_client_that_waits_for_continue_gets_it(node: NodeServer) -> None:
    head = http("POST", CHAT, b"", {"content-type": "application/json", "expect": "100-continue"})
    with node.connect() as sock:
        sock.sendall(head.replace(b"content-length: 0", f"content-length: {len(GOOD)}".encode()))
        assert b" 100 " in sock.recv(100)
        sock.sendall(GOOD)
        assert parsed(read_all(sock))[0] == 200


@pytest.mark.parametrize("content", [GOOD, MALFORMED["cut"], b'{"model": 1}'])
def test_the_collector_of_cycles_is_off_while_a_body_is_read_and_on_again_after_it(
    content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def watched(content: bytes) -> Any:
        seen.append(gc.isenabled())
        return json_object(content)

    json_object = body.json_object
    monkeypatch.setattr(body, "json_object", watched)
    with contextlib.suppress(NeuronError):
        body.decoded(content, ChatCompletionRequest)
    assert (seen, gc.isenabled()) == ([False], True)


def test_depth_is_counted_in_objects_and_lists_alike() -> None:
    fits = b'{"a":[' * 32 + b"]}" * 32
    assert body.json_object(fits)
    with pytest.raises(MalformedJson, match="deeper than 64"):
        body.json_object(b'{"a":[' * 32 + b"[]" + b"]}" * 32)
