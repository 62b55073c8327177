"""``neuron rm``: remove a fetched model from this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from neuron.cli.context import JsonOption, ModelArgument
from neuron.settings import DEFAULT_PORT

EXAMPLES = ("neuron rm smollm2", "neuron rm hf:Qwen/Qwen3-0.6B@main --json")
LOCAL_CONNECT_S = 0.5


def run(
    model: ModelArgument,
    force: Annotated[
        bool, typer.Option("--force", help="Also where the node of this machine has it loaded.")
    ] = False,
    port: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=1,
            max=65535,
            envvar="NEURON_PORT",
            show_envvar=True,
            help="Where the node of this machine listens.",
        ),
    ] = DEFAULT_PORT,
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
        _refuse_loaded(model, port)
    removed = cache.remove(model)
    if json:
        show_json(removed)
    else:
        print(f"removed: {one_line(removed.model)}, {removed.freed_bytes / 1e6:,.1f} MB freed")


def _refuse_loaded(model: str, port: int) -> None:
    """Raise `ModelInUse` where a node here has it in memory, or does not say; nobody listening, no refusal."""
    import socket

    from neuron.client import NodeClient
    from neuron.errors import ModelInUse, NeuronError
    from neuron.sources import cache

    url = f"http://127.0.0.1:{port}"
    try:
        socket.create_connection(("127.0.0.1", port), LOCAL_CONNECT_S).close()
    except OSError:
        return
    try:
        with NodeClient(url, connect_s=LOCAL_CONNECT_S) as client:
            found = [m for m in client.models() if m.source and cache.in_use(model, [m.source])]
    except NeuronError as e:
        raise ModelInUse(
            f"what listens at {url} does not say whether it uses {model}: {e.message}",
            hint="--force removes it anyway: what is in memory stays there",
        ) from e
    if found:
        raise ModelInUse(
            f"{model} is loaded on {client.url} as {found[0].id}",
            hint=f"neuron unload {found[0].id}, or --force: what is in memory stays there",
        )
