"""Responses: wire → `Generation`, and the response object. Its items and events are in `responses_stream`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from neuron.daemon.projection import constraints, limits, refusals, template, tools
from neuron.daemon.projection.constraints import Held
from neuron.daemon.projection.response_inputs import Item, as_messages
from neuron.daemon.projection.response_items import new_id
from neuron.daemon.projection.tools import Tool, Toolbox
from neuron.engine.events import Finished, Usage
from neuron.engine.request import NEUTRAL, ChatPrompt, Generation, Sampling
from neuron.engine.status import ModelStatus
from neuron.errors import InvalidValue, NeuronError
from neuron.wire import responses as wire
from neuron.wire.response_items import ItemStatus, OutputItem

LOGPROBS = "message.output_text.logprobs"
TEXT_KEYS = frozenset({"format", "verbosity"})
REASONING_KEYS = frozenset({"effort", "summary", "generate_summary"})
HINTS = ("metadata", "stream_options")


def generation(
    request: wire.ResponsesRequest,
    conversation: Sequence[Item],
    request_id: str,
    model: ModelStatus | None = None,
) -> Generation:
    """What the engine is asked for; ``conversation`` are the items of ``input`` and of what it continues.

    Raises:
        InvalidValue, UnsupportedParameter: with ``param``.
        TemplateRenderFailed: tools for a model that knows nothing of them.
    """
    refusals.refuse_unsupported(request, refusals.RESPONSES)
    toolbox = _toolbox(request, model)
    one = held(request, toolbox)
    max_tokens = limits.checked(request, "max_output_tokens")
    return Generation(
        model_id=request.model,
        prompt=ChatPrompt(
            messages=_messages(request.instructions, conversation),
            tools=toolbox.tools,
            template_kwargs={
                **template.thinking(_reasoning(request).get("effort"), "reasoning.effort"),
                **template.template_kwargs(request.chat_template_kwargs),
            },
        ),
        request_id=request_id,
        sampling=limits.sampling(request),
        max_tokens=max_tokens,
        stop=limits.stop_strings(request.stop),
        stop_token_ids=limits.stop_ids(request.stop_token_ids),
        ignore_eos=bool(request.ignore_eos),
        min_tokens=limits.min_tokens(request, max_tokens),
        logprobs=_logprobs(request),
        constraint=None if one is None else one.constraint,
        parse_reasoning=True,
        parse_tools=toolbox.parse,
        reasoning_budget=template.budget(request),
    )


def held(request: wire.ResponsesRequest, toolbox: Toolbox | None = None) -> Held | None:
    """The constraint of a request and which parameter it came by."""
    toolbox = toolbox or _toolbox(request, None)
    text = _known(request.text, TEXT_KEYS, "text")
    told = text.get("format")
    if not isinstance(told, dict | None):
        raise InvalidValue("text.format must be an object", param="text.format")
    guides = constraints.guided(request)
    return constraints.only(constraints.text_format(told, "text.format"), guides, toolbox)


def _messages(instructions: str | None, conversation: Sequence[Item]) -> list[dict[str, Any]]:
    system = [{"role": "system", "content": instructions}] if instructions else []
    said = [*system, *as_messages(conversation)]
    if not said:
        raise InvalidValue("input must have at least one message", param="input")
    return said


def _toolbox(request: wire.ResponsesRequest, model: ModelStatus | None) -> Toolbox:
    return tools.toolbox(_tools(request), request.tool_choice, request.parallel_tool_calls, model)


def _tools(request: wire.ResponsesRequest) -> list[Tool]:
    """The function tools, in the nested form; other kinds are hints of what a node does not do itself."""
    tools.bounded(request.tools or ())
    found: list[Tool] = [
        {"type": "function", "function": tools.function(raw, f"tools[{i}]")}
        for i, raw in enumerate(request.tools or ())
        if _kind(raw, f"tools[{i}]") == "function"
    ]
    tools.unique(found)
    return found


def _kind(tool: Any, where: str) -> str:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if not isinstance(kind, str):
        raise InvalidValue(f"{where} must be an object with a type", param=where)
    return kind


def _reasoning(request: wire.ResponsesRequest) -> Mapping[str, Any]:
    return _known(request.reasoning, REASONING_KEYS, "reasoning")


def _known(raw: Mapping[str, Any] | None, keys: frozenset[str], where: str) -> Mapping[str, Any]:
    """The object, whose keys are all of ``keys``."""
    for key in sorted((raw or {}).keys() - keys):
        raise InvalidValue(f"{where} has no key {key[:40]!r}", param=where)
    return raw or {}


def _logprobs(request: wire.ResponsesRequest) -> int | None:
    """Alternatives to each token; None where no log-probabilities are asked for."""
    top: int | None = limits.checked(request, "top_logprobs")
    return top or 0 if top or LOGPROBS in (request.include or ()) else None


def ignored(request: wire.ResponsesRequest, model: ModelStatus | None) -> list[str]:
    """Hints of the known fields that had no effect beyond being echoed."""
    effort = _reasoning(request).get("effort") is not None and model is not None and not model.reasoning
    hints = {
        **{name: getattr(request, name) is not None for name in HINTS},
        "parallel_tool_calls": tools.idle_parallel(
            request.parallel_tool_calls, request.tools, request.tool_choice
        ),
        "include": bool(set(request.include or ()) - {LOGPROBS}),
        "text.verbosity": bool(request.text and request.text.get("verbosity")),
        "reasoning.effort": effort,
        "reasoning.summary": any(_reasoning(request).get(key) for key in ("summary", "generate_summary")),
    }
    kinds = [tool["type"] for tool in request.tools or () if tool["type"] != "function"]
    said = [name for name, is_said in hints.items() if is_said]
    return [*said, *template.idle_budget(request, model), *(f"tools.{kind}" for kind in kinds)]


def usage(counts: Usage) -> wire.ResponseUsage:
    """Counts in this format."""
    return wire.ResponseUsage(
        input_tokens=counts.prompt_tokens,
        output_tokens=counts.completion_tokens,
        total_tokens=counts.prompt_tokens + counts.completion_tokens,
        input_tokens_details=wire.InputTokensDetails(cached_tokens=counts.cached_tokens),
        output_tokens_details=wire.OutputTokensDetails(reasoning_tokens=counts.reasoning_tokens),
    )


def begun(request: wire.ResponsesRequest, model: ModelStatus | None, *, stored: bool) -> wire.Response:
    """The response before anything happened: what was asked, echoed, and what holds where nothing was said."""
    text = request.text or {}
    reasoning, sampling = _reasoning(request), _sampling(request, model)
    return wire.Response(
        id=new_id("resp"),
        created_at=int(time.time()),
        model=request.model,
        status="in_progress",
        output=[],
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        metadata=request.metadata or {},
        parallel_tool_calls=request.parallel_tool_calls is not False,
        previous_response_id=request.previous_response_id,
        reasoning={"effort": reasoning.get("effort"), "summary": None},
        store=stored,
        system_fingerprint=model.fingerprint if model else None,
        temperature=sampling.temperature,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        text={"format": text.get("format") or {"type": "text"}},
        tool_choice=request.tool_choice or "auto",
        tools=[_echoed(raw, tool) for raw, tool in zip(_functions(request), _tools(request), strict=True)],
        top_logprobs=request.top_logprobs or 0,
        top_p=sampling.top_p,
    )


def _sampling(request: wire.ResponsesRequest, model: ModelStatus | None) -> Sampling:
    """What a response tells of how its tokens are chosen."""
    said = Sampling(
        temperature=request.temperature,
        top_p=request.top_p,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
    )
    own = model.sampling if model else None
    return said.over(own.over(NEUTRAL) if own else NEUTRAL)


def _functions(request: wire.ResponsesRequest) -> list[Mapping[str, Any]]:
    return [tool for tool in request.tools or () if tool["type"] == "function"]


def _echoed(raw: Mapping[str, Any], tool: Tool) -> dict[str, Any]:
    """A function in the flat form, as it was taken."""
    return {"type": "function", "strict": raw.get("strict"), "description": None, **tool["function"]}


def status_of(reason: str) -> ItemStatus:
    """Of a response and of its last item: a length is not completed."""
    return "incomplete" if reason == "length" else "completed"


def ended(response: wire.Response, output: list[OutputItem], finished: Finished) -> wire.Response:
    """The response with its items and its end."""
    whole = finished.reason != "length"
    return msgspec.structs.replace(
        response,
        status="completed" if whole else "incomplete",
        output=output,
        incomplete_details=None if whole else wire.IncompleteDetails(reason="max_output_tokens"),
        completed_at=int(time.time()) if whole else None,
        usage=usage(finished.usage),
    )


def failed(response: wire.Response, error: NeuronError, text: str) -> wire.Response:
    """The response that could not go on. Official clients know only a few codes."""
    code = "rate_limit_exceeded" if error.code == "rate_limit_exceeded" else "server_error"
    return msgspec.structs.replace(
        response, status="failed", error=wire.ResponseError(code=code, message=text)
    )
