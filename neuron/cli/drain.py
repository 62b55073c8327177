"""``neuron drain``: have a node end its work and leave."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from neuron.cli.context import HostOption, JsonOption, node
from neuron.cli.exits import Exit
from neuron.errors import NodeUnreachable

if TYPE_CHECKING:
    from neuron.client import NodeClient

EXAMPLES = (
    "neuron drain --host gpu1",
    "neuron drain --wait --timeout 600 --host gpu1",
)

POLL_S = 0.2
CLOSING_S = 30.0
"""What a node may take beyond its timeout: to end its last streams and free its models."""


def run(
    wait: Annotated[bool, typer.Option("--wait", help="Return when the node has left.")] = False,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="S", help="How long running work may go on [the node's drain_s].", min=0),
    ] = None,
    host: HostOption = None,
    json: JsonOption = False,
) -> None:
    """Have a node take no new work, end what it was given, and leave.

    From then on new requests are refused with 503 and the node is not ready. Requests that run or wait end as
    usual within the timeout; then the process exits with 0, as on SIGTERM. What restarts a service starts it again.
    """
    from neuron.cli.render import notice, show_json

    with node(host) as client:
        answer = client.drain(timeout)
        if wait:
            notice(f"waiting for {client.url} to end its work, up to {answer.timeout_s:g} s")
            _until_gone(client, answer.timeout_s + CLOSING_S)
    status = "stopped" if wait else answer.status
    if json:
        show_json({"status": status, "timeout_s": answer.timeout_s})
    else:
        print(status if wait else f"{status}, for up to {answer.timeout_s:g} s")


def _until_gone(client: NodeClient, within_s: float) -> None:
    """Until nobody answers, or a node that was started since does."""
    from neuron.cli.render import notice

    deadline_s = time.monotonic() + within_s
    while _is_leaving(client):
        if time.monotonic() >= deadline_s:
            notice(f"neuron: {client.url} is still there after {within_s:g} s")
            raise typer.Exit(Exit.TEMPORARY)
        time.sleep(POLL_S)


def _is_leaving(client: NodeClient) -> bool:
    try:
        return not client.ready()
    except NodeUnreachable:
        return False
