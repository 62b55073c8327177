"""``POST /drain``: take no new work, end what was admitted, leave."""

from __future__ import annotations

from litestar import Request, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.response.base import ASGIResponse

from neuron.daemon import body, respond
from neuron.daemon.node import Node
from neuron.errors import InvalidValue
from neuron.wire.node import DrainRequest, DrainResponse

MAX_TIMEOUT_S = 86400


@post("/drain", status_code=202)
async def drain(request: Request[None, None, State], node: NamedDependency[Node]) -> ASGIResponse:
    """From this answer on new work is refused. Asked again, the first time that was said stands."""
    wire, unknown = DrainRequest(), list[str]()
    if _has_body(request):
        wire, unknown = await body.read(request, DrainRequest, body.NODE_BODY_BYTES)
    if wire.timeout_s is not None and not 0 <= wire.timeout_s <= MAX_TIMEOUT_S:
        raise InvalidValue(f"timeout_s must be 0 to {MAX_TIMEOUT_S}", param="timeout_s")
    node.engine.refuse_new()
    node.drain.ask(wire.timeout_s)
    answer = DrainResponse(timeout_s=node.drain.timeout_s)
    return respond.json(answer, status=202, headers=respond.ignored_header(unknown))


def _has_body(request: Request[None, None, State]) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
