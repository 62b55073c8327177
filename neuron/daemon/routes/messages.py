"""``POST /v1/messages`` and ``/v1/messages/count_tokens``."""

from __future__ import annotations

from functools import partial

from litestar import Request, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.response.base import ASGIResponse

from neuron.daemon import body, on_request, respond
from neuron.daemon.node import Node
from neuron.daemon.projection import anthropic, anthropic_prompt, constraints, refusals
from neuron.daemon.projection.anthropic_answer import MessagesAnswer
from neuron.daemon.record import Record
from neuron.wire.messages import CountTokensRequest, MessagesRequest, TokenCount


@post("/v1/messages", status_code=200)
async def create_message(request: Request[None, None, State], node: NamedDependency[Node]) -> ASGIResponse:
    """Decode, submit, respond."""
    with respond.begin(request, node.requests) as record:
        wire, unknown = await body.read(request, MessagesRequest, node.settings.max_body_bytes)
        record.model, record.stream = wire.model, bool(wire.stream)
        rest = partial(_answer, request, node, wire, unknown, record)
        return await on_request.answered(request, node, record, rest)


async def _answer(
    request: Request[None, None, State], node: Node, wire: MessagesRequest, unknown: list[str], record: Record
) -> ASGIResponse:
    """Project, submit, respond."""
    model = node.engine.model(wire.model)
    wanted = anthropic.generation(wire, record.request_id, model)
    shown = anthropic.shows_thinking(wire)
    answer = MessagesAnswer(wire, record.request_id, show_thinking=shown)
    ignored = [*anthropic.ignored(wire, model), *unknown]
    with constraints.blamed(anthropic.held(wire)):
        return await respond.generation(request, node.engine, wanted, answer, record, ignored)


@post("/v1/messages/count_tokens", status_code=200)
async def count_tokens(request: Request[None, None, State], node: NamedDependency[Node]) -> ASGIResponse:
    """How many tokens the prompt of such a request has."""
    wire, unknown = await body.read(request, CountTokensRequest, node.settings.max_body_bytes)
    refusals.refuse_unsupported(wire, refusals.COUNT_TOKENS)
    async with node.engine.hold(wire.model):
        respond.demand_generates(node.engine, wire.model)
        model = node.engine.model(wire.model)
        prompt = anthropic.prompt(wire, anthropic_prompt.toolbox(wire, model))
        ids = await respond.unless_gone(request, node.engine.tokenize(wire.model, prompt))
    ignored = [*anthropic.ignored(wire, model), *unknown]
    return respond.json(TokenCount(input_tokens=len(ids)), headers=respond.ignored_header(ignored))
