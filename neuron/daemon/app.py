"""The application: routes, one dependency, guards around everything, errors in the contract's shapes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from litestar import Litestar, Response
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.types import ControllerRouterHandler

from neuron import hardware
from neuron.daemon import errors, respond, shapes
from neuron.daemon.access import Access
from neuron.daemon.body import AnyRequest, ClientGone
from neuron.daemon.drain import Drain
from neuron.daemon.events import Events
from neuron.daemon.gauges import Gauges
from neuron.daemon.guards import Guards, allowed_hosts
from neuron.daemon.metrics import Metrics
from neuron.daemon.node import Node
from neuron.daemon.readings import Readings
from neuron.daemon.requests import Requests
from neuron.daemon.routes import (
    chat,
    completions,
    drain,
    embeddings,
    events,
    messages,
    metrics,
    models,
    node,
    requests,
    responses,
    tokenize,
)
from neuron.daemon.store import ResponseStore
from neuron.engine.api import EngineApi
from neuron.errors import NeuronError
from neuron.log import event as log_event
from neuron.settings import Settings

log = logging.getLogger(__name__)

ROUTES: Sequence[ControllerRouterHandler] = (
    node.discovery,
    node.health,
    node.version_,
    node.ready,
    node.openapi_document,
    metrics.metrics,
    events.events,
    requests.list_requests,
    requests.one_request,
    drain.drain,
    models.list_models,
    models.one_model,
    models.load_model,
    models.plan_load,
    models.show_model,
    models.unload_model,
    models.v1_models,
    models.v1_model,
    chat.chat_completions,
    completions.create_completion,
    messages.create_message,
    messages.count_tokens,
    embeddings.create_embeddings,
    tokenize.tokenize,
    tokenize.detokenize,
    tokenize.apply_template,
    responses.create_response,
    responses.kept_response,
    responses.input_items,
)

GENERATION_PATHS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"})
"""Where the message of a refusal may quote a prompt, which no log may have."""


def create_app(
    engine: EngineApi,
    settings: Settings,
    *,
    host: hardware.Host,
    readings: Readings | None = None,
    url: str | None = None,
    access: Access | None = None,
) -> Litestar:
    """The ASGI application over ``engine``, which the caller starts and closes.

    ``url`` is where applications of this host reach the node, where the settings don't tell (as with port 0);
    without ``access`` no key is asked for.
    """
    readings = readings or Readings(hardware.read_gpus, hardware.read_cpu)
    store = response_store(settings)
    counted = Metrics()
    told = Events()
    shared = Node(
        engine=engine,
        settings=settings,
        host=host,
        readings=readings,
        url=url or f"http://localhost:{settings.port}",
        requests=Requests(kept=settings.requests_kept, texts=settings.log_prompts, observers=(counted,)),
        metrics=counted,
        events=told,
        drain=Drain(settings.drain_s),
        responses=store,
    )
    counted.registry.register(Gauges(shared))
    app = Litestar(
        route_handlers=ROUTES,
        dependencies={"node": Provide(lambda: shared, use_cache=True, sync_to_thread=False)},
        exception_handlers={
            NeuronError: on_neuron_error,
            ClientGone: on_client_gone,
            HTTPException: on_http_exception,
            Exception: on_bug,
        },
        on_startup=[readings.start, told.start],
        on_shutdown=[readings.stop, told.stop, *([store.close] if store else [])],
        openapi_config=None,
        logging_config=None,
    )
    app.state.node = shared
    names = allowed_hosts(settings, (host.hostname, host.hostname.partition(".")[0]))
    any_address = settings.bind in ("0.0.0.0", "::")
    app.asgi_handler = Guards(
        app.asgi_handler, names, access or Access(settings), any_address, counted.refused
    )
    return app


def response_store(settings: Settings) -> ResponseStore | None:
    """Where responses are kept, if the settings name a folder for them."""
    if settings.response_store is None:
        return None
    return ResponseStore(
        settings.response_store,
        max_bytes=settings.response_store_mb << 20,
        max_age_s=settings.response_store_days * 86400,
    )


def on_neuron_error(request: AnyRequest, error: NeuronError) -> Response[bytes]:
    """By the table."""
    request_id, path = respond.request_id(request), request.scope["path"]
    shape = shapes.of(path)
    status = shape.status(error)
    private = path in GENERATION_PATHS and status < 500
    if respond.RECORD not in request.scope["state"]:
        _metrics(request).refused(path, error.code)
    if not respond.admitted(request):
        log_event(
            log,
            "refused",
            level=logging.WARNING,
            id=request_id,
            path=path,
            status=status,
            code=error.code,
            param=error.param,
            cause=None if private else errors.whole_cause(error),
        )
    return _response(shape.body(error, request_id), status, errors.headers_of(error))


def on_client_gone(request: AnyRequest, error: ClientGone) -> Response[bytes]:
    """An answer that nobody reads."""
    return _response({"error": "the client left"}, 400)


def on_http_exception(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    """What the framework refused: no route, wrong method."""
    if error.status_code >= 500:
        return on_bug(request, error)
    request_id, path, status = respond.request_id(request), request.scope["path"], error.status_code
    body = shapes.of(path).framework(status, request_id)
    code = HTTPStatus(status).phrase.lower().replace(" ", "_")
    _metrics(request).refused(path, code)
    log_event(log, "refused", level=logging.WARNING, id=request_id, path=path[:200], status=status, code=code)
    allow = {k: v for k, v in (error.headers or {}).items() if k.lower() == "allow"}
    return _response(body, error.status_code, allow)


def on_bug(request: AnyRequest, error: Exception) -> Response[bytes]:
    """A fault of ours: the cause goes to the log, the client gets a fixed text."""
    request_id, path = respond.request_id(request), request.scope["path"]
    if respond.RECORD not in request.scope["state"]:
        _metrics(request).refused(path, NeuronError.code)
    log_event(log, "bug", level=logging.ERROR, fault=error, id=request_id, path=path)
    return _response(shapes.of(path).framework(500, request_id), 500, {"x-should-retry": "false"})


def _metrics(request: AnyRequest) -> Metrics:
    node: Node = request.app.state.node
    return node.metrics


def _response(body: Any, status: int, headers: dict[str, str] | None = None) -> Response[bytes]:
    return Response(errors.encoded(body), status_code=status, headers=headers, media_type="application/json")
