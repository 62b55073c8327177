"""A node under more than it can take: whoever is let in gets all of its answer, whoever is not is told at once."""

from __future__ import annotations

import statistics
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.reliability.burst import Answer, Burst, connections
from tests.reliability.faulty import CHAT, asked, faulty, log_of
from tests.support.node_process import NodeProcess
from tests.support.node_server import eventually
from tests.support.scorecard import Scorecard
from tests.support.scrape import Scrape

N_STREAMS, N_TOKENS = 64, 32
PLACES, CAPACITY, MORE = 4, 12, 200
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
    limits = ("--max-in-flight", str(PLACES), "--max-queue-depth", str(CAPACITY - PLACES))
    hold = "prefill:hang=8@1"  # so that none of them ends before all have come
    with faulty(tiny_root, hold, *limits) as running, connections(running.url, 4 * CAPACITY + MORE) as socks:
        fourfold = Burst(socks[: 4 * CAPACITY], CHAT, asked(4))
        refused = fourfold.ended(3 * CAPACITY)
        more = Burst(socks[4 * CAPACITY :], CHAT, asked(4)).ended(MORE)
        accepted = [one for one in fourfold.ended(4 * CAPACITY) if one not in refused]
    n_accepted = sum(one.status == 200 for one in accepted)
    scorecard(3, f"{n_accepted} of {CAPACITY}", "100 %", n_accepted == CAPACITY)
    told = sum(one.retry_after.isdecimal() and int(one.retry_after) in RETRY_S for one in refused + more)
    scorecard(4, f"{told} of {len(refused + more)}", "100 %", told == len(refused + more))
    scorecard(
        2,
        f"{p99_ms(refused):.0f} ms of {len(refused)} in a burst of {4 * CAPACITY} ({p99_ms(more):.0f} ms of {MORE} "
        "more at once), from the request sent to the status line, the client on the node's own cores",
        "< 50 ms",
        p99_ms(refused) < 50,
    )
    assert n_accepted == CAPACITY
    assert told == 3 * CAPACITY + MORE
    assert {one.status for one in refused + more} == {503}


def p99_ms(answers: list[Answer]) -> float:
    """Of the times to the status line."""
    return 1e3 * statistics.quantiles([answer.took_s for answer in answers], n=100, method="inclusive")[98]
