"""``POST /v1/embeddings``."""

from __future__ import annotations

from litestar import Request, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.response.base import ASGIResponse

from neuron.daemon import body, respond
from neuron.daemon.node import Node
from neuron.daemon.projection import embeddings
from neuron.wire.embeddings import EmbeddingsRequest


@post("/v1/embeddings", status_code=200)
async def create_embeddings(request: Request[None, None, State], node: NamedDependency[Node]) -> ASGIResponse:
    """Decode, embed, respond."""
    with respond.begin(request, node.requests) as record:
        wire, unknown = await body.read(request, EmbeddingsRequest, node.settings.max_body_bytes)
        record.read()
        record.model = wire.model
        prompts = embeddings.prompts(wire)
        record.embeds(prompts)
        async with node.engine.hold(wire.model):
            record.held()
            embedded = node.engine.embed(wire.model, prompts, record, **respond.asked_by(request))
            found = await respond.unless_gone(request, embedded)
        record.embedded(found.prompt_tokens)
        return respond.whole(embeddings.response(wire, found), record, respond.ignored_header(unknown))
