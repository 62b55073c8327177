"""``POST /v1/completions``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from litestar import Request, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.response.base import ASGIResponse

from neuron.daemon import body, on_request, respond, several
from neuron.daemon.node import Node
from neuron.daemon.projection import completions, constraints
from neuron.daemon.record import Record
from neuron.wire.completions import CompletionRequest


@post("/v1/completions", status_code=200)
async def create_completion(request: Request[None, None, State], node: NamedDependency[Node]) -> ASGIResponse:
    """Decode, submit every prompt, respond."""
    with respond.begin(request, node.requests) as record:
        wire, unknown = await body.read(request, CompletionRequest, node.settings.max_body_bytes)
        record.model, record.stream = wire.model, bool(wire.stream)
        rest = partial(_answer, request, node, wire, unknown, record)
        return await on_request.answered(request, node, record, rest)


async def _answer(
    request: Request[None, None, State],
    node: Node,
    wire: CompletionRequest,
    unknown: list[str],
    record: Record,
) -> ASGIResponse:
    """Project, submit, respond."""
    caller = respond.asked_by(request)
    wanted = [replace(one, **caller) for one in completions.generations(wire, record.request_id)]
    record.expect(wanted)
    respond.demand_generates(node.engine, wire.model)
    model = node.engine.model(wire.model)
    answer = completions.CompletionAnswer(
        wire,
        record.request_id,
        n_prompts=len(wanted),
        echoes=await completions.echoes(node.engine, wanted) if wire.echo else (),
        fingerprint=model.fingerprint if model else None,
    )
    ignored = [*completions.ignored(wire), *unknown]
    with constraints.blamed(completions.constraint(wire)):
        submitted = several.submit(node.engine, wanted, "prompt")
        return await respond.answered(request, submitted, answer, record, ignored)
