"""What becomes of every field of every request: the table that `tests/daemon/test_every_field.py` proves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from neuron.wire import chat, completions, embeddings, messages, node, responses, tokenize

Body = dict[str, Any]
SAME: Any = object()


@dataclass(frozen=True, kw_only=True)
class Honoured:
    """The value arrives: where it shows, under what is observed of a request."""

    value: Any
    at: str
    """Path: ``wanted`` (the `Generation`), ``prompts``, ``load``, ``answer``, ``events``, ``content_type``."""
    shows: Any = SAME
    """What is found there; the value itself unless said."""
    beside: Body = field(default_factory=dict)
    """Other fields that the value needs."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A value is answered 400 with ``param``; only the neutral ones pass."""

    value: Any
    neutral: Sequence[Any] = ()
    beside: Body = field(default_factory=dict)
    """Other fields that the neutral values need."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Hint:
    """The value has no effect and is named in ``x-neuron-ignored-params``."""

    value: Any


Case = Honoured | Refused | Hint


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request struct."""

    path: str
    struct: type
    base: Body
    """The smallest body that is answered."""
    cases: Mapping[str, Case]


ASKED: Body = {"model": "org/tiny", "messages": [{"role": "user", "content": "hi"}]}
PREFILLED = [*ASKED["messages"], {"role": "assistant", "content": "so"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"name": "weather", "parameters": PARAMETERS}
TOOL = {"type": "function", "function": FUNCTION}
TOOLS = {"tools": [TOOL]}
FLAT_TOOLS = {"tools": [{"type": "function", **FUNCTION}]}
FORMAT = {"name": "city", "schema": PARAMETERS}
REQUIRED = {"tool_choice": "required"}
STORED = "honoured where the settings name a `response_store`"

SAMPLING: Mapping[str, Case] = {
    "temperature": Honoured(value=0.5, at="wanted.sampling.temperature"),
    "top_p": Honoured(value=0.5, at="wanted.sampling.top_p"),
    "top_k": Honoured(value=5, at="wanted.sampling.top_k"),
    "min_p": Honoured(value=0.5, at="wanted.sampling.min_p"),
    "repetition_penalty": Honoured(value=1.5, at="wanted.sampling.repetition_penalty"),
    "presence_penalty": Honoured(value=0.5, at="wanted.sampling.presence_penalty"),
    "frequency_penalty": Honoured(value=0.5, at="wanted.sampling.frequency_penalty"),
    "logit_bias": Honoured(value={"5": -100}, at="wanted.sampling.logit_bias", shows={5: -100}),
    "seed": Honoured(value=7, at="wanted.sampling.seed"),
    "stop_token_ids": Honoured(value=[7], at="wanted.stop_token_ids", shows=frozenset({7})),
    "ignore_eos": Honoured(value=True, at="wanted.ignore_eos"),
    "min_tokens": Honoured(value=2, at="wanted.min_tokens"),
}
STOP: Mapping[str, Case] = {"stop": Honoured(value=["END"], at="wanted.stop", shows=("END",))}
GUIDED: Mapping[str, Case] = {
    "guided_json": Honoured(value=PARAMETERS, at="wanted.constraint.schema"),
    "guided_regex": Honoured(value="a+", at="wanted.constraint.pattern"),
    "guided_grammar": Honoured(value='start: "a"', at="wanted.constraint.grammar"),
}
OFF = (None, False, 0)
FOREIGN_CONSTRAINTS: Mapping[str, Case] = {
    "guided_choice": Refused(value=["a", "b"], neutral=OFF),
    "structured_outputs": Refused(value={"regex": "a"}, neutral=OFF),
    "grammar": Refused(value='root ::= "a"', neutral=[*OFF, ""]),
    "json_schema": Refused(value=PARAMETERS, neutral=OFF),
    "mirostat": Refused(value=2, neutral=OFF),
    "mirostat_tau": Refused(value=5.0, neutral=OFF),
    "mirostat_eta": Refused(value=0.1, neutral=OFF),
    "typical_p": Refused(value=0.9, neutral=[*OFF, 1, 1.0]),
    "dry_multiplier": Refused(value=0.8, neutral=[*OFF, 0.0]),
    "xtc_probability": Refused(value=0.5, neutral=[*OFF, 0.0]),
    "logits_processors": Refused(value=["x"], neutral=[*OFF, []]),
    "min_new_tokens": Refused(value=5, neutral=OFF),
    "bad_words": Refused(value=["x"], neutral=[*OFF, []]),
    "allowed_token_ids": Refused(value=[5], neutral=OFF),
    "prompt_logprobs": Refused(value=1, neutral=OFF),
}
TEXT_CONSTRAINTS: Mapping[str, Case] = {
    **FOREIGN_CONSTRAINTS,
    "best_of": Refused(value=3, neutral=[*OFF, 1]),
    "echo": Refused(value=True, neutral=OFF),
}
BUDGET: Mapping[str, Case] = {
    "reasoning_budget": Honoured(value=9, at="wanted.reasoning_budget"),
    "thinking_budget": Honoured(value=9, at="wanted.reasoning_budget"),
}
TEMPLATE: Mapping[str, Case] = {
    "chat_template_kwargs": Honoured(
        value={"style": "x"}, at="wanted.prompt.template_kwargs.style", shows="x"
    )
}
STREAM: Mapping[str, Case] = {"stream": Honoured(value=True, at="content_type", shows="text/event-stream")}
MODEL: Mapping[str, Case] = {"model": Honoured(value="org/tiny", at="wanted.model_id")}
SCHEMA_FORMAT = Honoured(
    value={"type": "json_schema", "json_schema": FORMAT}, at="wanted.constraint.schema", shows=PARAMETERS
)
USAGE = Honoured(
    value={"include_usage": True}, at="events.-1.usage.prompt_tokens", shows=7, beside={"stream": True}
)

CHAT = Request(
    path="/v1/chat/completions",
    struct=chat.ChatCompletionRequest,
    base=ASKED,
    cases={
        **MODEL,
        "messages": Honoured(value=ASKED["messages"], at="wanted.prompt.messages"),
        **STREAM,
        "stream_options": USAGE,
        "max_tokens": Honoured(value=9, at="wanted.max_tokens"),
        "max_completion_tokens": Honoured(value=9, at="wanted.max_tokens", beside={"max_tokens": 9}),
        **SAMPLING,
        **STOP,
        **TEMPLATE,
        "continue_final_message": Honoured(
            value=True, at="wanted.prompt.continue_final", beside={"messages": PREFILLED}
        ),
        "add_generation_prompt": Honoured(
            value=False, at="wanted.prompt.template_kwargs.add_generation_prompt"
        ),
        "n": Honoured(value=2, at="wanted.n"),
        "tools": Honoured(value=[TOOL], at="wanted.prompt.tools"),
        "tool_choice": Honoured(
            value="required", at="wanted.constraint.tools.0.function.name", shows="weather", beside=TOOLS
        ),
        "parallel_tool_calls": Honoured(
            value=False, at="wanted.constraint.parallel", beside={**TOOLS, **REQUIRED}
        ),
        "functions": Refused(value=[FUNCTION], neutral=[[]]),
        "function_call": Refused(value={"name": "weather"}, neutral=["none", "auto"]),
        "response_format": SCHEMA_FORMAT,
        **GUIDED,
        "logprobs": Honoured(value=True, at="wanted.logprobs", shows=0),
        "top_logprobs": Honoured(value=3, at="wanted.logprobs", beside={"logprobs": True}),
        "reasoning_effort": Honoured(value="low", at="wanted.prompt.template_kwargs.reasoning_effort"),
        **BUDGET,
        "timings": Honoured(value=True, at="answer.timings.prefill_ms", shows=2),
        "modalities": Refused(value=["audio"], neutral=[["text"]]),
        "audio": Refused(value={"voice": "x"}),
        "prediction": Refused(value={"type": "content"}),
        "web_search_options": Refused(value={}),
        "store": Refused(value=True, neutral=[False]),
        **TEXT_CONSTRAINTS,
    },
)

RESPONSES = Request(
    path="/v1/responses",
    struct=responses.ResponsesRequest,
    base={"model": "org/tiny", "input": "hi"},
    cases={
        **MODEL,
        "input": Honoured(value="hello", at="wanted.prompt.messages.-1.content"),
        "instructions": Honoured(value="be brief", at="wanted.prompt.messages.0.content"),
        **STREAM,
        "stream_options": Hint(value={"include_obfuscation": False}),
        "max_output_tokens": Honoured(value=9, at="wanted.max_tokens"),
        **SAMPLING,
        **STOP,
        **BUDGET,
        **GUIDED,
        **TEMPLATE,
        "metadata": Hint(value={"a": "b"}),
        "tools": Honoured(
            value=FLAT_TOOLS["tools"], at="wanted.prompt.tools.0.function.name", shows="weather"
        ),
        "tool_choice": Honoured(
            value="required", at="wanted.constraint.tools.0.function.name", shows="weather", beside=FLAT_TOOLS
        ),
        "parallel_tool_calls": Honoured(
            value=False, at="wanted.constraint.parallel", beside={**FLAT_TOOLS, **REQUIRED}
        ),
        "max_tool_calls": Refused(value=1),
        "text": Honoured(
            value={"format": {"type": "json_schema", **FORMAT}},
            at="wanted.constraint.schema",
            shows=PARAMETERS,
        ),
        "reasoning": Honoured(
            value={"effort": "low"}, at="wanted.prompt.template_kwargs.reasoning_effort", shows="low"
        ),
        "include": Honoured(value=["message.output_text.logprobs"], at="wanted.logprobs", shows=0),
        "top_logprobs": Honoured(
            value=3, at="wanted.logprobs", beside={"include": ["message.output_text.logprobs"]}
        ),
        "truncation": Refused(value="auto", neutral=["disabled"]),
        "background": Refused(value=True, neutral=[False]),
        "store": Refused(value=True, neutral=[False], note=STORED),
        "previous_response_id": Refused(value="resp_1", note=STORED),
        "conversation": Refused(value="conv_1"),
        "prompt": Refused(value={"id": "x"}),
        "context_management": Refused(value=[{"type": "compaction"}], neutral=[[]]),
        **TEXT_CONSTRAINTS,
    },
)

COMPLETIONS = Request(
    path="/v1/completions",
    struct=completions.CompletionRequest,
    base={"model": "org/tiny", "prompt": "so"},
    cases={
        **MODEL,
        "prompt": Honoured(value="hello", at="wanted.prompt.text"),
        **STREAM,
        "stream_options": USAGE,
        "max_tokens": Honoured(value=9, at="wanted.max_tokens"),
        **SAMPLING,
        **STOP,
        "n": Honoured(value=2, at="wanted.n"),
        "best_of": Refused(value=3, neutral=[1]),
        "echo": Honoured(value=True, at="answer.choices.0.text", shows="soHello wörld"),
        "logprobs": Honoured(value=2, at="wanted.logprobs"),
        "suffix": Refused(value="end", neutral=[""]),
        "response_format": SCHEMA_FORMAT,
        **GUIDED,
        **FOREIGN_CONSTRAINTS,
    },
)

NAMED = {"tools": [{"name": "weather", "input_schema": PARAMETERS}]}


def asked(case: Honoured) -> Honoured:
    """The same field where a generation shows it."""
    return Honoured(
        value=case.value,
        at=case.at.replace("prompts.-1", "wanted.prompt"),
        shows=case.shows,
        beside=case.beside,
    )


COUNT: Mapping[str, Honoured] = {
    "messages": Honoured(value=ASKED["messages"], at="prompts.-1.messages"),
    "system": Honoured(value="be brief", at="prompts.-1.messages.0.content"),
    "tools": Honoured(value=NAMED["tools"], at="prompts.-1.tools.0.function.name", shows="weather"),
    "tool_choice": Honoured(value={"type": "none"}, at="prompts.-1.tools", shows=(), beside=NAMED),
    "thinking": Honoured(
        value={"type": "enabled", "budget_tokens": 2048},
        at="prompts.-1.template_kwargs.enable_thinking",
        shows=True,
    ),
    "output_config": Honoured(
        value={"effort": "low"}, at="prompts.-1.template_kwargs.reasoning_effort", shows="low"
    ),
    "chat_template_kwargs": Honoured(value={"style": "x"}, at="prompts.-1.template_kwargs.style", shows="x"),
}
FOREIGN: Mapping[str, Case] = {
    "mcp_servers": Refused(value=[{"type": "url"}], neutral=[[]]),
    "context_management": Refused(value={"edits": [{}]}, neutral=[{}]),
}

MESSAGES = Request(
    path="/v1/messages",
    struct=messages.MessagesRequest,
    base={**ASKED, "max_tokens": 4096},
    cases={
        **MODEL,
        **{name: asked(case) for name, case in COUNT.items()},
        **FOREIGN,
        "max_tokens": Honoured(value=9, at="wanted.max_tokens"),
        **STREAM,
        "stop_sequences": Honoured(value=["END"], at="wanted.stop", shows=("END",)),
        "container": Refused(value="c"),
        **SAMPLING,
    },
)

COUNT_TOKENS = Request(
    path="/v1/messages/count_tokens",
    struct=messages.CountTokensRequest,
    base=ASKED,
    cases={"model": Honoured(value="org/tiny", at="answer.input_tokens", shows=19), **COUNT, **FOREIGN},
)

EMBEDDINGS = Request(
    path="/v1/embeddings",
    struct=embeddings.EmbeddingsRequest,
    base={"model": "org/tiny", "input": "hi"},
    cases={
        "model": Honoured(value="org/tiny", at="answer.model"),
        "input": Honoured(value=["a", "b"], at="prompts.1.text", shows="b"),
        "encoding_format": Honoured(value="base64", at="answer.data.0.embedding", shows="zczMPQAAQEAAAAC/"),
        "dimensions": Refused(value=2, neutral=[3]),
    },
)

CONVERSATION: Mapping[str, Case] = {
    "messages": Honoured(value=ASKED["messages"], at="prompts.-1.messages"),
    "tools": Honoured(value=[TOOL], at="prompts.-1.tools", beside=ASKED),
    "chat_template_kwargs": Honoured(
        value={"style": "x"}, at="prompts.-1.template_kwargs.style", shows="x", beside=ASKED
    ),
    "add_generation_prompt": Honoured(
        value=False, at="prompts.-1.template_kwargs.add_generation_prompt", beside=ASKED
    ),
    "continue_final_message": Honoured(
        value=True, at="prompts.-1.continue_final", beside={"messages": PREFILLED}
    ),
}

TOKENIZE = Request(
    path="/tokenize",
    struct=tokenize.TokenizeRequest,
    base={"model": "org/tiny"},
    cases={
        "model": Honoured(value="org/tiny", at="answer.max_model_len", shows=2048, beside={"prompt": "a"}),
        "prompt": Honoured(value="a", at="prompts.-1.text"),
        "content": Honoured(value="a", at="prompts.-1.text"),
        **CONVERSATION,
        "add_special_tokens": Honoured(value=False, at="prompts.-1.special", beside={"prompt": "a"}),
        "add_special": Honoured(value=True, at="prompts.-1.special", beside={"content": "a"}),
        "parse_special": Refused(value=False, neutral=[True], beside={"prompt": "a"}),
        "return_strs": Honoured(value=True, at="answer.token_strs", shows=["a"], beside={"content": "a"}),
        "return_token_strs": Honoured(
            value=True, at="answer.token_strs", shows=["a"], beside={"content": "a"}
        ),
        "with_pieces": Refused(value=True, neutral=[False], beside={"prompt": "a"}),
    },
)

DETOKENIZE = Request(
    path="/detokenize",
    struct=tokenize.DetokenizeRequest,
    base={"model": "org/tiny", "tokens": [104, 105]},
    cases={
        "tokens": Honoured(value=[104], at="answer.prompt", shows="h"),
        "model": Honoured(value="org/tiny", at="answer.prompt", shows="hi"),
    },
)

APPLY_TEMPLATE = Request(
    path="/apply-template",
    struct=tokenize.ApplyTemplateRequest,
    base=ASKED,
    cases={
        "model": Honoured(value="org/tiny", at="answer.prompt", shows="<user>hi<assistant>"),
        **CONVERSATION,
    },
)

LOAD = Request(
    path="/models/load",
    struct=node.ModelSpec,
    base={"model_id": "a/b"},
    cases={
        "model_id": Honoured(value="a/c", at="load.model_id"),
        "harness": Honoured(value="candle", at="load.harness", shows="torch"),
        "quant": Honoured(value="int8", at="load.quant"),
        "tensor_parallel": Refused(value=2, neutral=[1]),
        "devices": Honoured(value=[0], at="load.devices", shows=(0,)),
        "alias": Honoured(value="mine", at="load.model_id"),
        "dtype": Honoured(value="float16", at="load.dtype"),
        "device": Honoured(value="cpu", at="load.device"),
        "ttl_s": Honoured(value=5.0, at="load.ttl_s"),
        "pin": Honoured(value=True, at="load.pinned"),
        "force": Honoured(value=True, at="load.force"),
        "wait": Honoured(value=True, at="answer.status", shows="loaded"),
    },
)

PLAN = Request(
    path="/models/plan",
    struct=node.PlanRequest,
    base={"model_id": "a/b"},
    cases={
        "model_id": Honoured(value="a/c", at="load.model_id"),
        "harness": Honoured(value="candle", at="load.harness", shows="torch"),
        "quant": Honoured(value="int8", at="load.quant"),
        "tensor_parallel": Refused(value=2, neutral=[1]),
        "devices": Honoured(value=[0], at="load.devices", shows=(0,)),
        "device": Honoured(value="cpu", at="load.device"),
        "dtype": Honoured(value="float16", at="load.dtype"),
    },
)

SHOW = Request(
    path="/models/show",
    struct=node.ShowRequest,
    base={"model_id": "org/tiny"},
    cases={"model_id": Honoured(value="org/tiny", at="answer.model")},
)

DRAIN = Request(
    path="/drain",
    struct=node.DrainRequest,
    base={},
    cases={"timeout_s": Honoured(value=7.5, at="answer.timeout_s")},
)
UNLOAD = Request(
    path="/models/unload",
    struct=node.UnloadRequest,
    base={"model_id": "org/tiny"},
    cases={
        "model_id": Honoured(value="org/tiny", at="answer.status", shows="unloaded"),
        "now": Honoured(value=True, at="unload.1"),
    },
)

REQUESTS = (
    CHAT,
    RESPONSES,
    COMPLETIONS,
    MESSAGES,
    COUNT_TOKENS,
    EMBEDDINGS,
    TOKENIZE,
    DETOKENIZE,
    APPLY_TEMPLATE,
    LOAD,
    PLAN,
    SHOW,
    UNLOAD,
    DRAIN,
)
