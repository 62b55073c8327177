"""``neuron rm``: remove a fetched model from this machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from neuron.cli.context import JsonOption, ModelArgument

if TYPE_CHECKING:
    from neuron.nodes import Place

EXAMPLES = ("neuron rm smollm2", "neuron rm hf:Qwen/Qwen3-0.6B@main --json")
LOCAL_CONNECT_S = 0.5


def run(
    model: ModelArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Also where the node of this machine has it loaded.")
    ] = False,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST[:PORT]|URL",
            help="This machine's node, where it is not as NEURON_HOST or the settings say.",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Remove a fetched model from this machine's cache, and say what that freed.

    A model that the node of this machine has loaded is refused. Folders and files of your own are left alone.
    """
    from neuron.cli.render import show_json
    from neuron.cli.terminal_text import one_line
    from neuron.errors import UsageError
    from neuron.sources import cache, fetch
    from neuron.sources.reference import parse_reference

    if parse_reference(model).scheme == "path":
        raise UsageError(f"{model}: a path was not fetched", hint="remove your own files with rm")
    fetch.recorded(model)  # raises where there is nothing to remove
    if not force:
        _refuse_loaded(model, _node_here(host))
    removed = cache.remove(model)
    if json:
        show_json(removed)
    else:
        print(f"removed: {one_line(removed.model)}, {removed.freed_bytes / 1e6:,.1f} MB freed")


def _node_here(host: str | None) -> Place:
    """Raises `UsageError` for another machine's."""
    from neuron import nodes
    from neuron.errors import UsageError
    from neuron.node_url import is_loopback

    found = nodes.place(host) if host else nodes.here(os.environ)
    if not is_loopback(found.url) and host:
        raise UsageError(
            f"--host {host} is on another machine, and models are removed from this one",
            hint="run neuron rm there",
        )
    return found


def _refuse_loaded(model: str, here: Place) -> None:
    """Raise `ModelInUse` where a node here has it in memory, or does not say; nobody listening, no refusal."""
    from neuron.client import NodeClient
    from neuron.errors import ModelInUse, NeuronError
    from neuron.local_node import listens
    from neuron.sources import cache

    if not listens(here.url, LOCAL_CONNECT_S):
        return
    try:
        with NodeClient(here, connect_s=LOCAL_CONNECT_S) as client:
            found = [m for m in client.models() if m.source and cache.in_use(model, [m.source])]
    except NeuronError as e:
        raise ModelInUse(
            f"what listens at {here.url} does not say whether it uses {model}: {e.message}",
            hint="--force removes it anyway: what is in memory stays there",
        ) from e
    if found:
        raise ModelInUse(
            f"{model} is loaded on {client.url} as {found[0].id}",
            hint=f"neuron unload {found[0].id}, or --force: what is in memory stays there",
        )
