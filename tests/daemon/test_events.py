"""``GET /events``: numbered, followed, never in anybody's way, and gone with the node."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from neuron import log
from neuron.daemon.events import Events
from neuron.log import event
from tests.daemon.test_server_process import process
from tests.support.fake_engine import Script
from tests.support.node_server import NodeServer, eventually, http, node_server

LOG = logging.getLogger("neuron.test")
CHAT = (
    "/v1/chat/completions",
    {"model": "org/tiny", "messages": [{"role": "user", "content": "the secret"}]},
)


def kept(node: NodeServer, query: str = "") -> list[dict[str, Any]]:
    status, headers, body = node.get(f"/events?follow=false{query}")
    assert (status, headers["content-type"].partition(";")[0]) == (200, "text/event-stream")
    return lines_of(body)


def lines_of(body: bytes) -> list[dict[str, Any]]:
    """The events; anything but data lines and comments fails."""
    found = []
    for part in body.decode().split("\n\n"):
        if part and part != ": ping":
            assert re.fullmatch("data: [^\n]*", part), part
            found.append(json.loads(part.removeprefix("data: ")))
    return found


@pytest.fixture
def fresh() -> Iterator[NodeServer]:
    with node_server() as node:
        yield node


def test_the_events_of_the_log_are_told_with_their_fields(fresh: NodeServer) -> None:
    fresh.post(*CHAT)
    fresh.post(CHAT[0], {**CHAT[1], "temperature": 9})
    eventually(lambda: len(kept(fresh)) >= 2)
    by_name = {line["event"]: line for line in kept(fresh)}
    assert by_name["generation"]["finish"] == "stop"
    assert by_name["generation"]["total_ms"] > 0
    assert by_name["refused"]["code"] == "invalid_value"
    assert by_name["refused"]["level"] == "warning"
    assert "secret" not in str(by_name)


def test_numbers_go_up_by_one_and_since_begins_after_its_own(fresh: NodeServer) -> None:
    for _ in range(5):
        fresh.post(CHAT[0], {})
    eventually(lambda: len(kept(fresh)) >= 5)
    numbers = [line["seq"] for line in kept(fresh)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert [line["seq"] for line in kept(fresh, "&since=3")] == numbers[3:]
    assert kept(fresh, f"&since={numbers[-1]}") == []


def test_a_number_that_was_not_reached_yet_is_refused(fresh: NodeServer) -> None:
    fresh.post(CHAT[0], {})
    eventually(lambda: bool(kept(fresh)))
    for follow in ("true", "false"):
        status, _, body = fresh.get(f"/events?since=999&follow={follow}")
        assert (status, body["code"]) == (400, "invalid_value")
        assert "the newest event, which is number" in body["error"]


@pytest.mark.parametrize("query", ["since=-1", "since=x", "since=1e3", "follow=yes", "follow="])
def test_a_query_that_makes_no_sense_is_refused(node: NodeServer, query: str) -> None:
    status, _, body = node.get(f"/events?{query}")
    assert (status, body["code"]) == (400, "invalid_value")


@contextmanager
def following(node: NodeServer, query: str = "") -> Iterator[socket.socket]:
    with node.connect() as sock:
        sock.sendall(http("GET", f"/events{query}", b"", {}))
        yield sock


def received(sock: socket.socket, wanted: bytes) -> bytes:
    """What comes up to ``wanted``."""
    got = b""
    while wanted not in got:
        part = sock.recv(65536)
        assert part, got
        got += part
    return got


def test_what_happens_is_told_while_it_does_and_silence_is_kept_alive(fresh: NodeServer) -> None:
    with following(fresh) as sock:
        received(sock, b": ping")
        fresh.post("/models/load", {"model_id": "org/new"})
        fresh.post(*CHAT)
        began_s = time.monotonic()
        received(sock, b'"generation"')
        assert time.monotonic() - began_s < 0.5


def test_a_reader_that_leaves_is_forgotten(fresh: NodeServer) -> None:
    with following(fresh) as sock:
        received(sock, b": ping")
    assert fresh.post(*CHAT)[0] == 200
    assert fresh.get("/health")[0] == 200


async def test_a_reader_that_is_too_slow_is_told_how_many_it_missed_and_holds_up_nobody() -> None:
    events = Events(kept=10)
    events.start()
    reader = events.read(0, follow=True)
    try:
        event(LOG, "one")
        assert (await anext(reader))["event"] == "one"
        began_s = time.monotonic()
        for n in range(1000):
            event(LOG, "many", n=n)
        assert time.monotonic() - began_s < 1
        mark = await anext(reader)
        assert (mark["event"], mark["n"], mark["level"]) == ("events lost", 990, "warning")
        assert [(await anext(reader))["n"] for _ in range(10)] == list(range(990, 1000))
        assert events.lost == 990
        event(LOG, "last")
        assert (await anext(reader))["event"] == "last"
    finally:
        await reader.aclose()
        events.stop()


async def test_several_readers_each_get_everything_also_from_other_threads() -> None:
    events = Events()
    events.start()
    try:
        readers = [asyncio.create_task(names(events)) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.gather(*(asyncio.to_thread(event, LOG, f"n{n}") for n in range(50)))
        await asyncio.sleep(0.05)
        events.end()
        found = await asyncio.wait_for(asyncio.gather(*readers), 2)
    finally:
        events.stop()
    assert all(sorted(names) == sorted(f"n{n}" for n in range(50)) for names in found)


async def names(events: Events) -> list[str]:
    return [line["event"] async for line in events.read(0, follow=True)]


async def test_a_quiet_log_does_not_make_the_events_fewer(capsys: pytest.CaptureFixture[str]) -> None:
    root, ours = logging.getLogger(), logging.getLogger("neuron")
    before = root.handlers[:], root.level, ours.level
    events = Events()
    try:
        log.setup("error", "json")
        events.start()
        event(LOG, "quiet")
        event(LOG, "loud", level=logging.ERROR)
        events.end()
        assert await names(events) == ["quiet", "loud"]
        assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["loud"]
    finally:
        events.stop()
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        ours.setLevel(before[2])


def test_a_reader_sees_the_drain_and_the_end_and_does_not_hold_up_the_exit() -> None:
    with process({"texts": ["x"] * 5, "step_s": 0.1}) as node, node.connect("GET", "/events") as reader:
        received(reader, b"listening")
        with node.connect("POST", "/v1/chat/completions", {**CHAT[1], "stream": True}) as stream:
            assert b" 200 " in stream.recv(65536)
            node.popen.terminate()
            rest = received(reader, b"\r\n0\r\n\r\n")
            began_s = time.monotonic()
            assert node.end()[0] == 0
    assert time.monotonic() - began_s < 2
    assert rest.index(b'"draining"') < rest.index(b'"generation"')


def test_a_script_with_a_refusal_is_in_the_vocabulary_of_the_log(fresh: NodeServer) -> None:
    fresh.engine.script = Script(texts=["a"])
    fresh.post(*CHAT)
    eventually(lambda: any(line["event"] == "generation" for line in kept(fresh)))
    line = next(line for line in kept(fresh) if line["event"] == "generation")
    info = fresh.get(f"/requests/{line['id']}")[2]
    assert (line["total_ms"], line["completion_tokens"]) == (pytest.approx(info["total_ms"], abs=0.01), 1)
