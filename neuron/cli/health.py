"""``neuron health``: how a node is now."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from neuron.cli.context import HostOption, JsonOption, node
from neuron.errors import UsageError

if TYPE_CHECKING:
    from neuron.client import Health, NodeClient
    from neuron.wire.node import HealthResponse

EXAMPLES = (
    "neuron health",
    "neuron health --host gpu1 --json",
    "neuron health --watch --host gpu1",
    "neuron health --check --host gpu1",
)

DEVICE_COLUMNS = ("GPU", "USED MB", "FREE MB", "LOAD %", "TEMP C")
MODEL_COLUMNS = ("MODEL", "RUNNING", "QUEUED", "REFUSED", "KV FREE MB", "PREFILL tok/s", "DECODE tok/s")


LINES_EVERY_S = 2.0
PAGE_EVERY_S = 0.5
ANSWER_S = 5.0


def run(
    watch: Annotated[bool, typer.Option("--watch", help="Go on until q or Ctrl-C, with sparklines.")] = False,
    interval: Annotated[
        float | None,
        typer.Option(metavar="S", help="Seconds between two looks of --watch [0.5; 2 in a pipe].", min=0.1),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="One line for a monitor; exit code 0 ok, 1 warning, 2 critical.")
    ] = False,
    host: HostOption = None,
    json: JsonOption = False,
) -> None:
    """Show how a node is: its memory, its devices, its models. Fails (1) if it no longer makes progress.

    --check is critical (2) when the node can't be asked, is stalled, takes no new work, or failed to load a model
    at start; a warning (1) when models at start are still loading, none is loaded, or a queue is full.
    """
    _refuse_both(watch, check, json, interval)
    with node(host, answer_s=ANSWER_S) as client:
        if check:
            _check(client)
        elif watch:
            _watch(client, interval, json)
        else:
            _show(client.health(), json)


def _refuse_both(watch: bool, check: bool, json: bool, interval: float | None) -> None:
    if check and (watch or json):
        raise UsageError("--check is one line, without --watch and --json", hint="leave out the others")
    if interval is not None and not watch:
        raise UsageError("--interval is for --watch", hint="add --watch")


def _check(client: NodeClient) -> None:
    from neuron.cli.check import check

    level, line = check(client)
    print(line)
    raise typer.Exit(level)


def _watch(client: NodeClient, interval_s: float | None, json: bool) -> None:
    """The page on a terminal, else a block of lines, or a line of JSON, for each look."""
    from rich.console import Console

    from neuron.cli.watch import can_live, live

    console = Console()
    if can_live(console) and not json:
        live(client, console, interval_s or PAGE_EVERY_S)
        return
    while True:
        _show_once(client.health(), json)
        sys.stdout.flush()
        time.sleep(interval_s or LINES_EVERY_S)


def _show_once(answer: Health, json: bool) -> None:
    if json:
        import msgspec

        print(msgspec.json.encode(answer.body).decode())
    else:
        _show_body(answer.body)
        print()


def _show(answer: Health, json: bool) -> None:
    from neuron.cli.render import notice, show_json

    if json:
        show_json(answer.body)
    else:
        _show_body(answer.body)
    if answer.stalled:
        notice("neuron: the node makes no progress: its decode loop is stalled")
        raise typer.Exit(1)


def _show_body(body: HealthResponse) -> None:
    from neuron.cli.render import show_fields

    show_fields(_fields(body))
    _show_tables(body)


def _fields(body: HealthResponse) -> list[tuple[str, object]]:
    activation = body.activation
    return [
        ("uptime", f"{body.uptime_secs} s"),
        ("accepting", "yes" if body.accepting else "no"),
        ("models at start", activation.state.replace("_", "-")),
        *((word, ", ".join(ids)) for word, ids in _at_start(body).items() if ids),
        *((f"failed {failure.model_id}", failure.error) for failure in activation.failed),
        ("memory", f"{body.cpu.memory_used_mb:,} MB used, {body.cpu.memory_free_mb:,} MB free"),
        ("cpu", f"{body.cpu.load_pct:.0f} %"),
        ("decoding", f"{body.decode.active} sequences"),
    ]


def _at_start(body: HealthResponse) -> dict[str, list[str]]:
    current = body.activation.in_progress
    return {"loading now": [current] if current else [], "waiting": body.activation.pending}


def _show_tables(body: HealthResponse) -> None:
    from neuron.cli.render import show_table

    if body.devices:
        show_table(
            DEVICE_COLUMNS,
            [(d.index, d.vram_used_mb, d.vram_free_mb, d.utilization_pct, d.temp_c) for d in body.devices],
        )
    if body.models:
        show_table(
            MODEL_COLUMNS,
            [
                (
                    m.id,
                    f"{m.in_flight}/{m.max_in_flight}",
                    f"{m.queue_depth}/{m.max_queue_depth}",
                    m.rejected_queue_full + m.rejected_timeout,
                    m.kv_available_mb,
                    round(m.tok_s_prefill),
                    round(m.tok_s_decode),
                )
                for m in body.models
            ],
        )
