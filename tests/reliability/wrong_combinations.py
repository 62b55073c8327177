"""Values that each are fine and together mean nothing, or that are wrong inside: one row a case."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.support.field_cases import (
    CHAT,
    COMPLETIONS,
    DETOKENIZE,
    EMBEDDINGS,
    FLAT_TOOLS,
    MESSAGES,
    NAMED,
    RESPONSES,
    TOKENIZE,
    TOOL,
    TOOLS,
    Request,
)


class Combination(NamedTuple):
    """A request, what is wrong with it and the parameter that is to be named."""

    path: str
    what: str
    body: dict[str, Any]
    param: str


def _of(api: Request, rows: list[tuple[str, dict[str, Any], str]]) -> list[Combination]:
    return [Combination(api.path, what, {**api.base, **said}, param) for what, said, param in rows]


ONE_OF = "exactly one of prompt, content and messages"
USER = {"role": "user", "content": "hi"}
TEXT = [
    ("17 stops", {"stop": ["x"] * 17}, "stop"),
    ("an empty stop", {"stop": [""]}, "stop"),
    ("a stop of 257 bytes", {"stop": "x" * 257}, "stop"),
    ("a stop that is a number", {"stop": ["x", 1]}, "stop"),
    ("a negative stop id", {"stop_token_ids": [-1]}, "stop_token_ids"),
    ("a stop id of 32 bits", {"stop_token_ids": [2**31]}, "stop_token_ids"),
    ("301 stop ids", {"stop_token_ids": list(range(301))}, "stop_token_ids"),
    ("a bias over 100", {"logit_bias": {"5": 100.5}}, "logit_bias"),
    ("a bias for a negative id", {"logit_bias": {"-1": 1}}, "logit_bias"),
    ("a bias for a word", {"logit_bias": {"the": 1}}, "logit_bias"),
    ("a bias of a text", {"logit_bias": {"5": "1"}}, "logit_bias"),
    ("301 biases", {"logit_bias": {str(n): 1 for n in range(301)}}, "logit_bias"),
    ("a temperature of 1e-320", {"temperature": 1e-320}, "temperature"),
    ("a schema that is no JSON", {"guided_json": "{"}, "guided_json"),
    ("two constraints", {"guided_regex": "a", "guided_grammar": 'start: "a"'}, "guided_regex"),
]
OPTIONS = [("options of a stream without one", {"stream_options": {"include_usage": True}}, "stream_options")]
FORMATS = [
    ("a format without a type", {"response_format": {}}, "response_format"),
    ("an unknown format", {"response_format": {"type": "yaml"}}, "response_format"),
    ("a schema format without a schema", {"response_format": {"type": "json_schema"}}, "response_format"),
    (
        "a schema that is a list",
        {"response_format": {"type": "json_schema", "json_schema": []}},
        "response_format",
    ),
]
CALLS = [
    ("a choice without tools", {"tool_choice": "required"}, "tool_choice"),
    (
        "a choice of a tool that is not there",
        {**TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}},
        "tool_choice",
    ),
    ("an unknown choice", {**TOOLS, "tool_choice": "perhaps"}, "tool_choice"),
    ("a tool that is a text", {"tools": ["weather"]}, "tools"),
    ("a tool without a function", {"tools": [{"type": "function"}]}, "tools"),
    ("a tool of an unknown type", {"tools": [{"type": "browser"}]}, "tools"),
    ("a tool without a name", {"tools": [{"type": "function", "function": {}}]}, "tools"),
    ("two tools of one name", {"tools": [TOOL, TOOL]}, "tools"),
    (
        "parameters that are a list",
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
        "tools",
    ),
]
MESSAGE_LISTS = [
    ("no messages", [], "messages"),
    ("a message that is a text", ["hi"], "messages"),
    ("a message without a role", [{"content": "x"}], "messages"),
    ("a role that is unknown", [{"role": "robot", "content": "x"}], "messages"),
    ("a role that is a list", [{"role": ["user"], "content": "x"}], "messages"),
    ("content that is a number", [{"role": "user", "content": 5}], "messages"),
    ("content that is an object", [{"role": "user", "content": {}}], "messages"),
    (
        "a picture",
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/"}}]}],
        "messages",
    ),
    ("a part without a text", [{"role": "user", "content": [{"type": "text"}]}], "messages"),
    ("a part that is a number", [{"role": "user", "content": [5]}], "messages"),
    ("the second message is wrong", [USER, {"role": "user", "content": [{"type": "x"}]}], "messages"),
]
COMBINATIONS: list[Combination] = [
    *_of(CHAT, [*TEXT, *OPTIONS, *FORMATS, *CALLS]),
    *_of(CHAT, [(what, {"messages": value}, param) for what, value, param in MESSAGE_LISTS]),
    *_of(
        CHAT,
        [
            ("likelihoods without their switch", {"top_logprobs": 3}, "top_logprobs"),
            ("a least over the most", {"min_tokens": 9, "max_tokens": 5}, "min_tokens"),
            (
                "calls that are a text",
                {"messages": [USER, {"role": "assistant", "tool_calls": "x"}]},
                "messages",
            ),
            ("to go on with a user's message", {"continue_final_message": True}, "continue_final_message"),
            (
                "a template from outside",
                {"chat_template_kwargs": {"chat_template": "x"}},
                "chat_template_kwargs",
            ),
            ("messages by the side door", {"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
            ("tools by the side door", {"chat_template_kwargs": {"tools": []}}, "chat_template_kwargs"),
            ("an unknown effort", {"reasoning_effort": "enormous"}, "reasoning_effort"),
        ],
    ),
    *_of(RESPONSES, TEXT),
    *_of(
        RESPONSES,
        [
            ("no items", {"input": []}, "input"),
            ("an unknown item", {"input": [{"type": "computer_call"}]}, "input"),
            ("a picture", {"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input"),
            ("a call without an id", {"input": [{"type": "function_call"}]}, "input"),
            ("an item that is a number", {"input": [5]}, "input"),
            ("an unknown format", {"text": {"format": {"type": "yaml"}}}, "text"),
            ("a schema format without a schema", {"text": {"format": {"type": "json_schema"}}}, "text"),
            ("an unknown effort", {"reasoning": {"effort": "enormous"}}, "reasoning"),
            ("a choice without tools", {"tool_choice": "required"}, "tool_choice"),
            ("an unknown choice", {**FLAT_TOOLS, "tool_choice": "perhaps"}, "tool_choice"),
            ("a response that nobody kept", {"previous_response_id": "resp_1"}, "previous_response_id"),
        ],
    ),
    *_of(COMPLETIONS, [*TEXT, *OPTIONS, *FORMATS]),
    *_of(
        COMPLETIONS,
        [
            ("no prompts", {"prompt": []}, "prompt"),
            ("texts and ids together", {"prompt": ["a", 1]}, "prompt"),
            ("an object among prompts", {"prompt": [{}]}, "prompt"),
            ("an empty list of ids", {"prompt": [[]]}, "prompt"),
            ("a least over the most", {"min_tokens": 9, "max_tokens": 5}, "min_tokens"),
        ],
    ),
    *_of(MESSAGES, [(what, {"messages": value}, param) for what, value, param in MESSAGE_LISTS]),
    *_of(
        MESSAGES,
        [
            ("17 stops", {"stop_sequences": ["x"] * 17}, "stop_sequences"),
            ("an empty stop", {"stop_sequences": [""]}, "stop_sequences"),
            (
                "a choice of a tool that is not there",
                {**NAMED, "tool_choice": {"type": "tool", "name": "x"}},
                "tool_choice",
            ),
            ("an unknown choice", {**NAMED, "tool_choice": {"type": "perhaps"}}, "tool_choice"),
            ("a tool without a name", {"tools": [{"input_schema": {}}]}, "tools"),
            ("a schema that is a list", {"tools": [{"name": "f", "input_schema": []}]}, "tools"),
            ("thoughts without a budget", {"thinking": {"type": "enabled"}}, "thinking"),
            ("an unknown kind of thoughts", {"thinking": {"type": "perhaps"}}, "thinking"),
            ("an unknown effort", {"output_config": {"effort": "enormous"}}, "output_config"),
            ("a least over the most", {"min_tokens": 9, "max_tokens": 5}, "min_tokens"),
        ],
    ),
    *_of(
        EMBEDDINGS,
        [
            ("no texts", {"input": []}, "input"),
            ("texts and ids together", {"input": ["a", 1]}, "input"),
            ("an unknown encoding", {"encoding_format": "hex"}, "encoding_format"),
            ("no dimensions", {"dimensions": 0}, "dimensions"),
            ("a million dimensions", {"dimensions": 1_000_000}, "dimensions"),
        ],
    ),
    *_of(
        TOKENIZE,
        [
            ("two names of the text", {"prompt": "a", "content": "b"}, ONE_OF),
            ("a text and a conversation", {"prompt": "a", "messages": [USER]}, ONE_OF),
        ],
    ),
    *_of(
        DETOKENIZE,
        [
            ("a negative id", {"tokens": [-1]}, "the prompt"),
            ("an id of 65 bits", {"tokens": [2**64]}, "the prompt"),
            ("an id that is a text", {"tokens": ["1"]}, "tokens"),
        ],
    ),
]
