"""Requests that have their model loaded first, in every format; and plans over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from neuron.daemon.projection.load import on_request
from neuron.engine.request import LoadSpec
from neuron.errors import ConfigError, InsufficientMemory
from neuron.settings import Settings
from tests.support.fake_engine import FakeEngine
from tests.support.node_server import NodeServer, node_server

CHAT = {"model": "org/late", "messages": [{"role": "user", "content": "hi"}]}
STREAMS = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "org/late", "prompt": "hi"},
    "/v1/messages": {**CHAT, "max_tokens": 9},
    "/v1/responses": {"model": "org/late", "input": "hi"},
}


@pytest.fixture
def late() -> Iterator[NodeServer]:
    """A node that may load ``org/late``."""
    engine = FakeEngine(models=())
    engine.offer([(LoadSpec(model_id="org/late"), lambda report: None)])  # type: ignore[list-item, return-value]
    with node_server(engine) as node:
        yield node


@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_is_kept_alive_while_its_model_is_loaded(late: NodeServer, path: str) -> None:
    late.engine.load_s = 2.5
    status, headers, payload = late.post(path, {**STREAMS[path], "stream": True})
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
    assert payload.startswith(b": ping\n\n")
    assert payload.count(b": ping") >= 1
    assert b"Hel" in payload
    assert len(late.engine.loads) == 1


@pytest.mark.parametrize("path", STREAMS)
def test_a_load_that_fails_late_is_the_last_event_of_the_stream_and_told_in_the_log(
    late: NodeServer, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    late.engine.load_s = 1.5
    late.engine.load_error = InsufficientMemory("no room", hint="unload one", required_mb=9, free_mb=1)
    payload = late.post(path, {**STREAMS[path], "stream": True})[2]
    last = [line for line in payload.split(b"\n") if line.startswith(b"data: ")]
    assert len(last) == 1
    assert "no room" in json.dumps(json.loads(last[0][6:]))
    request = late.get("/requests")[2][0]
    assert request["state"] == "refused"
    told = [vars(r)["neuron_fields"] for r in caplog.records if r.getMessage() == "refused"]
    assert [(line["id"], line["code"]) for line in told] == [(request["id"], "insufficient_memory")]


@pytest.mark.parametrize("path", [*STREAMS, "/v1/embeddings", "/tokenize", "/v1/messages/count_tokens"])
def test_a_whole_answer_waits_for_the_load(late: NodeServer, path: str) -> None:
    late.engine.load_s = 1.5
    body = {
        "/v1/embeddings": {"model": "org/late", "input": "hi"},
        "/tokenize": {"model": "org/late", "prompt": "hi"},
        "/v1/messages/count_tokens": CHAT,
    }.get(path) or STREAMS[path]
    status, _, answer = late.post(path, body)
    assert status == 200, answer
    assert len(late.engine.loads) == 1


def test_a_load_that_fails_at_once_is_a_status(late: NodeServer) -> None:
    late.engine.load_error = InsufficientMemory("no room", hint="unload one", required_mb=9, free_mb=1)
    for stream in (False, True):
        late.engine.models.clear()
        status, _, answer = late.post("/v1/chat/completions", {**CHAT, "stream": stream})
        assert (status, answer["error"]["code"]) == (422, "insufficient_memory")


def test_what_may_be_loaded_on_request_is_the_operators_list() -> None:
    def ids(**said: Any) -> list[str]:
        return [spec.model_id for spec, _ in on_request(Settings(**said))]

    assert ids(models=("a/b",)) == []
    assert ids(load_on_request=True, models=("a/b",), models_on_request=("c/d",)) == ["a/b", "c/d"]
    with pytest.raises(ConfigError, match="load_on_request is off"):
        ids(models_on_request=("c/d",))


def test_a_plan_says_what_a_load_takes(late: NodeServer) -> None:
    status, _, plan = late.post("/models/plan", {"model_id": "a/b", "wait": False})
    assert status == 200
    assert (plan["fits"], plan["weight_bytes"], plan["kv_bytes_per_1000_tokens"]) == (True, 4000, 10_000)
    assert plan["context"] == 2048
    assert late.engine.models == {}
