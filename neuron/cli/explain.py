"""``neuron explain``: what became of a request, and where its time went."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from neuron.cli.context import HostOption, JsonOption, node
from neuron.errors import UsageError

if TYPE_CHECKING:
    from neuron.wire.node import RequestInfo

EXAMPLES = (
    "neuron explain",
    "neuron explain req_0123456789abcdef01234567",
    "neuron explain --limit 100 --json --host gpu1",
)

COLUMNS = (
    "ID",
    "ARRIVED",
    "KEY",
    "STATE",
    "MODEL",
    "PROMPT",
    "ANSWER",
    "TOK/S",
    "QUEUE MS",
    "TOTAL MS",
    "WHY",
)
BAR = 40
"""Characters of the whole time."""
PHASES = ("read", "load", "prepare", "queue", "prefill", "decode", "deliver")
WHY = {
    "stop": "the model ended its text, or a stop string was hit",
    "length": "the limit of tokens was reached",
    "tool_calls": "the model calls tools",
    "done": "the vectors were computed",
}


def run(
    request_id: Annotated[
        str | None,
        typer.Argument(
            metavar="REQUEST_ID",
            help="The header x-request-id of its answer; without one, the last requests are listed.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="How many to list [20].", min=1, max=1000)
    ] = None,
    host: HostOption = None,
    json: JsonOption = False,
) -> None:
    """Show what became of a request: where its time went, its tokens, why it ended.

    A node tells of those that run and of the last that ended (requests_kept). The text of prompts and answers is
    shown only where the node keeps it (log_prompts).
    """
    from neuron.cli.render import notice, show_json, show_table

    if request_id is not None and limit is not None:
        raise UsageError("--limit is for the list", hint="leave out the id, or --limit")
    with node(host) as client:
        found = client.requests(limit or 20) if request_id is None else client.request(request_id)
    if json:
        show_json(found)
    elif not isinstance(found, list):
        print("\n".join(explained(found)))
    elif found:
        show_table(COLUMNS, map(_row, found))
    else:
        notice("this node has had no requests yet")


def _row(info: RequestInfo) -> tuple[object, ...]:
    return (
        info.id,
        _time_of_day(info.arrived),
        info.principal or "-",
        info.state,
        info.model or "-",
        _or_dash(info.prompt_tokens),
        _or_dash(info.completion_tokens),
        _or_dash(info.tokens_per_s),
        round(info.queue_ms),
        round(info.total_ms),
        info.code or info.finish_reason or "",
    )


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def explained(info: RequestInfo) -> list[str]:
    """A request in lines for a person."""
    return [
        *_aligned(_facts(info)),
        "",
        *_timeline(info),
        "",
        *_aligned([("why", _why(info))]),
        *_texts(info),
    ]


def _facts(info: RequestInfo) -> list[tuple[str, str]]:
    return [
        ("request", info.id),
        ("model", info.model or "not known"),
        *([("key", info.principal)] if info.principal else []),
        ("path", f"{info.path}{', streamed' if info.stream else ''}"),
        ("state", info.state),
        ("arrived", _clock(info.arrived)),
        *_tokens(info),
        *([("asked", _parameters(info))] if info.parameters else []),
    ]


def _tokens(info: RequestInfo) -> list[tuple[str, str]]:
    if info.prompt_tokens is None:
        return []
    prompt = f"{info.prompt_tokens:,} tokens"
    if info.n_prompts > 1:
        prompt += f" in {info.n_prompts} prompts"
    if info.completion_tokens is None:
        return [("prompt", prompt)]
    answer = f"{info.completion_tokens:,} tokens"
    if info.reasoning_tokens:
        answer += f", {info.reasoning_tokens:,} of them reasoning"
    if info.tokens_per_s is not None:
        answer += f", {info.tokens_per_s:,.1f} a second"
    if info.drafted_tokens:
        answer += f"; {info.drafted_right_tokens or 0:,} of {info.drafted_tokens:,} guesses were right"
    return [("prompt", f"{prompt}, {info.cached_tokens or 0:,} of them cached"), ("answer", answer)]


def _parameters(info: RequestInfo) -> str:
    return " ".join(f"{name}={value}" for name, value in info.parameters.items())


def _timeline(info: RequestInfo) -> list[str]:
    """A line for each phase, its bar where it lies in the whole time."""
    lines, before_ms, total_ms = [], 0.0, max(info.total_ms, 1e-9)
    for name in PHASES:
        ms = getattr(info, f"{name}_ms")
        start, end = (round(BAR * at / total_ms) for at in (before_ms, before_ms + ms))
        bar = " " * start + "#" * (end - start)
        lines.append(f"{name:<8} {ms:>11,.1f} ms {100 * ms / total_ms:>4.0f} %  |{bar:<{BAR}}|")
        before_ms += ms
    first = "" if info.first_token_ms is None else f"         first token after {info.first_token_ms:,.1f} ms"
    return [*lines, f"{'total':<8} {info.total_ms:>11,.1f} ms{first}"]


def _why(info: RequestInfo) -> str:
    match info.state:
        case "finished":
            return f"{info.finish_reason}: {WHY.get(info.finish_reason or '', 'the answer was whole')}"
        case "cut":
            return "the client left before the answer was whole"
        case "failed" | "refused":
            param = f", because of {info.param}" if info.param else ""
            return f"{info.state}: {info.code}{param}{f' ({info.cause})' if info.cause else ''}"
        case _:
            return "it has not ended"


def _texts(info: RequestInfo) -> list[str]:
    """Prompts and answers, where the node keeps them."""
    from neuron.cli.terminal_text import clean

    named = (("prompt", info.prompts), ("reasoning", info.reasoning), ("answer", info.answers))
    return [line for name, texts in named for text in texts or () for line in ("", f"{name}:", clean(text))]


def _aligned(facts: list[tuple[str, str]]) -> list[str]:
    from neuron.cli.terminal_text import one_line

    return [f"{name:<8} {one_line(value)}" for name, value in facts]


def _time_of_day(seconds: float) -> str:
    """Of this machine; with the date where that is not today's."""
    from datetime import datetime

    then = datetime.fromtimestamp(seconds)
    return then.strftime("%H:%M:%S" if then.date() == datetime.now().date() else "%Y-%m-%d %H:%M:%S")


def _clock(seconds: float) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(seconds).astimezone().isoformat(sep=" ", timespec="milliseconds")
