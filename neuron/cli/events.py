"""``neuron events``: what a node does, as it happens."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from neuron.cli.context import HostOption, node

EXAMPLES = (
    "neuron events",
    "neuron events -f --host gpu1",
    "neuron events --since 1 --json",
)


def run(
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with those to come, until Ctrl-C.")
    ] = False,
    since: Annotated[
        int, typer.Option(metavar="N", help="Only those after number N.", min=0, show_default=False)
    ] = 0,
    host: HostOption = None,
    json: Annotated[bool, typer.Option("--json", help="A JSON object a line.")] = False,
) -> None:
    """Show what a node does: loads, requests that ended or were refused, drains.

    They are the events of its log, whatever level that has, numbered since the start of the node; the last 1000
    are kept. A line of JSON has seq, time, level, event and the event's fields.
    """
    with node(host) as client:
        for line in client.events(since, follow):
            print(_json(line) if json else _text(line), flush=True)


def _json(line: dict[str, Any]) -> str:
    import json

    return json.dumps(line).replace("\x7f", "\\u007f")


def _text(line: dict[str, Any]) -> str:
    from datetime import datetime

    from neuron.log import text_line

    fields = {key: value for key, value in line.items() if key not in ("seq", "time", "level", "event")}
    clock = datetime.fromtimestamp(line["time"]).strftime("%H:%M:%S")
    return f"{line['seq']:>5} {text_line(clock, line['level'], line['event'], fields)}"
