"""Requests at several concurrencies: each place sends its next one when its last has ended."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue

from neuron.bench.answer import Answer, Server
from neuron.bench.prompts import prompt, words_for
from neuron.bench.report import Level, level
from neuron.errors import NeuronError

Outcome = Answer | NeuronError
Done = Callable[[Outcome], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured."""

    model: str
    concurrencies: Sequence[int]
    requests: int
    prompt_tokens: int
    max_tokens: int
    warmup: int
    """Rounds before each level, one request a place."""


def measure(server: Server, plan: Plan, done: Callable[[int, Outcome], None]) -> Iterator[Level]:
    """Each level when it is over; the last one after Ctrl-C is marked, and has what was whole by then.

    ``done`` is told of every measured request.

    Raises:
        NeuronError: the server does not answer the first request.
    """
    random_ = random.Random()
    n_words = words_for(
        plan.prompt_tokens, lambda n: server.settle(plan.model, prompt(random_, n)).prompt_tokens
    )

    def ask() -> Outcome:
        try:
            return server.ask(plan.model, prompt(random_, n_words), plan.max_tokens)
        except NeuronError as e:
            return e

    for places in plan.concurrencies:
        outcomes, seconds, interrupted = _level(server, ask, places, plan, partial(done, places))
        yield level(places, outcomes, seconds, interrupted=interrupted)
        if interrupted:
            return


def _level(
    server: Server, ask: Callable[[], Outcome], places: int, plan: Plan, done: Done
) -> tuple[list[Outcome], float, bool]:
    """What became of the requests, how long they took together, and whether Ctrl-C ended them."""
    outcomes: list[Outcome] = []
    began_s = time.perf_counter()
    try:
        for _ in at_once(ask, places, plan.warmup * places):
            began_s = time.perf_counter()
        for outcome in at_once(ask, places, plan.requests):
            outcomes.append(outcome)
            done(outcome)
    except KeyboardInterrupt:
        server.stopped.set()
        return outcomes, time.perf_counter() - began_s, True
    return outcomes, time.perf_counter() - began_s, False


def at_once(ask: Callable[[], Outcome], places: int, requests: int) -> Iterator[Outcome]:
    """What becomes of ``requests`` requests, as each ends, ``places`` at a time."""
    left = iter(range(requests))
    ended: SimpleQueue[Outcome | None] = SimpleQueue()

    def place() -> None:
        try:
            for _ in left:
                ended.put(ask())
        finally:
            ended.put(None)

    pool = ThreadPoolExecutor(places)
    at_work = [pool.submit(place) for _ in range(places)]
    for _ in at_work:
        while (outcome := ended.get()) is not None:
            yield outcome
    for future in at_work:
        future.result()
