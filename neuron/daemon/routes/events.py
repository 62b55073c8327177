"""``GET /events``: what the node does, as it happens."""

from __future__ import annotations

from contextlib import nullcontext

from litestar import Request, get
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.response.base import ASGIResponse

from neuron.daemon import query, sse
from neuron.daemon.events import Events
from neuron.daemon.node import Node

MAX_SEQ = 2**53 - 1


@get("/events")
async def events(request: Request[None, None, State], node: NamedDependency[Node]) -> ASGIResponse:
    """Those that are kept after ``since``, and unless ``follow`` is false those to come."""
    since = query.number(request, "since", 0, low=0, high=MAX_SEQ)
    follow = query.flag(request, "follow", True)
    node.events.check(since)
    lines = sse.kept_alive(_lines(node.events, since, follow), lambda: sse.PING)
    return sse.EventResponse(lines, nullcontext(), {})


async def _lines(events: Events, since: int, follow: bool) -> sse.Chunks:
    async for line in events.read(since, follow):
        yield sse.data(line)
