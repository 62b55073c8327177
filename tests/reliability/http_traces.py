"""Random requests over HTTP, of two formats: what their clients saw, and what the node says of them."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx

from tests.reliability.faulty import log_of
from tests.reliability.traces import Progress
from tests.support.node_process import NodeProcess
from tests.support.scrape import Scrape

AT_ONCE = 40
TIMEOUT_S = 120
FINISHED = {"length", "stop"}
GONE = "client_gone"
BEGINNINGS = ["", "You are brief. ", "You are brief. Answer in one word, and never more than that: "]
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "n": {"enum": [1, 2, 3]}},
    "required": ["ok", "n"],
    "additionalProperties": False,
}
FREE: dict[str, Any] = {"ignore_eos": True}
CONSTRAINTS = [
    FREE,
    FREE,
    FREE,
    {"guided_regex": "[0-9]{3,40}"},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}}},
]


class Wanted(NamedTuple):
    """A request, and when its client leaves: after so many lines of a stream, or seconds of waiting."""

    path: str
    body: dict[str, Any]
    leave_after: int | None = None
    leave_s: float | None = None


@dataclass(slots=True)
class Ended:
    """What a client saw: ``finished``, ``error`` or ``left``."""

    how: str
    request_id: str | None = None
    """None where it left before there was an answer."""
    code: str | None = None
    answer: Any = None
    tries: list[Ended] = field(default_factory=list)
    """The same request before, when it was refused because the model was away."""


def trace(seed: int, n_requests: int) -> list[Wanted]:
    """What a seed stands for."""
    rng = random.Random(seed)
    return [_wanted(rng) for _ in range(n_requests)]


def _wanted(rng: random.Random) -> Wanted:
    text = rng.choice(BEGINNINGS) + "".join(rng.choices("etaoin shrdlu", k=rng.randrange(1, 60)))
    stream = rng.random() < 0.6
    sampling = rng.choice(
        [{"temperature": 0}, {"temperature": 0.9, "top_p": 0.9, "seed": rng.randrange(1000)}]
    )
    said = {"model": "tiny", "max_tokens": rng.choice([1, 4, 12, 40]), "n": rng.choice([1, 1, 1, 3])}
    body = {**said, **sampling, **rng.choice(CONSTRAINTS), "stream": stream}
    if rng.random() < 0.5:
        path, body["messages"] = "/v1/chat/completions", [{"role": "user", "content": text}]
    else:
        path, body["prompt"] = "/v1/completions", text
    if rng.random() < 0.7:
        return Wanted(path, body)
    body["max_tokens"] = 100
    leave_s = rng.uniform(0, 0.1)
    return Wanted(path, body, rng.randrange(8)) if stream else Wanted(path, body, leave_s=leave_s)


async def asked(client: httpx.AsyncClient, wanted: Wanted) -> Ended:
    """One client, which stays until the end or leaves."""
    if wanted.body["stream"]:
        return await _streamed(client, wanted)
    try:
        answer = await client.post(wanted.path, json=wanted.body, timeout=wanted.leave_s or TIMEOUT_S)
    except httpx.TimeoutException:
        assert wanted.leave_s is not None
        return Ended("left")
    return _whole(answer)


def _whole(answer: httpx.Response) -> Ended:
    body, request_id = answer.json(), answer.headers["x-request-id"]
    if answer.status_code != 200:
        return Ended("error", request_id, body["error"]["code"])
    choices = {choice["index"]: choice for choice in body["choices"]}
    seen = {i: [_text(c.get("message") or c), c["finish_reason"]] for i, c in choices.items()}
    return Ended("finished", request_id, answer=seen)


async def _streamed(client: httpx.AsyncClient, wanted: Wanted) -> Ended:
    n_lines, seen = 0, Seen()
    async with client.stream("POST", wanted.path, json=wanted.body) as answer:
        request_id = answer.headers["x-request-id"]
        if answer.status_code != 200:
            await answer.aread()
            return _whole(answer)
        async for line in answer.aiter_lines():
            n_lines += line.startswith("data: ")
            seen.take(line)
            if wanted.leave_after is not None and n_lines > wanted.leave_after:
                return Ended("left", request_id)
    how = "error" if seen.code else "finished"
    assert seen.code or seen.done, "a stream without an end"
    return Ended(how, request_id, seen.code, seen.choices)


class Seen:
    """What a stream brought: text and end of each answer, or the code of an error."""

    def __init__(self) -> None:
        self.choices: dict[int, list[Any]] = {}
        self.code: str | None = None
        self.done = False

    def take(self, line: str) -> None:
        """One line of it."""
        if not line.startswith("data: "):
            return
        if line == "data: [DONE]":
            self.done = True
            return
        said = json.loads(line.removeprefix("data: "))
        self.code = said["error"]["code"] if "error" in said else self.code
        for choice in said.get("choices", ()):
            own = self.choices.setdefault(choice["index"], ["", None])
            own[0] += _text(choice.get("delta") or choice)
            own[1] = choice["finish_reason"] or own[1]


def _text(said: dict[str, Any]) -> str:
    return said.get("content") or said.get("text") or ""


async def together(url: str, wanted: Iterable[Wanted], progress: Progress) -> list[Ended]:
    """All of them, so many at a time; who finds the model away asks again."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(client: httpx.AsyncClient, request: Wanted) -> Ended:
        tries: list[Ended] = []
        async with places:
            while (ended := await asked(client, request)).code in ("model_not_found", "model_unloading"):
                tries.append(ended)
                await asyncio.sleep(0.05)
        ended.tries = tries
        progress.n_ended += 1
        return ended

    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
        return await asyncio.gather(*(one(client, request) for request in wanted))


async def come_and_go(url: str, model: str, progress: Progress) -> int:
    """Unload and load the model again and again; how often."""
    n = 0
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
        async for now in progress.moments():
            (await client.post("/models/unload", json={"model_id": "tiny", "now": now})).raise_for_status()
            (await client.post("/models/load", json={"model_id": model})).raise_for_status()
            n += 1
    return n


# ---- accounts -------------------------------------------------------------------------------------------------


class Account(NamedTuple):
    """The log's lines of requests, each of which has one: id -> why it ended."""

    admitted: dict[str, str]
    refused: dict[str, str]

    @classmethod
    def of(cls, running: NodeProcess) -> Account:
        """What was written so far."""
        admitted = [(line["id"], line["finish"]) for line in log_of(running, "generation")]
        refused = [(line["id"], line["code"]) for line in log_of(running, "refused")]
        assert len(dict(admitted + refused)) == len(admitted + refused), "a request with two lines"
        return cls(dict(admitted), dict(refused))


def outcome(finish: str) -> str:
    """What metrics call it."""
    return "cut" if finish == GONE else "finished" if finish in FINISHED else "failed"


class Metrics(NamedTuple):
    """What ``/metrics`` has of requests."""

    admitted: int
    outcomes: Counter[str]
    refused: Counter[str]

    @classmethod
    def of(cls, running: NodeProcess) -> Metrics:
        """What it counted so far."""
        found = Scrape(running.get("/metrics").text)
        ended = found.by("neuron_requests_ended_total", "outcome")
        refused = found.by("neuron_requests_refused_total", "code")
        return cls(
            int(found.total("neuron_requests_admitted_total")),
            Counter({name: int(n) for (name,), n in ended.items()}),
            Counter({code: int(n) for (code,), n in refused.items()}),
        )
