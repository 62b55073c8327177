"""``POST /tokenize``, ``/detokenize``, ``/apply-template``."""

from __future__ import annotations

from litestar import Request, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.response.base import ASGIResponse

from neuron.daemon import body, respond
from neuron.daemon.node import Node
from neuron.daemon.projection import tokenize as projection
from neuron.errors import InvalidValue
from neuron.wire import tokenize as wire


@post("/tokenize", status_code=200)
async def tokenize(request: Request[None, None, State], node: NamedDependency[Node]) -> ASGIResponse:
    """Ids of a text or of a conversation."""
    asked, unknown = await body.read(request, wire.TokenizeRequest, node.settings.max_body_bytes)
    model_id = model_of(node, asked.model)
    async with node.engine.hold(model_id):
        model = node.engine.model(model_id)
        prompt = projection.prompt(asked, model)
        ids = await respond.unless_gone(request, node.engine.tokenize(model_id, prompt))
        context = model.context if model else 0
        answer = wire.TokenizeResponse(tokens=ids, count=len(ids), max_model_len=context)
        if asked.return_strs or asked.return_token_strs:
            answer.token_strs = await respond.unless_gone(request, _pieces(node, model_id, ids))
    return respond.json(answer, headers=respond.ignored_header(unknown))


@post("/detokenize", status_code=200)
async def detokenize(request: Request[None, None, State], node: NamedDependency[Node]) -> ASGIResponse:
    """The text of ids."""
    asked, unknown = await body.read(request, wire.DetokenizeRequest, node.settings.max_body_bytes)
    text = ""
    if asked.tokens:
        model_id = model_of(node, asked.model)
        async with node.engine.hold(model_id):
            text = await node.engine.detokenize(model_id, asked.tokens)
    answer = wire.DetokenizeResponse(prompt=text, content=text)
    return respond.json(answer, headers=respond.ignored_header(unknown))


@post("/apply-template", status_code=200)
async def apply_template(request: Request[None, None, State], node: NamedDependency[Node]) -> ASGIResponse:
    """A conversation in the model's template, as text."""
    asked, unknown = await body.read(request, wire.ApplyTemplateRequest, node.settings.max_body_bytes)
    model_id = model_of(node, asked.model)
    async with node.engine.hold(model_id):
        prompt = projection.conversation(asked, asked.messages, node.engine.model(model_id))
        text = await node.engine.render(model_id, prompt)
    return respond.json(wire.ApplyTemplateResponse(prompt=text), headers=respond.ignored_header(unknown))


def model_of(node: Node, said: str | None) -> str:
    """The model that the request names, else the only one that is loaded."""
    if said is not None:
        return said
    loaded = node.loaded_ids()
    if len(loaded) != 1:
        there = f"several are loaded: {', '.join(loaded)}" if loaded else "none is loaded"
        hint = "name one of them in model" if loaded else "load one first"
        raise InvalidValue(f"the request names no model, and {there}", hint=hint, param="model")
    return loaded[0]


async def _pieces(node: Node, model_id: str, ids: list[int]) -> list[str]:
    """The text of each id alone."""
    known = {i: await node.engine.detokenize(model_id, [i]) for i in dict.fromkeys(ids)}
    return [known[i] for i in ids]
