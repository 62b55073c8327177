"""``POST /v1/chat/completions``."""

from __future__ import annotations

from functools import partial

from litestar import Request, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.response.base import ASGIResponse

from neuron.daemon import body, on_request, respond
from neuron.daemon.node import Node
from neuron.daemon.projection import chat, constraints
from neuron.daemon.projection.chat_answer import ChatAnswer
from neuron.daemon.record import Record
from neuron.wire.chat import ChatCompletionRequest


@post("/v1/chat/completions", status_code=200)
async def chat_completions(request: Request[None, None, State], node: NamedDependency[Node]) -> ASGIResponse:
    """Decode, submit, respond."""
    with respond.begin(request, node.requests) as record:
        wire, unknown = await body.read(request, ChatCompletionRequest, node.settings.max_body_bytes)
        record.model, record.stream = wire.model, bool(wire.stream)
        rest = partial(_answer, request, node, wire, unknown, record)
        return await on_request.answered(request, node, record, rest)


async def _answer(
    request: Request[None, None, State],
    node: Node,
    wire: ChatCompletionRequest,
    unknown: list[str],
    record: Record,
) -> ASGIResponse:
    """Project, submit, respond."""
    model = node.engine.model(wire.model)
    wanted = chat.generation(wire, record.request_id, model)
    answer = ChatAnswer(wire, record.request_id, model.fingerprint if model else None)
    ignored = [*chat.ignored(wire, model), *unknown]
    with constraints.blamed(chat.held(wire)):
        return await respond.generation(request, node.engine, wanted, answer, record, ignored)
