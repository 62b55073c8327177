"""Models: list, one, load, unload, endpoint; and OpenAI's list."""

from __future__ import annotations

import asyncio

import msgspec
from litestar import Request, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import FromPath
from litestar.response.base import ASGIResponse

from neuron.daemon import body, respond
from neuron.daemon.node import Node
from neuron.daemon.projection import load as load_projection
from neuron.daemon.projection import node as projection
from neuron.daemon.projection import show as show_projection
from neuron.daemon.routes import load_stream
from neuron.errors import InvalidValue, ModelNotLoaded
from neuron.wire.models import ModelList
from neuron.wire.node import (
    EndpointResponse,
    ModelSpec,
    PlanRequest,
    ShowRequest,
    StatusResponse,
    UnloadRequest,
)

NodeRequest = Request[None, None, State]

ANSWERING = frozenset({"loaded", "available"})

QUICK_S = 0.2
"""A load that is refused within this is answered as refused even where the caller does not wait."""


@get("/models")
async def list_models(request: NodeRequest, node: NamedDependency[Node]) -> ASGIResponse:
    """Those that answer or will; with ``?all=true`` also what failed or leaves."""
    asked = request.query_params.get("all", "false")
    if asked not in ("true", "false"):
        raise InvalidValue("all must be true or false", param="all")
    everything = asked == "true"
    found = [m for m in node.engine.status().models if everything or m.state in projection.LISTED]
    return respond.json([projection.model_info(model) for model in found])


@get("/models/{rest:path}")
async def one_model(rest: FromPath[str], node: NamedDependency[Node]) -> ASGIResponse:
    """One model in any state; with ``/endpoint`` behind the id, where it answers. Ids hold slashes."""
    model_id = rest.lstrip("/")
    if model_id.endswith("/endpoint"):
        return _endpoint(model_id.removesuffix("/endpoint"), node)
    model = node.engine.model(model_id)
    if model is None:
        raise ModelNotLoaded(f"model '{model_id}' not loaded")
    return respond.json(projection.model_info(model))


def _endpoint(model_id: str, node: Node) -> ASGIResponse:
    model = node.engine.model(model_id)
    if model is None or model.state != "loaded":
        raise ModelNotLoaded(f"model '{model_id}' not loaded")
    return respond.json(EndpointResponse(url=node.settings.public_url or node.url))


@post("/models/load", status_code=200)
async def load_model(request: NodeRequest, node: NamedDependency[Node]) -> ASGIResponse:
    """Load, or change what is loaded; answer when it is so, at once with ``wait: false``, or as it goes on."""
    wire, unknown = await body.read(request, ModelSpec, body.NODE_BODY_BYTES)
    spec = load_projection.load_spec(wire, node.host)
    headers = respond.ignored_header(unknown)
    fetch = load_projection.fetch_over_http(wire.model_id, node.settings.model_roots)
    task = node.spawn(node.engine.load(spec, fetch))
    if "text/event-stream" in request.headers.get("accept", ""):
        await _refused_at_once(task)
        return load_stream.response(node.engine, spec.model_id, task, respond.request_id(request), headers)
    if wire.wait is False:
        await _refused_at_once(task)
        if not task.done() or not task.result():
            return respond.json(StatusResponse(status="loading"), status=202, headers=headers)
    changed = await respond.unless_gone(request, asyncio.shield(task))
    return respond.json(StatusResponse(status="loaded", changed=list(changed)), headers=headers)


@post("/models/plan", status_code=200)
async def plan_load(request: NodeRequest, node: NamedDependency[Node]) -> ASGIResponse:
    """What a load would take and whether it fits, from headers alone."""
    wire, unknown = await body.read(request, PlanRequest, body.NODE_BODY_BYTES)
    spec = load_projection.load_spec(ModelSpec(**msgspec.structs.asdict(wire)), node.host)
    find = load_projection.find_over_http(wire.model_id, node.settings.model_roots)
    found = await respond.unless_gone(request, node.engine.plan(spec, find))
    return respond.json(load_projection.plan(found), headers=respond.ignored_header(unknown))


@post("/models/show", status_code=200)
async def show_model(request: NodeRequest, node: NamedDependency[Node]) -> ASGIResponse:
    """What a loaded or fetched model is, from its files."""
    wire, unknown = await body.read(request, ShowRequest, body.NODE_BODY_BYTES)
    model, roots = node.engine.model(wire.model_id), node.settings.model_roots
    found = await asyncio.to_thread(show_projection.description, wire.model_id, model, roots)
    return respond.json(found, headers=respond.ignored_header(unknown))


async def _refused_at_once(task: asyncio.Task[tuple[str, ...]]) -> None:
    """Raise what the load raised, if it did so quickly."""
    done, _ = await asyncio.wait({task}, timeout=QUICK_S)
    if done:
        task.result()


@post("/models/unload", status_code=200)
async def unload_model(request: NodeRequest, node: NamedDependency[Node]) -> ASGIResponse:
    """Refuse new work for the model, let running work end or cut it, free it."""
    wire, unknown = await body.read(request, UnloadRequest, body.NODE_BODY_BYTES)
    if not wire.model_id:
        raise InvalidValue("missing model_id", param="model_id")
    await node.engine.unload(wire.model_id, now=bool(wire.now))
    return respond.json(StatusResponse(status="unloaded"), headers=respond.ignored_header(unknown))


@get("/v1/models")
async def v1_models(node: NamedDependency[Node]) -> ASGIResponse:
    """What answers: what is loaded, and what a request has loaded."""
    found = [model for model in node.engine.status().models if model.state in ANSWERING]
    return respond.json(ModelList(data=[projection.v1_model(model) for model in found]))


@get("/v1/models/{rest:path}")
async def v1_model(rest: FromPath[str], node: NamedDependency[Node]) -> ASGIResponse:
    """One loaded model."""
    model_id = rest.lstrip("/")
    model = node.engine.model(model_id)
    if model is None or model.state not in ANSWERING:
        raise node.not_loaded(model_id)
    return respond.json(projection.v1_model(model))
