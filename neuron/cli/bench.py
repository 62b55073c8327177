"""``neuron bench``: how fast a server answers, alone and under load."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from neuron.cli import completing
from neuron.cli.context import HostOption, JsonOption
from neuron.errors import ModelNotLoaded, UsageError

if TYPE_CHECKING:
    from neuron.bench.answer import Server
    from neuron.bench.levels import Plan
    from neuron.bench.report import Level, Report, Spread

EXAMPLES = (
    "neuron bench",
    "neuron bench smollm2 --concurrency 1,4,8 --requests 32",
    "neuron bench --host gpu1 --prompt-tokens 2000 --max-tokens 200 --json",
    "OPENAI_API_KEY=none neuron bench smollm2 --url http://localhost:13131/v1",
)

COLUMNS = ("AT ONCE", "DONE", "FAILED", "TTFT p50", "p90", "p99", "ITL p50", "p90", "p99", "TOK/S", "EACH")
MAX_CONCURRENCY = 1024
KEYS = ("OPENAI_API_KEY", "NEURON_API_KEY")
"""Variables with the key of a server that --url names, in turn."""


def run(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Its id on the server; may be left out if there is exactly one.",
            show_default=False,
            autocompletion=completing.loaded,
        ),
    ] = None,
    concurrency: Annotated[
        str, typer.Option(metavar="N,N…", help="How many requests run at once, one measurement each.")
    ] = "1,4,8",
    requests: Annotated[
        int, typer.Option(metavar="N", min=1, max=1_000_000, help="Requests of each measurement.")
    ] = 16,
    prompt_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, help="Length of a prompt, the template's tokens included.")
    ] = 128,
    max_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Length of an answer.")] = 64,
    warmup: Annotated[
        int,
        typer.Option(
            metavar="ROUNDS", min=0, help="Before each measurement, one request for each that runs at once."
        ),
    ] = 1,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Any server in OpenAI's format, instead of a node: https://…/v1"),
    ] = None,
    host: HostOption = None,
    json: JsonOption = False,
) -> None:
    """Measure how fast a server answers: first token, between tokens, tokens per second.

    Prompts are words in an order of chance, so that no cache knows them; answers are greedy, and go on to
    --max-tokens where the server knows ignore_eos. Tokens are counted by the server. TTFT is the time to the first
    token, ITL the time between two, EACH the speed of one answer. A percentile of too few values (10 for p90, 100
    for p99) is left out.

    A node gets its own key or the one in NEURON_API_KEY; a server that --url names the one in OPENAI_API_KEY.
    Fails (1) if a request failed. Ctrl-C shows what there is.
    """
    places = _places(concurrency)
    _refuse_two_servers(context, url)
    with _server(url, host, max(places)) as server:
        from neuron.bench.levels import Plan

        plan = Plan(
            model=model or _only_model(server),
            concurrencies=places,
            requests=requests,
            prompt_tokens=prompt_tokens,
            max_tokens=max_tokens,
            warmup=warmup,
        )
        report = _measured(server, plan)
    (_show_json if json else show)(report)
    _end(report)


def _places(text: str) -> list[int]:
    """``1,4,8`` as numbers."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 <= int(part) <= MAX_CONCURRENCY for part in parts):
        raise UsageError(
            f"--concurrency: {text!r} is not numbers from 1 to {MAX_CONCURRENCY} with commas between them",
            hint="write --concurrency 1,4,8",
        )
    return [int(part) for part in parts]


def _refuse_two_servers(context: typer.Context, url: str | None) -> None:
    """--host beside --url; a host in the environment gives way."""
    source = context.get_parameter_source("host")
    if url is not None and source is not None and source.name == "COMMANDLINE":
        raise UsageError("--url and --host name two servers", hint="say one of them")


@contextmanager
def _server(url: str | None, host: str | None, places: int) -> Iterator[Server]:
    from neuron import nodes
    from neuron.bench.answer import Server
    from neuron.node_url import node_url, socket_path

    if url is None:
        node = nodes.place(host or None)
        yield Server(
            f"{node.url}/v1", uds=socket_path(node.url), key=node.key, places=places, doubt=node.doubt
        )
        return
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--url: {url!r} is no URL", hint="write --url https://HOST/v1")
    key = next((os.environ[name] for name in KEYS if os.environ.get(name)), None)
    yield Server(node_url(url), key=key and nodes.checked_key(key, " or ".join(KEYS)), places=places)


def _only_model(server: Server) -> str:
    found = server.models()
    if len(found) == 1:
        return found[0]
    if not found:
        raise ModelNotLoaded(f"{server.url} serves no model", hint="load one first: neuron load MODEL")
    said = f"serves {len(found)} models: {', '.join(found)}"
    raise UsageError(f"{server.url} {said}", hint="name one: neuron bench MODEL")


def _measured(server: Server, plan: Plan) -> Report:
    from neuron.bench.levels import measure
    from neuron.bench.report import Report

    with _progress(plan) as done:
        levels = list(measure(server, plan, done))
    return Report(
        url=server.url,
        model=plan.model,
        requests=plan.requests,
        prompt_tokens=plan.prompt_tokens,
        max_tokens=plan.max_tokens,
        ignore_eos="ignore_eos" in server.form,
        levels=levels,
    )


@contextmanager
def _progress(plan: Plan) -> Iterator[Callable[[int, object], None]]:
    """A bar on a terminal, which vanishes; otherwise nothing."""
    if not sys.stderr.isatty():
        yield lambda places, outcome: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
        tasks = {n: bars.add_task(f"{n} at once", total=plan.requests) for n in plan.concurrencies}
        yield lambda places, outcome: bars.advance(tasks[places])


def _show_json(report: Report) -> None:
    from neuron.cli.render import show_json

    show_json(report)


def show(report: Report) -> None:
    """A table of the levels, bars, and what failed."""
    from neuron.cli.render import show_table
    from neuron.cli.terminal_text import one_line

    print(one_line(f"{report.model} at {report.url}"))
    print(f"{_sizes(report)}; times in ms\n")
    show_table(COLUMNS, [_row(level) for level in report.levels])
    print()
    _show_bars(report.levels)
    _show_failures(report.levels)


def _sizes(report: Report) -> str:
    counted = [level.prompt_tokens for level in report.levels if level.prompt_tokens]
    prompt = f"{counted[0]}" if counted else f"about {report.prompt_tokens}"
    at_most = "" if report.ignore_eos else "at most "
    return f"prompts of {prompt} tokens, answers of {at_most}{report.max_tokens}"


def _row(level: Level) -> tuple[object, ...]:
    return (
        level.concurrency,
        level.completed,
        level.failed,
        *_cells(level.first_token_ms),
        *_cells(level.inter_token_ms),
        _number(level.tokens_per_second),
        _number(level.tokens_per_second_each.p50),
    )


def _cells(spread: Spread) -> tuple[str, str, str]:
    return _number(spread.p50), _number(spread.p90), _number(spread.p99)


def _number(value: float | None) -> str:
    """Three figures are enough for anything that was measured."""
    return "-" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _show_bars(levels: Sequence[Level]) -> None:
    """Tokens a second of each concurrency."""
    from neuron.cli.render import show_bars

    print("tokens per second")
    show_bars([(f"{level.concurrency} at once", level.tokens_per_second) for level in levels])


def _show_failures(levels: Sequence[Level]) -> None:
    from neuron.cli.render import notice

    for level in levels:
        for failure in level.failures:
            notice(f"{level.concurrency} at once: {failure.count} failed: {failure.error}: {failure.message}")


def _end(report: Report) -> None:
    """Ctrl-C, then failures, decide the exit code."""
    if any(level.interrupted for level in report.levels):
        raise KeyboardInterrupt
    if any(level.failed for level in report.levels):
        raise typer.Exit(1)
