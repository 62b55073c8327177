"""What the clients of a soak ask of a node, drawn at random, and how each request ended for its client."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

MAIN, OTHER = "tiny", "other"
"""The model that stays, and the one that comes and goes."""
CUT_SHARE, REFUSED_SHARE, OTHER_SHARE, EMBEDDINGS_SHARE = 0.24, 0.05, 0.1, 0.1
WORDS = ["".join(random.Random(n).choices("etaoinshrdlu", k=1 + n % 7)) for n in range(500)]
"""All that prompts are made of: a tokenizer keeps 10,000 words, and a cache that fills looks like a leak."""
BEGINNINGS = ["", "The same beginning. " * 2, "A conversation that many share. " * 4]
LEAVING = frozenset({"model_unloading", "model_not_found"})
"""What a request for the other model may be refused with, or cut short by."""
Body = dict[str, Any]
Outcome = Literal["finished", "cut", "failed", "refused"]


@dataclass(frozen=True, slots=True)
class Api:
    """One of the formats for text: where it is, its names for things, how a whole stream of it ends."""

    path: str
    limit: str
    asked: Callable[[str], Body]
    held: Callable[[Body], Body]
    end: str
    has_n: bool = False


def _messages(text: str) -> Body:
    return {"messages": [{"role": "user", "content": text}]}


def _format(schema: Body) -> Body:
    return {"type": "json_schema", "name": "made", "schema": schema}


TEXT_APIS = (
    Api("/v1/chat/completions", "max_tokens", _messages, lambda schema: {
        "response_format": {"type": "json_schema", "json_schema": {"name": "made", "schema": schema}}
    }, r"^data: \[DONE\]$", has_n=True),
    Api("/v1/completions", "max_tokens", lambda text: {"prompt": text or "A"},
        lambda schema: {"guided_json": schema}, r"^data: \[DONE\]$", has_n=True),
    Api("/v1/responses", "max_output_tokens", lambda text: {"input": text or "A"},
        lambda schema: {"text": {"format": _format(schema)}},
        r'"type":"response\.(completed|incomplete)"'),
    Api("/v1/messages", "max_tokens", _messages,
        lambda schema: {"output_config": {"format": {"type": "json_schema", "schema": schema}}},
        r'"type":"message_stop"'),
)  # fmt: skip
EMBEDDINGS = "/v1/embeddings"
WRONG: tuple[Body, ...] = ({"temperature": 9}, {"stop": [""]}, {"model": "nobody"}, {"top_p": "much"})
"""What makes a request one that is refused."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One request."""

    path: str
    body: Body
    end: str = ""
    """Of a whole stream: what its last line holds."""
    leaves: int | None = None
    """After so many lines of a stream, or milliseconds of a whole answer, its client goes; None: it stays."""


@dataclass(frozen=True, slots=True)
class Seen:
    """How one request ended for its client."""

    outcome: Outcome
    request_id: str | None = None
    """None where the client left before it was told."""
    status: int = 0
    code: str | None = None
    about: str = ""


def drawn(rng: random.Random) -> Wanted:
    """Any of the requests there are."""
    model = OTHER if rng.random() < OTHER_SHARE else MAIN
    text = rng.choice(BEGINNINGS) + " ".join(rng.choices(WORDS, k=rng.randrange(1, 8)))
    if rng.random() < EMBEDDINGS_SHARE:
        return Wanted(EMBEDDINGS, {"model": model, "input": [text] * rng.choice([1, 1, 4])})
    api = rng.choice(TEXT_APIS)
    body = {"model": model, api.limit: rng.choice([1, 4, 12, 40]), "stream": rng.random() < 0.5}
    body |= api.asked(text) | ({"n": 3} if api.has_n and rng.random() < 0.2 else {})
    body |= api.held(_schema(rng)) if rng.random() < 0.15 else {}
    body |= {"temperature": 0} if rng.random() < 0.5 else {}
    if rng.random() < REFUSED_SHARE:
        return Wanted(api.path, body | rng.choice(WRONG), api.end)
    if rng.random() < CUT_SHARE:
        return Wanted(api.path, body | {api.limit: 100}, api.end, leaves=rng.choice([0, 1, 3, 10]))
    return Wanted(api.path, body, api.end)


def _schema(rng: random.Random) -> Body:
    """One of some hundred objects, so that grammars are found again and made anew."""
    fields = {f"field_{rng.randrange(100)}": {"type": "boolean"}, "kind": {"enum": ["a", "b"]}}
    return {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False}


async def asked(client: httpx.AsyncClient, wanted: Wanted) -> Seen:
    """Ask, and see to it as its client would."""
    if not wanted.body.get("stream"):
        return await (_whole(client, wanted) if wanted.leaves is None else _left(client, wanted))
    async with client.stream("POST", wanted.path, json=wanted.body) as answer:
        request_id = answer.headers["x-request-id"]
        if answer.status_code != 200:
            await answer.aread()
            return _refused(answer, wanted)
        last, n_lines = "", 0
        async for line in _lines(answer):
            if n_lines == wanted.leaves:
                return Seen("cut", request_id)
            last, n_lines = line, n_lines + 1
    if re.search(wanted.end, last):
        return Seen("finished", request_id, 200)
    return Seen("failed", request_id, 200, _code(last), last)


async def _lines(answer: httpx.Response) -> AsyncIterator[str]:
    """Lines of data."""
    async for line in answer.aiter_lines():
        if line.startswith("data: "):
            yield line


async def _whole(client: httpx.AsyncClient, wanted: Wanted) -> Seen:
    answer = await client.post(wanted.path, json=wanted.body)
    if answer.status_code == 200:
        return Seen("finished", answer.headers["x-request-id"], 200)
    return _refused(answer, wanted)


def _refused(answer: httpx.Response, wanted: Wanted) -> Seen:
    about = f"{wanted.path} {json.dumps(wanted.body)[:300]}: {answer.text[:300]}"
    return Seen("refused", answer.headers["x-request-id"], answer.status_code, _code(answer.text), about)


def _code(text: str) -> str | None:
    """The code of an error; Anthropic's have none."""
    found = re.search(r'"code":"(\w+)"', text)
    return found[1] if found else None


async def _left(client: httpx.AsyncClient, wanted: Wanted) -> Seen:
    """Send all of a request and go; over a connection of its own, so that what was sent is known."""
    url = urlsplit(str(client.base_url))
    body = json.dumps(wanted.body).encode()
    head = f"POST {wanted.path} HTTP/1.1\r\nhost: {url.netloc}\r\ncontent-type: application/json\r\n"
    _, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    await asyncio.sleep((wanted.leaves or 0) / 1e3)
    writer.close()
    return Seen("cut")
