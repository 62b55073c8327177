"""The requests by which Open Responses tells whether a server conforms, through the official client, strict about
types: https://www.openresponses.org/compliance. What an image asks for is refused, since models here read text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.support.fake_engine import Call, Piece
from tests.support.fake_engine import Script as Says
from tests.support.node_server import NodeServer
from tests.support.scorecard import Scorecard

ALWAYS_THERE = {
    "id", "object", "created_at", "completed_at", "status", "incomplete_details", "model", "previous_response_id",
    "instructions", "output", "error", "tools", "tool_choice", "truncation", "parallel_tool_calls", "text", "top_p",
    "presence_penalty", "frequency_penalty", "top_logprobs", "temperature", "reasoning", "usage", "user",
    "max_output_tokens", "max_tool_calls", "store", "background", "service_tier", "metadata", "safety_identifier",
    "prompt_cache_key",
}  # fmt: skip
"""Members of a response that are required there."""
NEVER_NULL = {
    "truncation", "parallel_tool_calls", "text", "top_p", "presence_penalty", "frequency_penalty", "top_logprobs",
    "temperature", "store", "background", "service_tier", "metadata", "tools", "tool_choice",
}  # fmt: skip
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "How the weather is",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
CALLED: list[Piece] = [Call(name="weather"), Call('{"city":'), Call('"Rome"}')]
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def said(role: str, content: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


def answered(response: Any) -> None:
    assert response.status == "completed"
    assert response.output


def called(response: Any) -> None:
    assert [item.type for item in response.output] == ["function_call"]


TEMPLATES: dict[str, tuple[dict[str, Any], list[Piece], Callable[[Any], None]]] = {
    "basic": ({"input": [said("user", "Greet me.")]}, ["Hello."], answered),
    "streaming": ({"input": [said("user", "Count.")], "stream": True}, ["1 ", "2"], answered),
    "system prompt": ({"input": [said("system", "Be kind."), said("user", "Hi")]}, ["Dear!"], answered),
    "tool calling": ({"input": [said("user", "Is it hot in Rome?")], "tools": [WEATHER]}, CALLED, called),
    "tool calling, streaming": (
        {"input": [said("user", "Is it hot in Rome?")], "tools": [WEATHER], "stream": True}, CALLED, called,
    ),
    "several turns": (
        {"input": [said("user", "I am Ada."), said("assistant", "Hello, Ada."), said("user", "Who am I?")]},
        ["Ada."],
        answered,
    ),
}  # fmt: skip
"""Name -> the request, what the model says, and what must be true of the response."""
IMAGE = [
    said("user", [{"type": "input_text", "text": "What is it?"}, {"type": "input_image", "image_url": PIXEL}])
]


@pytest.fixture(scope="module")
def tally(scorecard: Scorecard) -> Any:
    passed: set[str] = set()
    yield passed
    n, n_all = len(passed & TEMPLATES.keys()), len(TEMPLATES) + 1
    figure = f"Open Responses: {n} of {n_all} templates"
    figure += ", the one with an image is refused by name" if "image" in passed else ""
    scorecard(40, figure, "all templates, all, all", n == n_all)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_gets_a_whole_response(node: NodeServer, tally: set[str], name: str) -> None:
    asked, says, check = TEMPLATES[name]
    node.engine.script = Says(texts=says)
    with openai.OpenAI(
        base_url=f"{node.url}/v1", api_key="none", max_retries=0, _strict_response_validation=True
    ) as client:
        answer = client.responses.create(model="org/tiny", **asked)
        events = list(answer) if asked.get("stream") else []
        response: Any = events[-1].response if events else answer
    members = response.model_dump(exclude_unset=True)
    assert members.keys() >= ALWAYS_THERE
    assert [name for name in NEVER_NULL if members[name] is None] == []
    check(response)
    if events and says is CALLED:
        calls_are_streamed(events)
    tally.add(name)


def calls_are_streamed(events: list[Any]) -> None:
    """Both ends of the item and of its arguments are told."""
    types = [event.type.removeprefix("response.") for event in events]
    assert {"function_call_arguments.delta", "function_call_arguments.done"} <= set(types)
    items = {
        event.type.removeprefix("response."): event.item.type for event in events if hasattr(event, "item")
    }
    assert items == {"output_item.added": "function_call", "output_item.done": "function_call"}


def test_an_image_is_refused_by_name(node: NodeServer, tally: set[str]) -> None:
    status, _, answer = node.post("/v1/responses", {"model": "org/tiny", "input": IMAGE})
    assert status == 400
    assert "input_image" in answer["error"]["message"]
    tally.add("image")
