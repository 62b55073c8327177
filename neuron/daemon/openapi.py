"""The OpenAPI 3.1 document: made of `OPERATIONS`, the wire types and the table of limits, so it can't drift."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

import msgspec

from neuron import errors as e
from neuron.daemon import shapes
from neuron.daemon.json_schema import Components
from neuron.daemon.operations import OPERATIONS, Operation
from neuron.daemon.projection.limit_schemas import narrowed
from neuron.keys import Scope

JSON = "application/json"
EVENTS = "text/event-stream"

ANY_REQUEST = (e.InvalidValue, e.ForbiddenHost, e.NeuronError)
"""Headers, the Host, a fault of ours."""
ANY_CALLER = (e.InvalidApiKey, e.InsufficientScope)
"""Where keys are configured."""
ANY_BODY = (e.MalformedJson, e.UnsupportedMediaType, e.RequestTooLarge)

DESCRIPTION = """Every answer carries `x-request-id`. Unknown fields of a request are accepted and named in
`x-neuron-ignored-params`. A connection that sends nothing for too long is answered 408 and closed, one above the
limit of connections 503 and closed, both without a body, before any operation is reached. Where the operator has
configured keys, each operation needs one with its `x-neuron-scope`; otherwise none is asked for."""

HEADERS: Mapping[str, Any] = {
    "x-request-id": {
        "description": "Names this request in the node's log",
        "schema": {"type": "string"},
        "required": True,
    },
    "x-neuron-ignored-params": {
        "description": "Names of hints and unknown fields that had no effect",
        "schema": {"type": "string"},
    },
    "retry-after": {
        "description": "Seconds after which the same request may pass",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "www-authenticate": {"description": "How to send a key", "schema": {"type": "string"}},
}
SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
"""Either, where the operator has configured keys."""
PATH_PARAMETERS = {
    "model_id": "Slashes may be raw or percent-encoded",
    "request_id": "As the header x-request-id of its answer says",
    "response_id": "As the response's id says",
}


@cache
def document() -> bytes:
    """The document as JSON."""
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "neuron node",
                "version": version("neuron-node"),
                "description": DESCRIPTION.replace("\n", " "),
            },
            "servers": [{"url": "/"}],
            "paths": _paths(),
            "components": {
                "schemas": _components()[0].schemas,
                "headers": HEADERS,
                "securitySchemes": SECURITY,
            },
        }
    )


def _paths() -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return paths


def _operation(operation: Operation) -> dict[str, Any]:
    said: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": _parameters(operation),
        "responses": {str(status): answer for status, answer in sorted(_responses(operation).items())},
    }
    if operation.scope is not Scope.OPEN:
        said |= {"security": [{}, *({name: []} for name in SECURITY)], "x-neuron-scope": operation.scope.word}
    if operation.body is not None:
        examples = {name: {"value": body} for name, body in operation.examples.items()}
        content = {"schema": _schema(operation.body), "examples": examples}
        said["requestBody"] = {"required": operation.body_required, "content": {JSON: content}}
    return said


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    query = [{"name": name, "in": "query", "schema": schema} for name, schema in operation.query.items()]
    return [*map(_path_parameter, re.findall(r"{(\w+)}", operation.path)), *query]


def _path_parameter(name: str) -> dict[str, Any]:
    said = {"name": name, "in": "path", "required": True, "description": PATH_PARAMETERS[name]}
    return {**said, "schema": {"type": "string", "minLength": 1}}


def _responses(operation: Operation) -> dict[int, dict[str, Any]]:
    """Refusals first, so that an answer that shares their status stands."""
    refusal = {JSON: _schema(_error_shape(operation))}
    found = {status: _response(status, refusal) for status in _refused(operation)}
    for status, kind in operation.answers.items():
        content = {operation.media: _schema(kind)}
        if operation.events and status == 200:
            content[EVENTS] = _events(operation)
        found[status] = {**_response(status, content), **_links(operation)}
    return found


def _links(operation: Operation) -> dict[str, Any]:
    links = {id: {"operationId": id, "parameters": {**given}} for id, given in operation.links.items()}
    return {"links": links} if links else {}


def _error_shape(operation: Operation) -> type:
    return shapes.of(operation.path).type


def _refused(operation: Operation) -> set[int]:
    guarded = operation.scope is not Scope.OPEN
    classes = (
        *ANY_REQUEST,
        *(ANY_CALLER if guarded else ()),
        *(ANY_BODY if operation.body else ()),
        *operation.refusals,
    )
    return {shapes.of(operation.path).status(cls("")) for cls in classes} | {*operation.framework}


def _response(status: int, content: Mapping[str, Any]) -> dict[str, Any]:
    names = ["x-request-id", *(["x-neuron-ignored-params"] if status < 300 else [])]
    names += ["retry-after"] if status in (429, 503, shapes.OVERLOADED) else []
    names += ["www-authenticate"] if status == 401 else []
    return {
        "description": shapes.PHRASES[status],
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        "content": {media: {"schema": schema} for media, schema in content.items()},
    }


def _events(operation: Operation) -> dict[str, Any]:
    """One event of a stream: 3.1 can't say that there are many. A failure in the midst is an event, too."""
    kinds = [*map(_schema, operation.events), _schema(_error_shape(operation))]
    data = {"type": "string", "contentMediaType": JSON, "contentSchema": {"anyOf": kinds}}
    return {
        "type": "object",
        "properties": {"event": {"type": "string"}, "data": {"anyOf": [{"const": "[DONE]"}, data]}},
        "required": ["data"],
    }


@cache
def _components() -> tuple[Components, dict[Any, dict[str, Any]]]:
    """Every struct, and the schema of every type of the table. Requests first: see `Components`."""
    components = Components(narrowed)
    bodies = [o.body for o in OPERATIONS if o.body is not None]
    said = [kind for o in OPERATIONS for kind in (*o.answers.values(), *o.events, _error_shape(o))]
    schemas = {kind: components.schema(kind, asked=True) for kind in bodies}
    return components, {**schemas, **{kind: components.schema(kind, asked=False) for kind in said}}


def _schema(kind: Any) -> dict[str, Any]:
    return _components()[1][kind]
