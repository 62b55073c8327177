"""Nothing is accepted and ignored: each field of each request is honoured, refused by name, or named as a hint.

`docs/conformance.md` is this table; `make conformance` writes it.
"""

from __future__ import annotations

import json
from dataclasses import is_dataclass
from typing import Any

import msgspec
import pytest

from neuron.daemon.operations import OPERATIONS
from neuron.engine.request import Generation
from neuron.wire.event_stream import read_events
from tests.support.conformance import field_id
from tests.support.field_cases import REQUESTS, SAME, Hint, Honoured, Refused, Request
from tests.support.node_server import NodeServer

CASES = [
    pytest.param(request, name, id=field_id(request, name)) for request in REQUESTS for name in request.cases
]


def test_every_field_of_every_request_is_in_the_table() -> None:
    assert {(r.path, r.struct) for r in REQUESTS} == {(o.path, o.body) for o in OPERATIONS if o.body}
    for request in REQUESTS:
        fields = msgspec.structs.fields(request.struct)  # type: ignore[arg-type]
        assert set(request.cases) == {field.encode_name for field in fields}, request.path


@pytest.mark.parametrize(("request_", "name"), CASES)
def test_a_field(node: NodeServer, request_: Request, name: str) -> None:
    case = request_.cases[name]
    match case:
        case Honoured():
            assert_honoured(node, request_, name, case)
        case Refused():
            assert_refused(node, request_, name, case)
        case Hint():
            _, headers, _ = answered(node, request_, {name: case.value})
            assert name in headers["x-neuron-ignored-params"]


def assert_honoured(node: NodeServer, request: Request, name: str, case: Honoured) -> None:
    got: list[Generation] = []
    node.engine.on_submit = got.append
    _, headers, answer = answered(node, request, {**case.beside, name: case.value})
    observed = {
        "wanted": got[-1] if got else None,
        "prompts": node.engine.prompts,
        "load": node.engine.loads[-1][0] if node.engine.loads else None,
        "unload": node.engine.unloads[-1] if node.engine.unloads else None,
        "answer": answer,
        "events": events_of(answer),
        "content_type": headers["content-type"].partition(";")[0],
    }
    assert at(observed, case.at) == (case.value if case.shows is SAME else case.shows)
    assert "x-neuron-ignored-params" not in headers


def answered(node: NodeServer, request: Request, said: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
    found = node.post(request.path, {**request.base, **said})
    assert found[0] in (200, 202), found
    return found


def events_of(answer: Any) -> list[Any]:
    if not isinstance(answer, bytes):
        return []
    return [json.loads(event.data) for event in read_events([answer]) if event.data != "[DONE]"]


def at(value: Any, path: str) -> Any:
    """The value under ``a.0.b``: attributes, keys, places."""
    for part in path.split("."):
        if isinstance(value, dict):
            value = value[part]
        elif is_dataclass(value):
            value = getattr(value, part)
        else:
            value = value[int(part)]
    return value


def assert_refused(node: NodeServer, request: Request, name: str, case: Refused) -> None:
    status, _, body = node.post(request.path, {**request.base, name: case.value})
    assert status in (400, 422), body
    assert name in json.dumps(body), body
    for neutral in case.neutral:
        answered(node, request, {**case.beside, name: neutral})
