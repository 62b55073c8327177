"""``POST /v1/responses``, and what is kept of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from litestar import Request, get, post, route
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from neuron.daemon import body, conversation, on_request, respond
from neuron.daemon.access import CALLER
from neuron.daemon.node import Node
from neuron.daemon.projection import constraints, responses
from neuron.daemon.projection.responses_stream import ResponsesAnswer
from neuron.daemon.record import Record
from neuron.daemon.store import OwnResponses
from neuron.errors import InvalidValue, NeuronError, UnsupportedParameter
from neuron.wire.responses import DeletedResponse, ResponsesRequest

NodeRequest = Request[None, None, State]

PAGE = 20
MAX_PAGE = 100
ORDERS = ("asc", "desc")


@post("/v1/responses", status_code=200)
async def create_response(request: NodeRequest, node: NamedDependency[Node]) -> ASGIResponse:
    """Decode, submit, respond."""
    with respond.begin(request, node.requests) as record:
        wire, unknown = await body.read(request, ResponsesRequest, node.settings.max_body_bytes)
        record.model, record.stream = wire.model, bool(wire.stream)
        rest = partial(_answer, request, node, wire, unknown, record)
        return await on_request.answered(request, node, record, rest)


async def _answer(
    request: NodeRequest, node: Node, wire: ResponsesRequest, unknown: list[str], record: Record
) -> ASGIResponse:
    """Project, submit, respond."""
    model = node.engine.model(wire.model)
    about = await conversation.of(wire, _own(request, node))
    wanted = responses.generation(wire, about.items, record.request_id, model)
    keep = None if about.store is None else about.keep
    answer = ResponsesAnswer(wire, record.request_id, model, keep)
    ignored = [*responses.ignored(wire, model), *unknown]
    with constraints.blamed(responses.held(wire)), _of_input():
        return await respond.generation(request, node.engine, wanted, answer, record, ignored)


@route("/v1/responses/{response_id:str}", http_method=["GET", "DELETE"], status_code=200)
async def kept_response(
    request: NodeRequest, response_id: FromPath[str], node: NamedDependency[Node]
) -> ASGIResponse:
    """Show or forget a response; two routes of one path would each be the only one in ``Allow``."""
    if request.method == "DELETE":
        return await _forget(response_id, _own(request, node))
    if request.query_params.get("stream", "false") != "false":
        raise UnsupportedParameter("a kept response can't be streamed again", param="stream")
    stored = await conversation.found(_own(request, node), response_id)
    return respond.json(stored.response)


def _own(request: NodeRequest, node: Node) -> OwnResponses | None:
    """The kept responses of who asks; whatever its scope, a key has no other's."""
    owner = request.scope["state"][CALLER].name
    return None if node.responses is None else node.responses.of(owner)


async def _forget(response_id: str, kept: OwnResponses | None) -> ASGIResponse:
    if kept is None or not await kept.delete(response_id):
        raise conversation.not_found(response_id)
    return respond.json(DeletedResponse(id=response_id))


@get("/v1/responses/{response_id:str}/input_items")
async def input_items(
    request: NodeRequest, response_id: FromPath[str], node: NamedDependency[Node]
) -> ASGIResponse:
    """The items that a kept response answered, in pages."""
    query = request.query_params
    limit, order = _limit(query), query.get("order", "desc")
    if order not in ORDERS:
        raise InvalidValue(f"order must be one of {', '.join(ORDERS)}", param="order")
    stored = await conversation.found(_own(request, node), response_id)
    return respond.json(conversation.page(stored.input, after=query.get("after"), limit=limit, order=order))


@contextmanager
def _of_input() -> Iterator[None]:
    """What the engine says of messages is said of ``input``, which they are made of."""
    try:
        yield
    except NeuronError as error:
        if error.param == "messages":
            error.param = "input"
        raise


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit", str(PAGE))
    if not (len(text) <= 3 and text.isascii() and text.isdecimal() and 1 <= int(text) <= MAX_PAGE):
        raise InvalidValue(f"limit must be 1 to {MAX_PAGE}", param="limit")
    return int(text)
