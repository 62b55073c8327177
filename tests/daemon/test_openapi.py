"""The OpenAPI document says what the application does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from neuron.daemon import errors
from neuron.daemon.app import create_app
from neuron.daemon.operations import OPERATIONS
from neuron.daemon.projection.limits import LIMITS
from neuron.settings import Settings
from tests.support.fake_engine import FakeEngine
from tests.support.hosts import CPU_HOST
from tests.support.node_server import NodeServer


@pytest.fixture
def document(node: NodeServer) -> Any:
    status, headers, body = node.get("/schema/openapi.json")
    assert (status, headers["content-type"]) == (200, "application/json")
    return body


def test_every_route_is_in_the_document_and_the_other_way_round(document: Any) -> None:
    app = create_app(FakeEngine(), Settings(port=0), host=CPU_HOST)
    routed = {
        (method, route.path)
        for route in app.routes
        for method in route.route_handler_map  # type: ignore[union-attr]
        if method != "OPTIONS"
    }
    assert {(o.method, o.route or o.path) for o in OPERATIONS} == routed
    written = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert written == {(o.method, o.path) for o in OPERATIONS}


def test_the_document_is_valid_openapi(document: Any) -> None:
    assert document["openapi"].startswith("3.1")
    ids = [
        operation["operationId"] for methods in document["paths"].values() for operation in methods.values()
    ]
    assert len(ids) == len(set(ids))
    assert {target for operation in OPERATIONS for target in operation.links} <= set(ids)
    names = {ref.split("/")[-1] for ref in references(document) if "/schemas/" in ref}
    assert names == set(document["components"]["schemas"])


def references(value: Any) -> list[str]:
    if isinstance(value, list):
        return [ref for item in value for ref in references(item)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
    return own + [ref for item in value.values() for ref in references(item)]


def test_the_ranges_are_those_that_are_enforced(document: Any) -> None:
    fields = document["components"]["schemas"]["ChatCompletionRequest"]["properties"]
    assert fields["top_p"]["anyOf"][0] == {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
    assert fields["temperature"]["anyOf"][0]["anyOf"] == [{"const": 0}, {"minimum": 0.001, "maximum": 2}]
    assert fields["stop_token_ids"]["anyOf"][0]["items"]["maximum"] == LIMITS["stop_token_ids"].high
    assert fields["logit_bias"]["anyOf"][0]["additionalProperties"]["minimum"] == -100


def test_what_is_refused_is_declared_by_the_values_that_pass(document: Any) -> None:
    schemas = document["components"]["schemas"]
    for name in ("ChatCompletionRequest", "CompletionRequest", "ResponsesRequest"):
        assert schemas[name]["properties"]["typical_p"] == {"enum": [None, False, 0, 1]}


def test_unknown_fields_are_not_forbidden(document: Any) -> None:
    assert "additionalProperties" not in document["components"]["schemas"]["ChatCompletionRequest"]


def test_every_refusal_of_a_prompt_is_declared(document: Any) -> None:
    declared = document["paths"]["/v1/chat/completions"]["post"]["responses"]
    for error, row in errors.TABLE.items():
        if row.status in (400, 401, 403, 404, 413, 415, 422, 429, 503):
            assert str(row.status) in declared, error
    assert set(declared["200"]["content"]) == {"application/json", "text/event-stream"}


def test_errors_have_the_shape_of_their_paths(document: Any) -> None:
    def schema(path: str, method: str) -> str:
        content = document["paths"][path][method]["responses"]["400"]["content"]["application/json"]
        return str(content["schema"]["$ref"]).rsplit("/", 1)[-1]

    assert schema("/v1/chat/completions", "post") == "ErrorBody"
    assert schema("/models/load", "post") == "NodeErrorBody"


def test_what_is_always_written_is_required(document: Any) -> None:
    schemas = document["components"]["schemas"]
    assert {"id", "created", "object", "choices", "usage"} <= set(schemas["ChatCompletion"]["required"])
    assert "progress" not in schemas["ModelInfo"]["required"]
    assert schemas["LoadProgress"]["required"] == ["status"]


def test_the_document_names_no_place_of_this_host(document: Any) -> None:
    assert "/home/" not in json.dumps(document)
    assert document["servers"] == [{"url": "/"}]
