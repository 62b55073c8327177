"""Bytes on a socket: every connection ends in time and as it must, and the node is as it was before."""

from __future__ import annotations

import re
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from neuron.daemon.guards import Guards
from tests.reliability.raw_cases import CASES, DEADLINE_S, Case, Step
from tests.support.fake_engine import FakeEngine
from tests.support.fake_process import HASTY, FakeProcess, Held, fake_process
from tests.support.node_server import eventually, node_server
from tests.support.scorecard import Scorecard

TARGET = 60
SILENT = 300
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
LARGEST = ("a body over the limit", "5000 headers more")
passed: set[str] = set()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeProcess]:
    with fake_process(tmp_path_factory.mktemp("node"), HASTY) as running:
        yield running


@pytest.fixture(scope="module")
def before(node: FakeProcess) -> Held:
    """What the node holds once it has answered a few times, and has had the largest requests: an allocator
    keeps what it had."""
    for _ in range(20):
        assert node.is_well()
    for case in [case for case in CASES if case.name in LARGEST] * 3:
        converse(node, case)
    return settled(node)


def settled(node: FakeProcess) -> Held:
    """What it holds when no connection is left."""
    time.sleep(0.2)
    return node.held()


def converse(node: FakeProcess, case: Case) -> tuple[int, ...]:
    """The statuses of all answers until the node closed, which it must in time."""
    received = b""
    with node.connect(DEADLINE_S) as sock:
        with suppress(ConnectionError):
            for step in case.steps:
                take(sock, step)
        with suppress(ConnectionError):
            while sock.fileno() >= 0 and (part := sock.recv(1 << 20)):
                received += part
    return tuple(int(found) for found in STATUS.findall(received))


def take(sock: socket.socket, step: Step) -> None:
    match step:
        case "end":
            sock.shutdown(socket.SHUT_WR)
        case "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        case bytes():
            sock.sendall(step)
        case _:
            time.sleep(step)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_stranger_s_bytes_end_as_they_must(node: FakeProcess, before: Held, case: Case) -> None:
    assert converse(node, case) == case.statuses
    passed.add(case.name)


def test_afterwards_the_node_is_as_it_was(node: FakeProcess, before: Held, scorecard: Scorecard) -> None:
    assert node.is_well()
    assert node.ask("GET", "/models/org/tiny")[2]["status"] == "loaded"
    eventually(lambda: settled(node)[:2] == before[:2])
    growth = node.held().rss_kb / before.rss_kb - 1
    assert growth < 0.05
    errors = [line for line in node.lines() if line["level"] == "error"]
    assert errors == []
    if len(passed) >= TARGET:
        figure = f"{len(passed)} cases, 0 hangs; memory {growth:+.1%}"
        scorecard(32, figure, f">= {TARGET}; 0 hangs past the deadline", True)


def test_three_hundred_silent_connections_are_held_and_ended_while_others_are_answered(
    tmp_path: Path, scorecard: Scorecard
) -> None:
    with fake_process(tmp_path, {**HASTY, "header_s": 3}) as node:
        before = node.held()
        silent = [node.connect() for _ in range(SILENT)]
        assert all(node.is_well() for _ in range(5))
        # the connection that asked whether it is up may have been among those before
        assert node.held().fds >= before.fds + SILENT - 1
        assert all(sock.recv(100).startswith(b"HTTP/1.1 408 ") for sock in silent)
        for sock in silent:
            sock.close()
        eventually(lambda: node.held().fds <= before.fds)
    scorecard(7, f"{SILENT} silent connections, 10 requests answered beside them", f"{SILENT}", True)


def test_without_its_deadline_a_silent_connection_stays(tmp_path: Path) -> None:
    patient = {**HASTY, "header_s": 60}
    with fake_process(tmp_path, patient) as node, node.connect(1.5) as sock, pytest.raises(TimeoutError):
        sock.recv(1)


def test_without_the_guards_an_ambiguous_length_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = [case for case in CASES if case.name == "both lengths"]
    monkeypatch.setattr(Guards, "check", lambda self, headers, version: None)
    with node_server(FakeEngine()) as node, node.connect() as sock:
        take(sock, case.steps[0])
        answer = sock.recv(1 << 16)
    assert b"ambiguous" not in answer
