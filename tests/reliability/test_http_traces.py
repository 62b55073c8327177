"""Random requests to a real node, some left, some under an unload: who finishes has the text that it has alone, and
each that was admitted is finished, failed or cut alike in the log, in the metrics and at its client.

``NEURON_TRACE_SEED`` and ``NEURON_HTTP_TRACE_REQUESTS`` choose another trace and its length.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path

import httpx

from tests.reliability.faulty import faulty
from tests.reliability.http_traces import (
    TIMEOUT_S,
    Account,
    Ended,
    Metrics,
    Wanted,
    asked,
    come_and_go,
    outcome,
    together,
    trace,
)
from tests.reliability.traces import Progress
from tests.support.node_process import NodeProcess
from tests.support.node_server import eventually
from tests.support.scorecard import Scorecard

SEED = int(os.environ.get("NEURON_TRACE_SEED", "20"))
N_REQUESTS = int(os.environ.get("NEURON_HTTP_TRACE_REQUESTS", "400"))
EVERY = range(50, 120)
"""Requests between two unloads."""
FAULTS = "logits:nan@150,logits:nan@300"


async def asked_all(running: NodeProcess, wanted: list[Wanted], model: Path) -> tuple[list[Ended], int]:
    """How each ended, and how often the model came and went meanwhile."""
    progress = Progress(random.Random(SEED), N_REQUESTS, EVERY)
    going = asyncio.create_task(come_and_go(running.url, str(model), progress))
    return await together(running.url, wanted, progress), await going


async def differing(running: NodeProcess, wanted: list[Wanted], ended: list[Ended]) -> list[int]:
    """Which of those that finished get another answer alone."""
    finished = [i for i, one in enumerate(ended) if one.how == "finished"]
    async with httpx.AsyncClient(base_url=running.url, timeout=TIMEOUT_S, trust_env=False) as client:
        alone = [await asked(client, wanted[i]._replace(leave_s=None, leave_after=None)) for i in finished]
    return [i for i, one in zip(finished, alone, strict=True) if one.answer != ended[i].answer]


async def test_requests_over_http_are_answered_as_alone_and_accounted_for_everywhere(
    tiny_root: Path, scorecard: Scorecard
) -> None:
    wanted = trace(SEED, N_REQUESTS)
    with faulty(tiny_root, FAULTS) as running:
        ended, n_reloads = await asked_all(running, wanted, tiny_root / "tiny")
        n_left = sum(one.how == "left" for one in ended)
        metrics = accounted(running, [attempt for one in ended for attempt in (*one.tries, one)])
        differ = await differing(running, wanted, ended)
    n = sum(one.how == "finished" for one in ended)
    figure = (
        f"over HTTP {n} of {N_REQUESTS} finished and replayed, {len(differ)} different; {n_reloads} unloads"
    )
    scorecard(39, figure, "0 differences", not differ)
    told = ", ".join(f"{metrics.outcomes[name]} {name}" for name in ("finished", "failed", "cut"))
    figure = f"a random trace over HTTP: {metrics.admitted} admitted = {told}; {n_left} clients left"
    scorecard(42, figure, "exact", True)
    assert not differ, f"seed {SEED}: requests {differ[:10]}"
    assert metrics.outcomes.keys() == {"finished", "failed", "cut"}


def accounted(running: NodeProcess, seen: list[Ended]) -> Metrics:
    """Log, metrics and clients say the same of every request; what the metrics say."""
    eventually(lambda: is_told(running), 60)
    log, metrics = Account.of(running), Metrics.of(running)
    assert metrics.admitted == len(log.admitted)
    assert metrics.outcomes == Counter(map(outcome, log.admitted.values()))
    assert metrics.refused == Counter(log.refused.values())
    by_id = {one.request_id: one for one in seen if one.request_id}
    for request_id, one in by_id.items():
        agree(one, log.admitted.get(request_id), log.refused.get(request_id))
    n_unseen = len((log.admitted | log.refused).keys() - by_id.keys())
    assert n_unseen <= sum(one.request_id is None for one in seen), "requests that nobody made"
    return metrics


def is_told(running: NodeProcess) -> bool:
    """Whether nothing runs any more and the log's lines have come."""
    log, metrics = Account.of(running), Metrics.of(running)
    return metrics.admitted == metrics.outcomes.total() == len(log.admitted)


def agree(client: Ended, admitted: str | None, refused: str | None) -> None:
    """A client that stayed saw what the log says; of one that left, the answer may have been written already."""
    said = (client.how, admitted and outcome(admitted))
    assert said in {("finished", "finished"), ("error", "failed"), ("error", None)} or client.how == "left", (
        said
    )
    if client.how == "error":
        assert client.code == (admitted or refused)
    assert admitted or refused
