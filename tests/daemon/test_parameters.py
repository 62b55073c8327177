"""The table of limits drives the cases: each field at, just inside and just outside its range, in every format."""

from __future__ import annotations

from typing import Any

import pytest

from neuron.daemon.projection.limits import INT64, LIMITS, SAMPLING, Limit
from neuron.engine.request import Generation
from tests.support.node_server import NodeServer

COUNTS = ["n", "min_tokens", "top_logprobs", "reasoning_budget", "thinking_budget"]
INTEGERS = {"top_k", "seed", "max_tokens", "max_completion_tokens", "max_output_tokens", "logprobs", *COUNTS}
CHAT = ("/v1/chat/completions", {"model": "org/tiny", "messages": [{"role": "user", "content": "hi"}]})
RESPONSES = ("/v1/responses", {"model": "org/tiny", "input": "hi"})
COMPLETIONS = ("/v1/completions", {"model": "org/tiny", "prompt": "hi"})
MESSAGES = ("/v1/messages", {**CHAT[1], "max_tokens": 2**62})
FIELDS = {
    CHAT[0]: [*SAMPLING, "max_tokens", "max_completion_tokens", *COUNTS],
    RESPONSES[0]: [*SAMPLING, "max_output_tokens", *COUNTS[1:]],
    COMPLETIONS[0]: [*SAMPLING, "max_tokens", "n", "min_tokens", "logprobs"],
    MESSAGES[0]: [*SAMPLING, "max_tokens", "min_tokens"],
}
BODIES = dict([CHAT, RESPONSES, COMPLETIONS])
"""Of the formats that tell ``param`` in an error."""
SAID_WITH: dict[tuple[str, str], dict[str, Any]] = {
    (CHAT[0], "top_logprobs"): {"logprobs": True},
    (RESPONSES[0], "top_logprobs"): {"include": ["message.output_text.logprobs"]},
    (COMPLETIONS[0], "min_tokens"): {"max_tokens": 2**62},
}
"""What a field can't be said without."""
ENGINE_NAMES = {"top_logprobs": "logprobs", "thinking_budget": "reasoning_budget"}
UNSAID = {"n": 1, "min_tokens": 0, "top_logprobs": 0, (COMPLETIONS[0], "max_tokens"): 16}
REQUIRED = {(MESSAGES[0], "max_tokens")}
ALL = {**BODIES, MESSAGES[0]: MESSAGES[1]}
CASES = [(path, field) for path, fields in FIELDS.items() for field in fields]


def step(field: str) -> float:
    return 1 if field in INTEGERS else 1e-6


def outside(field: str) -> list[Any]:
    limit = LIMITS[field]
    below = limit.low if limit.open_low else limit.low - step(field)
    values = [below, limit.high + step(field), "1", True, [], {}, 2**64, -(2**64), 10**400, -(10**400)]
    values += [0.5] if field in INTEGERS else []
    return [v for v in values if not (limit.zero and v == 0)] + ([1e-320] if field == "temperature" else [])


def inside(field: str) -> list[Any]:
    limit = LIMITS[field]
    low = limit.low + step(field) if limit.open_low else limit.low
    return [low, limit.high, None, *([0] if limit.zero else [])]


def submitted(node: NodeServer) -> list[Generation]:
    got: list[Generation] = []
    node.engine.on_submit = got.append
    return got


@pytest.mark.parametrize(("path", "field"), CASES)
def test_a_value_outside_its_range_is_refused_by_name(node: NodeServer, path: str, field: str) -> None:
    got = submitted(node)
    for value in outside(field):
        status, _, body = node.post(path, {**ALL[path], field: value})
        assert status == 400, (field, value, body)
        assert named(body["error"]) == field or abs(value) > 10**300, (value, body)
    assert got == []


def named(error: dict[str, Any]) -> str | None:
    """The parameter that an error is about; Anthropic's has it at the beginning of its message."""
    if "param" not in error:
        return str(error["message"]).split(" ")[0].rstrip(":")
    assert error["code"] in ("invalid_value", "malformed_json")
    return error["param"]


@pytest.mark.parametrize(("path", "field"), CASES)
def test_a_value_at_the_edge_of_its_range_reaches_the_engine(node: NodeServer, path: str, field: str) -> None:
    got = submitted(node)
    said_with = SAID_WITH.get((path, field), {})
    unsaid = UNSAID.get((path, field), UNSAID.get(field))
    for value in inside(field):
        if value is None and (path, field) in REQUIRED:
            continue
        status, _, body = node.post(path, {**ALL[path], field: value, **said_with})
        assert status == 200, (field, value, body)
        assert seen(got.pop(), field) == (unsaid if value is None else value)


def seen(wanted: Generation, field: str) -> Any:
    """What the engine is asked for by a field of the wire."""
    if field in SAMPLING:
        return getattr(wanted.sampling, field)
    return getattr(wanted, ENGINE_NAMES.get(field, field) if field in (*COUNTS, "logprobs") else "max_tokens")


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000])
@pytest.mark.parametrize("path", BODIES)
def test_numbers_that_json_lacks_are_malformed(node: NodeServer, path: str, word: str) -> None:
    status, _, body = node.post(path, b'{"model": "org/tiny", "temperature": ' + word.encode() + b"}")
    assert (status, body["error"]["code"]) == (400, "malformed_json")


NO_TEMPLATE = {(COMPLETIONS[0], "chat_template_kwargs")}
BAD_LISTS: list[tuple[str, Any, str]] = [
    ("stop", [""], "stop"),
    ("stop", "", "stop"),
    ("stop", ["x"] * 17, "stop"),
    ("stop", "é" * 129, "stop"),
    ("stop", [1], "stop[0]"),
    ("stop_token_ids", [-1], "stop_token_ids"),
    ("stop_token_ids", [2**31], "stop_token_ids"),
    ("stop_token_ids", list(range(301)), "stop_token_ids"),
    ("stop_token_ids", [True], "stop_token_ids[0]"),
    ("logit_bias", {"5": 100.5}, "logit_bias.5"),
    ("logit_bias", {"5": -101}, "logit_bias.5"),
    ("logit_bias", {"-1": 1}, "logit_bias"),
    ("logit_bias", {"a": 1}, "logit_bias"),
    ("logit_bias", {"²": 1}, "logit_bias"),
    ("logit_bias", {str(i): 1 for i in range(301)}, "logit_bias"),
    ("chat_template_kwargs", {"messages": []}, "chat_template_kwargs"),
    ("chat_template_kwargs", {"add_generation_prompt": False}, "chat_template_kwargs"),
]


@pytest.mark.parametrize(
    ("path", "field", "value", "param"),
    [(path, *case) for path in BODIES for case in BAD_LISTS if (path, case[0]) not in NO_TEMPLATE],
)
def test_bad_lists_are_refused_by_name(
    node: NodeServer, path: str, field: str, value: Any, param: str
) -> None:
    status, _, body = node.post(path, {**BODIES[path], field: value})
    assert (status, body["error"]["param"]) == (400, param), body


def test_every_sampling_parameter_reaches_the_engine(node: NodeServer) -> None:
    got = submitted(node)
    said = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
        "presence_penalty": -0.5,
        "frequency_penalty": 0.5,
        "seed": -3,
    }
    extra = {"logit_bias": {"5": -100, "7": 2.5}, "stop": "END", "stop_token_ids": [3], "ignore_eos": True}
    for path, body in BODIES.items():
        assert node.post(path, {**body, **said, **extra})[0] == 200
        wanted = got.pop()
        assert {name: getattr(wanted.sampling, name) for name in said} == said
        assert wanted.sampling.logit_bias == {5: -100, 7: 2.5}
        assert (wanted.stop, wanted.stop_token_ids, wanted.ignore_eos) == (("END",), {3}, True)


def test_what_is_not_said_is_left_to_the_model(node: NodeServer) -> None:
    got = submitted(node)
    assert node.post(*CHAT)[0] == 200
    assert all(getattr(got[0].sampling, name) is None for name in SAMPLING)
    assert got[0].max_tokens is None


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (LIMITS["max_tokens"], "at least 1"),
        (LIMITS["top_k"], "0 to 2147483647"),
        (LIMITS["temperature"], "0 or 0.001 to 2"),
        (LIMITS["top_p"], "more than 0 to 1"),
        (Limit(-INT64, INT64 - 1), f"{-(2**63)} to {2**63 - 1}"),
    ],
)
def test_a_range_is_told_in_whole_numbers_where_it_has_them(limit: Limit, words: str) -> None:
    assert str(limit) == words


def test_the_two_names_of_the_limit_may_not_say_two_limits(node: NodeServer) -> None:
    got = submitted(node)
    assert node.post(CHAT[0], {**CHAT[1], "max_tokens": 9, "max_completion_tokens": 9})[0] == 200
    assert got[0].max_tokens == 9
    status, _, body = node.post(CHAT[0], {**CHAT[1], "max_tokens": 5, "max_completion_tokens": 9})
    assert (status, body["error"]["param"]) == (400, "max_completion_tokens")
    assert body["error"]["code"] == "invalid_value"
    assert len(got) == 1


@pytest.mark.parametrize("path", [CHAT[0], "/v1/responses"])
@pytest.mark.parametrize(("choice", "named"), [("none", None), ("auto", "parallel_tool_calls")])
def test_no_calls_are_no_parallel_calls(node: NodeServer, path: str, choice: str, named: str | None) -> None:
    body = {"model": "org/tiny", "input": "hi"} if path == "/v1/responses" else CHAT[1]
    said = {**body, "tool_choice": choice, "parallel_tool_calls": False}
    status, headers, _ = node.post(path, said)
    assert (status, headers.get("x-neuron-ignored-params")) == (200, named)


UNSUPPORTED = "unsupported_parameter"
REFUSED: dict[str, list[tuple[str, Any]]] = {
    CHAT[0]: [
        ("functions", [{}]),
        ("function_call", {"name": "x"}),
        ("modalities", ["audio"]),
        ("audio", {"voice": "x"}),
        ("prediction", {"type": "content"}),
        ("web_search_options", {}),
        ("store", True),
    ],
    RESPONSES[0]: [
        ("max_tool_calls", 1),
        ("truncation", "auto"),
        ("background", True),
        ("conversation", "conv_1"),
        ("prompt", {"id": "x"}),
    ],
}
NEUTRAL: dict[str, dict[str, Any]] = {
    CHAT[0]: {
        "n": 1,
        "tools": [],
        "tool_choice": "auto",
        "functions": [],
        "function_call": "none",
        "response_format": {"type": "text"},
        "logprobs": False,
        "top_logprobs": 0,
        "reasoning_effort": None,
        "modalities": ["text"],
        "audio": None,
        "store": False,
        "timings": False,
        "continue_final_message": False,
        "add_generation_prompt": True,
        "min_tokens": 0,
    },
    COMPLETIONS[0]: {
        "suffix": "",
        "n": 1,
        "best_of": 1,
        "echo": False,
        "response_format": {"type": "text"},
    },
    RESPONSES[0]: {
        "tools": [],
        "tool_choice": "none",
        "text": {"format": {"type": "text"}},
        "reasoning": {"effort": None},
        "top_logprobs": 0,
        "include": ["reasoning.encrypted_content"],
        "truncation": "disabled",
        "background": False,
        "store": False,
    },
}


@pytest.mark.parametrize(("path", "field", "value"), [(p, f, v) for p in REFUSED for f, v in REFUSED[p]])
def test_a_constraint_that_is_not_honoured_is_refused(
    node: NodeServer, path: str, field: str, value: Any
) -> None:
    status, _, body = node.post(path, {**BODIES[path], field: value})
    assert status == 400, body
    assert (body["error"]["code"], body["error"]["param"]) == ("unsupported_parameter", field)


@pytest.mark.parametrize("path", BODIES)
def test_neutral_values_of_constraints_pass(node: NodeServer, path: str) -> None:
    for field, value in NEUTRAL[path].items():
        assert node.post(path, {**BODIES[path], field: value})[0] == 200, field
    status, headers, _ = node.post(path, {**BODIES[path], **NEUTRAL[path]})
    assert status == 200
    assert headers.get("x-neuron-ignored-params", "include") == "include"


def test_a_chained_conversation_has_its_own_code(node: NodeServer) -> None:
    status, _, body = node.post(RESPONSES[0], {**RESPONSES[1], "previous_response_id": "resp_1"})
    assert status == 400
    assert body["error"]["code"] == body["code"] == "chained_conversation_not_supported"
    assert body["error"]["param"] == "previous_response_id"


def test_hints_and_unknown_fields_pass_and_are_named(node: NodeServer) -> None:
    hints = ["user", "metadata", "service_tier", "prompt_cache_key", "safety_identifier", "verbosity", "x_y"]
    status, headers, _ = node.post(CHAT[0], {**CHAT[1], **dict.fromkeys(hints, "v"), "bad\r\nname": 1})
    assert status == 200
    assert headers["x-neuron-ignored-params"].split(", ") == hints
    options = {"stream": True, "stream_options": {"include_obfuscation": False}}
    _, headers, _ = node.post(CHAT[0], {**CHAT[1], **options})
    assert headers["x-neuron-ignored-params"] == "stream_options.include_obfuscation"


def test_nothing_ignored_is_no_header(node: NodeServer) -> None:
    assert "x-neuron-ignored-params" not in node.post(*CHAT)[1]


def test_stream_options_need_a_stream(node: NodeServer) -> None:
    status, _, body = node.post(CHAT[0], {**CHAT[1], "stream_options": {"include_usage": True}})
    assert (status, body["error"]["param"]) == (400, "stream_options")
