"""``GET /requests``: what became of each request."""

from __future__ import annotations

from litestar import Request, get
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from neuron.daemon import query, respond
from neuron.daemon.node import Node
from neuron.daemon.projection.requests import request_info
from neuron.errors import RequestNotFound

PAGE = 20
MAX_PAGE = 1000


@get("/requests")
async def list_requests(request: Request[None, None, State], node: NamedDependency[Node]) -> ASGIResponse:
    """Those that run and the last that ended, newest first."""
    limit = query.number(request, "limit", PAGE, low=1, high=MAX_PAGE)
    return respond.json([request_info(record) for record in node.requests.newest(limit)])


@get("/requests/{request_id:str}")
async def one_request(request_id: FromPath[str], node: NamedDependency[Node]) -> ASGIResponse:
    """One by its id."""
    record = node.requests.find(request_id)
    if record is None:
        raise RequestNotFound(
            f"no request {request_id[:80]!r} is running or kept",
            hint=f"the last {node.settings.requests_kept} that ended are kept, until the node stops",
        )
    return respond.json(request_info(record))
