"""``POST /drain``: new work is refused at once, what was admitted ends whole, the process leaves as on SIGTERM."""

from __future__ import annotations

import contextlib
import json
import time

import pytest

from neuron.settings import Settings
from tests.daemon.test_server_process import CHAT, process
from tests.support.node_server import NodeServer, eventually, node_server, read_all

PATH = "/v1/chat/completions"


def test_from_its_answer_on_new_work_is_refused() -> None:
    with node_server() as node:
        assert node.post("/drain", {"timeout_s": 7.5})[::2] == (202, {"status": "draining", "timeout_s": 7.5})
        assert node.get("/ready")[0] == 503
        status, headers, body = node.post(PATH, CHAT)
        assert (status, body["error"]["code"]) == (503, "shutting_down")
        assert 1 <= int(headers["retry-after"]) <= 60
        assert node.get("/health")[0] == 200
        assert node.post("/drain", {"timeout_s": 99})[2]["timeout_s"] == 7.5


def test_without_a_body_the_time_is_the_settings_own() -> None:
    for body in (b"", b"{}"):
        with node_server(settings=Settings(port=0, drain_s=3)) as node:
            headers = {"content-type": "application/json"} if body else {}
            answer = node.request("POST", "/drain", body, headers)
            assert answer[::2] == (202, {"status": "draining", "timeout_s": 3})


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"timeout_s": -1}, 400),
        ({"timeout_s": 1e9}, 400),
        ({"timeout_s": "1"}, 400),
        (b"now", 400),
        (b"[]", 400),
    ],
)
def test_a_body_that_makes_no_sense_drains_nothing(node: NodeServer, body: object, status: int) -> None:
    assert node.post("/drain", body)[0] == status
    assert node.request("POST", "/drain", b"a=b", {"content-type": "text/plain"})[0] == 415
    assert node.get("/ready")[0] == 200


def test_streams_end_whole_and_the_process_exits_0() -> None:
    with process({"texts": ["x"] * 10, "step_s": 0.1}) as node, contextlib.ExitStack() as stack:
        asked = {**CHAT, "stream": True}
        streams = [stack.enter_context(node.connect("POST", PATH, asked)) for _ in range(5)]
        heads = [stream.recv(65536) for stream in streams]
        assert all(b" 200 " in head for head in heads)
        assert node.ask("POST", "/drain")[0] == 202
        assert node.ask("GET", "/ready")[0] == 503
        assert node.ask("POST", PATH, CHAT)[0] == 503
        answers = [head + read_all(stream) for head, stream in zip(heads, streams, strict=True)]
        code, out, lines = node.end(10)
    assert all(answer.count(b'"content":"x"') == 10 and b"data: [DONE]" in answer for answer in answers)
    assert code == 0
    assert json.loads(out.rpartition("]")[0] + "]")[-3:] == ["drain all", "drain", "close"]
    assert [line["event"] for line in lines if line["event"] in ("draining", "stopped")] == [
        "draining",
        "stopped",
    ]
    assert [line["finish"] for line in lines if line["event"] == "generation"] == ["stop"] * 5


def test_what_is_left_after_the_time_ends_with_an_error_event() -> None:
    with (
        process({"texts": ["x"] * 1000, "step_s": 0.1}) as node,
        node.connect("POST", PATH, {**CHAT, "stream": True}) as stream,
    ):
        assert b" 200 " in stream.recv(65536)
        node.ask("POST", "/drain", {"timeout_s": 0.3})
        answer = read_all(stream)
        assert node.end()[0] == 0
    assert b"[DONE]" not in answer
    assert b'"shutting_down"' in answer


def test_a_signal_during_a_drain_counts_as_the_first() -> None:
    with (
        process({"texts": ["x"] * 1000, "step_s": 0.1}, drain_s=1) as node,
        node.connect("POST", PATH, {**CHAT, "stream": True}) as stream,
    ):
        assert b" 200 " in stream.recv(65536)
        node.ask("POST", "/drain", {"timeout_s": 600})
        began_s = time.monotonic()
        node.popen.terminate()
        answer = read_all(stream)
        assert node.end()[0] == 0
    assert 0.8 < time.monotonic() - began_s < 5
    assert b'"shutting_down"' in answer


def test_an_event_tells_of_it() -> None:
    with process() as node:
        node.ask("POST", "/drain", {"timeout_s": 5})
        lines = node.end()[2]
    assert [line["drain_s"] for line in lines if line["event"] == "draining"] == [5]


def test_readiness_stays_off_until_the_end() -> None:
    with process({"texts": ["x"] * 10, "step_s": 0.1}) as node:
        with node.connect("POST", PATH, {**CHAT, "stream": True}) as stream:
            assert b" 200 " in stream.recv(65536)
            node.ask("POST", "/drain")
            eventually(lambda: node.ask("GET", "/ready")[0] == 503)
            assert b"[DONE]" in read_all(stream)
        assert node.end()[0] == 0
