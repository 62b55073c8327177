"""A client that leaves, wherever its request is: its place is free, and only what was begun for it is computed.

Each part of a prompt and each token takes its time here, and the log tells of it as it begins.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.reliability.faulty import CHAT, ask, asked, faulty, log_of, text_of
from tests.support.node_process import NodeProcess
from tests.support.node_server import eventually, http
from tests.support.scorecard import Scorecard
from tests.support.scrape import Scrape

PART_TOKENS = 16
SLOW = [
    *(f"step:hang=0.02@{n}" for n in range(1, 1500)),
    *(f"prefill:hang=0.04@{n}" for n in range(1, 400)),
]
N, PROMPT = 60, "a long prompt " * 10
SLOT_S = 0.25
SETTLED_S = 0.3
"""In which a node that went on would have begun many more."""
freed_s: list[float] = []
begun_after = {"prefill": [0], "step": [0]}
"""Parts of a prompt and tokens that were begun after each cut."""


@pytest.fixture(scope="module")
def running(tiny_root: Path) -> Iterator[NodeProcess]:
    env = {"NEURON_SPECULATION": "false", "NEURON_PREFIX_CACHE_MB": "0"}
    limits = ("--max-in-flight", "1", "--prefill-chunk-tokens", str(PART_TOKENS))
    with faulty(tiny_root, ",".join(SLOW), *limits, env=env) as one:
        yield one


@pytest.fixture(scope="module")
def client(running: NodeProcess) -> Iterator[httpx.Client]:
    """A connection that is there already, so that asking takes no time."""
    with httpx.Client(base_url=running.url, timeout=60, trust_env=False) as one:
        yield one


@pytest.fixture(scope="module", autouse=True)
def golden(running: NodeProcess) -> str:
    """What it answers before anybody left."""
    return text_of(ask(running, 12))


def busy(client: httpx.Client) -> tuple[int, int]:
    """Requests that run and that wait."""
    model = client.get("/health").json()["models"][0]
    return model["in_flight"], model["queue_depth"]


def n_begun(running: NodeProcess, point: str, since_s: float = 0.0) -> int:
    """Parts or tokens that were begun after a wall time."""
    lines = log_of(running, "fault injected")
    return sum(line["point"] == point and line["time"] > since_s for line in lines)


def send(
    running: NodeProcess, stream: bool, share: float = 1.0, n: int = N, prompt: str = PROMPT
) -> socket.socket:
    """A request, or the begin of one, on a connection of its own."""
    content = json.dumps(asked(n, prompt, stream=stream)).encode()
    whole = http("POST", CHAT, content, {"content-type": "application/json"})
    sock = socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2])), timeout=60)
    sock.sendall(whole[: int(len(whole) * share)])
    return sock


def cut(running: NodeProcess, sock: socket.socket, is_free: Callable[[], bool], *points: str) -> None:
    """Leave; note when the place was free, and what of ``points`` was begun after that."""
    at_s, began_s = time.time(), time.monotonic()
    sock.close()
    eventually(is_free, 60)
    freed_s.append(time.monotonic() - began_s)
    time.sleep(SETTLED_S)
    for point in points:
        begun_after[point].append(n_begun(running, point, at_s))


def generations(running: NodeProcess) -> list[str]:
    """How requests that were admitted ended."""
    return [line["finish"] for line in log_of(running, "generation")]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("point", "n"),
    [("prefill", 3), ("step", 8), ("step", N - 1)],
    ids=["in the prompt", "in the middle", "at the last token"],
)
def test_while_it_is_computed(
    running: NodeProcess, client: httpx.Client, stream: bool, point: str, n: int
) -> None:
    before, n_ended = n_begun(running, point), len(generations(running))
    sock = send(running, stream)
    eventually(lambda: n_begun(running, point) >= before + n, 60)
    cut(running, sock, lambda: busy(client) == (0, 0), "prefill", "step")
    eventually(lambda: len(generations(running)) == n_ended + 1, 20)
    last = n == N - 1
    assert generations(running)[-1] in ("client_gone", *(["length"] if last else []))


@pytest.mark.parametrize("stream", [False, True])
def test_in_the_queue(running: NodeProcess, client: httpx.Client, stream: bool) -> None:
    n_ended = len(generations(running))
    with send(running, True, n=150, prompt="Hi") as neighbour:
        eventually(lambda: busy(client) == (1, 0), 60)
        n_parts = n_begun(running, "prefill")
        sock = send(running, stream)
        eventually(lambda: busy(client) == (1, 1), 60)
        cut(running, sock, lambda: busy(client)[1] == 0)
        received = b""
        while part := neighbour.recv(65536):
            received += part
    assert b"data: [DONE]" in received
    eventually(lambda: sorted(generations(running)[n_ended:]) == ["client_gone", "length"], 20)
    assert n_begun(running, "prefill") <= n_parts + 3, "the one that left was begun"


@pytest.mark.parametrize("stream", [False, True])
def test_before_its_body_ends(running: NodeProcess, client: httpx.Client, stream: bool) -> None:
    def n_gone() -> float:
        name = "neuron_requests_refused_total"
        return Scrape(client.get("/metrics").text).total(name, code="client_gone")

    before, n_ended, n_refused = n_gone(), len(generations(running)), len(log_of(running, "refused"))
    sock = send(running, stream, share=0.7)
    time.sleep(0.1)
    assert busy(client) == (0, 0)
    cut(running, sock, lambda: n_gone() == before + 1, "prefill", "step")
    eventually(
        lambda: [line["code"] for line in log_of(running, "refused")][n_refused:] == ["client_gone"], 20
    )
    assert len(generations(running)) == n_ended


def test_afterwards_the_node_answers_as_before(
    running: NodeProcess, client: httpx.Client, golden: str, scorecard: Scorecard
) -> None:
    assert text_of(ask(running, 12)) == golden
    assert busy(client) == (0, 0)
    slowest_s, parts, tokens = max(freed_s), max(begun_after["prefill"]), max(begun_after["step"])
    if (n_cuts := len(freed_s)) == 10:
        figure = f"{n_cuts} of {n_cuts} free, the slowest after {1e3 * slowest_s:.0f} ms"
        scorecard(11, figure, "100 %, slot free <= 250 ms", slowest_s <= SLOT_S)
        figure = f"at most {parts} parts of a prompt and {tokens} tokens begun after the cut"
        scorecard(12, figure, "<= 1 chunk", parts * PART_TOKENS + tokens <= PART_TOKENS)
    assert parts <= 4
    assert tokens <= 30, "it went on for one that had left"
