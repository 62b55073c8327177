"""``POST /v1/responses``: request, final object, stream events."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from neuron.wire.foreign import TextConstraints
from neuron.wire.response_items import OutputItem, OutputText, OutputTokenLogprob, ReasoningText


class ResponsesRequest(TextConstraints, kw_only=True, omit_defaults=True):
    """Every parameter that this build knows, honoured or refused. Null and left out mean the same."""

    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None

    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool | None = None
    min_tokens: int | None = None
    reasoning_budget: int | None = None
    thinking_budget: int | None = None
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_grammar: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    metadata: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    truncation: str | None = None
    background: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
    context_management: Any = None


class InputTokensDetails(msgspec.Struct, kw_only=True):
    """Of the prompt's tokens."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokensDetails(msgspec.Struct, kw_only=True):
    """Of the answer's tokens."""

    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct, kw_only=True):
    """Counts of tokens."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens_details: OutputTokensDetails


class ResponseError(msgspec.Struct, kw_only=True):
    """Why a response failed; ``code`` is one of the words official clients know."""

    code: str
    message: str


class IncompleteDetails(msgspec.Struct, kw_only=True):
    """Why a response ended early."""

    reason: Literal["max_output_tokens", "content_filter"]


class Response(msgspec.Struct, kw_only=True):
    """The answer as an object; in a stream, as far as it is."""

    id: str
    created_at: int
    model: str
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    output: list[OutputItem]
    object: Literal["response"] = "response"
    background: bool = False
    completed_at: int | None = None
    error: ResponseError | None = None
    frequency_penalty: float | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    parallel_tool_calls: bool = True
    presence_penalty: float | None = None
    previous_response_id: str | None = None
    prompt_cache_key: str | None = None
    reasoning: dict[str, Any] = msgspec.field(default_factory=lambda: {"effort": None, "summary": None})
    safety_identifier: str | None = None
    service_tier: str = "default"
    store: bool = False
    temperature: float | None = None
    text: dict[str, Any] = msgspec.field(default_factory=lambda: {"format": {"type": "text"}})
    tool_choice: str | dict[str, Any] = "auto"
    tools: list[Any] = msgspec.field(default_factory=list)
    top_logprobs: int | None = None
    top_p: float | None = None
    truncation: str = "disabled"
    user: str | None = None
    system_fingerprint: str | None = None
    usage: ResponseUsage | None = None


class ResponseEvent(msgspec.Struct, kw_only=True):
    """``created``, ``in_progress``, ``completed``, ``incomplete``, ``failed``."""

    type: str
    response: Response
    sequence_number: int = 0
    """Counts every event of a stream from 0; whoever sends it sets it."""


class ItemEvent(msgspec.Struct, kw_only=True):
    """What every event says that belongs to an output item."""

    output_index: int
    sequence_number: int = 0


class OutputItemEvent(ItemEvent, kw_only=True):
    """``response.output_item.added`` and ``.done``."""

    type: str
    item: OutputItem


class ContentPartEvent(ItemEvent, kw_only=True):
    """``response.content_part.added`` and ``.done``."""

    type: str
    item_id: str
    part: OutputText | ReasoningText
    content_index: int = 0


class TextDeltaEvent(ItemEvent, kw_only=True):
    """``response.output_text.delta``."""

    item_id: str
    delta: str
    content_index: int = 0
    type: str = "response.output_text.delta"
    logprobs: list[OutputTokenLogprob] = msgspec.field(default_factory=list)


class TextDoneEvent(ItemEvent, kw_only=True):
    """``response.output_text.done``."""

    item_id: str
    text: str
    content_index: int = 0
    type: str = "response.output_text.done"
    logprobs: list[OutputTokenLogprob] = msgspec.field(default_factory=list)


class ReasoningDeltaEvent(ItemEvent, kw_only=True):
    """``response.reasoning_text.delta``."""

    item_id: str
    delta: str
    content_index: int = 0
    type: str = "response.reasoning_text.delta"


class ReasoningDoneEvent(ItemEvent, kw_only=True):
    """``response.reasoning_text.done``."""

    item_id: str
    text: str
    content_index: int = 0
    type: str = "response.reasoning_text.done"


class ArgumentsDeltaEvent(ItemEvent, kw_only=True):
    """``response.function_call_arguments.delta``."""

    item_id: str
    delta: str
    type: str = "response.function_call_arguments.delta"


class ArgumentsDoneEvent(ItemEvent, kw_only=True):
    """``response.function_call_arguments.done``."""

    item_id: str
    name: str
    arguments: str
    type: str = "response.function_call_arguments.done"


StreamEvent = (
    ResponseEvent
    | OutputItemEvent
    | ContentPartEvent
    | TextDeltaEvent
    | TextDoneEvent
    | ReasoningDeltaEvent
    | ReasoningDoneEvent
    | ArgumentsDeltaEvent
    | ArgumentsDoneEvent
)


class DeletedResponse(msgspec.Struct, kw_only=True):
    """Answer of ``DELETE /v1/responses/{id}``."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


class InputItemList(msgspec.Struct, kw_only=True):
    """One page of ``GET /v1/responses/{id}/input_items``; the ids are empty where it holds nothing."""

    data: list[dict[str, Any]]
    first_id: str
    last_id: str
    has_more: bool
    object: Literal["list"] = "list"
