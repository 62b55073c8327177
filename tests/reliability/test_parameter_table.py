"""Every field of every text API with every kind of value that it does not take: refused, and by its name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import pytest

from neuron.daemon import body
from neuron.daemon.projection import limits
from neuron.daemon.projection.limits import LIMITS
from tests.reliability.wrong_combinations import COMBINATIONS, Combination
from tests.support.fake_engine import FakeEngine
from tests.support.field_cases import (
    APPLY_TEMPLATE,
    CHAT,
    COMPLETIONS,
    COUNT_TOKENS,
    DETOKENIZE,
    EMBEDDINGS,
    MESSAGES,
    RESPONSES,
    TOKENIZE,
    Request,
)
from tests.support.node_server import NodeServer, node_server
from tests.support.scorecard import Scorecard
from tests.support.wrong_values import DEEP, Wrong, is_number, with_value, wrong_values

APIS = (
    CHAT,
    RESPONSES,
    COMPLETIONS,
    MESSAGES,
    COUNT_TOKENS,
    EMBEDDINGS,
    TOKENIZE,
    DETOKENIZE,
    APPLY_TEMPLATE,
)
TARGET = 1500
tried: set[tuple[str, str, str]] = set()
"""Path, field and fault of every case that was answered as it must be."""


class Refusal(NamedTuple):
    """What of an answer all formats tell."""

    status: int
    code: str | None
    param: str | None
    message: str


@pytest.fixture(scope="module")
def node() -> Iterator[NodeServer]:
    with node_server(FakeEngine()) as running:
        yield running


def refusal(path: str, status: int, answer: Any) -> Refusal:
    """The error of an answer, in the format of its path; anything else fails."""
    assert 400 <= status < 500, (status, answer)
    if path.startswith("/v1/messages"):
        assert set(answer) == {"type", "error", "request_id"}
        assert set(answer["error"]) == {"type", "message"}
        return Refusal(status, None, None, answer["error"]["message"])
    if path.startswith("/v1/"):
        assert set(answer["error"]) == {"message", "type", "param", "code"}
        return Refusal(status, answer["error"]["code"], answer["error"]["param"], answer["error"]["message"])
    return Refusal(status, answer["code"], None, answer["error"])


def names(found: Refusal, param: str) -> bool:
    """Whether the refusal is about that field, or something in it; formats without ``param`` say it in words."""
    said = found.param if found.param is not None else found.message
    begins = said.removeprefix("missing required parameter: ")
    return begins == param or begins.startswith((f"{param}.", f"{param}[", f"{param} ", f"{param}:"))


def out_of_range(struct: type, field: str) -> Iterator[Wrong]:
    """The nearest values on either side of the field's limits."""
    if (limit := LIMITS.get(field)) is None or not is_number(struct, field):
        return
    below = limit.low if limit.open_low else limit.low - 1
    for value in (below, limit.high + 1, -(2**63) - 1, 1e300, -1e300):
        if value not in limit:
            yield Wrong(f"{value}", repr(value), False)


FIELDS = [(api, name) for api in APIS for name in (f.encode_name for f in msgspec.structs.fields(api.struct))]


@pytest.mark.parametrize(("api", "field"), FIELDS, ids=lambda at: at if isinstance(at, str) else at.path)
def test_what_a_field_does_not_take_is_refused_by_its_name(
    node: NodeServer, api: Request, field: str
) -> None:
    for wrong in [*wrong_values(api.struct, field), *out_of_range(api.struct, field)]:
        status, _, answer = node.post(api.path, with_value(api.base, field, wrong.text))
        found = refusal(api.path, status, answer)
        if wrong.malformed:
            assert found.code in ("malformed_json", None), (wrong.what, found)
            assert "the body" in found.message, (wrong.what, found)
        else:
            assert names(found, field), (wrong.what, found)
        tried.add((api.path, field, wrong.what))
    assert node.engine.streams == []


@pytest.mark.parametrize("case", COMBINATIONS, ids=lambda case: f"{case.path} {case.what}")
def test_what_does_not_go_together_is_refused_by_name(node: NodeServer, case: Combination) -> None:
    found = refusal(case.path, *node.post(case.path, case.body)[::2])
    assert names(found, case.param), found
    assert node.engine.streams == []
    tried.add((case.path, case.param, case.what))


def test_afterwards_the_node_answers_and_enough_was_tried(node: NodeServer, scorecard: Scorecard) -> None:
    if len(tried) < TARGET:
        pytest.skip("counted only where the whole file runs")
    for api in APIS:
        whole = {**api.base, "content": "hi"} if api is TOKENIZE else api.base
        assert node.post(api.path, whole)[0] == 200
    figure = f"{len(tried)} cases: all 4xx, and by name wherever the JSON parses"
    scorecard(33, figure, f">= {TARGET}; all 4xx, right param", True)


def test_without_the_limits_the_same_values_pass(node: NodeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "within", lambda name, value, param=None: value)
    for wrong in out_of_range(CHAT.struct, "temperature"):
        assert node.post(CHAT.path, with_value(CHAT.base, "temperature", wrong.text))[0] == 200


def test_without_the_bound_of_depth_a_deep_value_reaches_the_types(
    node: NodeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "MAX_DEPTH", 1000)
    status, _, answer = node.post(CHAT.path, with_value(CHAT.base, "seed", DEEP))
    assert (status, answer["error"]["code"]) == (400, "invalid_value")
