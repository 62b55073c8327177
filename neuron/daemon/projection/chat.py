"""Chat completions: wire → `Generation`. What comes back is in `chat_answer`."""

from __future__ import annotations

from neuron.daemon.projection import constraints, limits, messages, refusals, template, tools
from neuron.daemon.projection.constraints import Held
from neuron.daemon.projection.tools import Toolbox
from neuron.engine.request import ChatPrompt, Generation
from neuron.engine.status import ModelStatus
from neuron.errors import InvalidValue
from neuron.wire import chat as wire


def generation(
    request: wire.ChatCompletionRequest, request_id: str, model: ModelStatus | None = None
) -> Generation:
    """What the engine is asked for.

    Raises:
        InvalidValue, UnsupportedParameter: with ``param``.
        TemplateRenderFailed: tools for a model that knows nothing of them.
    """
    refusals.refuse_unsupported(request, refusals.CHAT)
    if request.stream_options is not None and not request.stream:
        raise InvalidValue("stream_options is only for stream=true", param="stream_options")
    toolbox = _toolbox(request, model)
    max_tokens = _max_tokens(request)
    one = held(request, toolbox)
    return Generation(
        model_id=request.model,
        prompt=_prompt(request, toolbox),
        request_id=request_id,
        sampling=limits.sampling(request),
        max_tokens=max_tokens,
        stop=limits.stop_strings(request.stop),
        stop_token_ids=limits.stop_ids(request.stop_token_ids),
        ignore_eos=bool(request.ignore_eos),
        min_tokens=limits.min_tokens(request, max_tokens),
        n=limits.checked(request, "n") or 1,
        logprobs=_logprobs(request),
        constraint=None if one is None else one.constraint,
        parse_reasoning=True,
        parse_tools=toolbox.parse,
        reasoning_budget=template.budget(request),
    )


def held(request: wire.ChatCompletionRequest, toolbox: Toolbox | None = None) -> Held | None:
    """The constraint of a request and which parameter it came by."""
    toolbox = toolbox or _toolbox(request, None)
    guides = constraints.guided(request)
    return constraints.only(constraints.response_format(request.response_format), guides, toolbox)


def _toolbox(request: wire.ChatCompletionRequest, model: ModelStatus | None) -> Toolbox:
    given = tools.function_tools(request.tools)
    return tools.toolbox(given, request.tool_choice, request.parallel_tool_calls, model)


def _prompt(request: wire.ChatCompletionRequest, toolbox: Toolbox) -> ChatPrompt:
    said = messages.chat_messages(request.messages)
    return ChatPrompt(
        messages=said,
        tools=toolbox.tools,
        template_kwargs={
            **template.thinking(request.reasoning_effort, "reasoning_effort"),
            **template.template_kwargs(request.chat_template_kwargs),
            **template.prompted(request),
        },
        continue_final=template.continues(request, said),
    )


def _max_tokens(request: wire.ChatCompletionRequest) -> int | None:
    """The older and the newer name of one limit; both are checked, and two limits are refused."""
    older, newer = limits.checked(request, "max_tokens"), limits.checked(request, "max_completion_tokens")
    if older is not None and newer not in (None, older):
        raise InvalidValue(
            f"max_tokens is {older} and max_completion_tokens {newer}: they are two names of one limit",
            hint="send one of them",
            param="max_completion_tokens",
        )
    chosen: int | None = older if newer is None else newer
    return chosen


def _logprobs(request: wire.ChatCompletionRequest) -> int | None:
    """Alternatives to each token; None where no log-probabilities are asked for."""
    top: int | None = limits.checked(request, "top_logprobs")
    if request.logprobs:
        return top or 0
    if top:
        raise InvalidValue("top_logprobs needs logprobs: true", param="top_logprobs")
    return None


def ignored(request: wire.ChatCompletionRequest, model: ModelStatus | None) -> list[str]:
    """Hints of the known fields that had no effect."""
    names = []
    if tools.idle_parallel(request.parallel_tool_calls, request.tools, request.tool_choice):
        names.append("parallel_tool_calls")
    if request.reasoning_effort is not None and model is not None and not model.reasoning:
        names.append("reasoning_effort")
    names += template.idle_budget(request, model)
    options = request.stream_options
    if options is not None and options.include_obfuscation is not None:
        names.append("stream_options.include_obfuscation")
    return names
