"""A node under more than it can take: whoever is let in gets all of its answer, whoever is not is told at once."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.reliability.faulty import CHAT, asked, faulty, log_of
from tests.support.node_process import NodeProcess
from tests.support.node_server import eventually
from tests.support.scorecard import Scorecard
from tests.support.scrape import Scrape

N_STREAMS, N_TOKENS = 64, 32
PLACES, QUEUE, MORE = 4, 8, 36
RETRY_S = range(1, 61)


def streamed(client: httpx.Client, url: str) -> list[str]:
    """The events of one answer."""
    body = asked(N_TOKENS, stream=True)
    with client.stream("POST", url + CHAT, json=body) as answer:
        return [line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: ")]


def test_64_streams_at_once_all_end_and_are_counted_alike_everywhere(
    tiny_root: Path, scorecard: Scorecard
) -> None:
    with faulty(tiny_root, "") as running, httpx.Client(timeout=120, trust_env=False) as client:
        with ThreadPoolExecutor(N_STREAMS) as pool:
            answers = list(pool.map(lambda _: streamed(client, running.url), range(N_STREAMS)))
        ended = sum(answer[-1] == "[DONE]" and '"finish_reason":"length"' in answer[-2] for answer in answers)
        scorecard(1, f"{ended} of {N_STREAMS}", f"{N_STREAMS}", ended == N_STREAMS)
        assert ended == N_STREAMS
        alike(running, N_STREAMS, scorecard)


def alike(running: NodeProcess, n_finished: int, scorecard: Scorecard) -> None:
    """Metrics and log have as many requests as the clients."""
    eventually(lambda: len(log_of(running, "generation")) == n_finished, 20)
    found = Scrape(running.get("/metrics").text)
    admitted = found.total("neuron_requests_admitted_total")
    ended = found.by("neuron_requests_ended_total", "outcome")
    in_log = Counter(line["finish"] for line in log_of(running, "generation"))
    assert (admitted, ended, in_log) == (n_finished, {("finished",): n_finished}, {"length": n_finished})
    scorecard(42, f"{n_finished} admitted and finished in log, metrics and at the client", "exact", True)


def test_what_is_over_capacity_is_refused_at_once_and_nothing_else(
    tiny_root: Path, scorecard: Scorecard
) -> None:
    capacity = PLACES + QUEUE
    limits = ("--max-in-flight", str(PLACES), "--max-queue-depth", str(QUEUE))
    hold = "prefill:hang=4@1"  # so that none of them ends before all have come
    with faulty(tiny_root, hold, *limits) as running, httpx.Client(timeout=120, trust_env=False) as client:

        def ask(_: int) -> tuple[httpx.Response, float]:
            began_s = time.monotonic()
            answer = client.post(running.url + CHAT, json=asked(4))
            return answer, time.monotonic() - began_s

        with ThreadPoolExecutor(capacity + MORE) as pool:
            answers = list(pool.map(ask, range(capacity + MORE)))
    accepted = [answer for answer, _ in answers if answer.status_code == 200]
    refused = [(answer, took_s) for answer, took_s in answers if answer.status_code != 200]
    scorecard(3, f"{len(accepted)} of {capacity}", "100 %", len(accepted) == capacity)
    told = sum(int(answer.headers.get("retry-after", 0)) in RETRY_S for answer, _ in refused)
    scorecard(4, f"{told} of {len(refused)}", "100 %", told == len(refused) == MORE)
    p99_ms = 1e3 * statistics.quantiles([took_s for _, took_s in refused], n=100)[98]
    figure = f"{p99_ms:.0f} ms, in a burst of {len(answers)} from one process on the node's own cores"
    scorecard(2, figure, "< 50 ms", p99_ms < 50)
    assert len(accepted) == capacity
    assert told == len(refused) == MORE
    assert {answer.status_code for answer, _ in refused} == {503}
