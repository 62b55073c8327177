"""``neuron unload``: have a node free models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from neuron.cli import completing
from neuron.cli.context import HostOption, JsonOption, node
from neuron.cli.exits import Exit, exit_code
from neuron.errors import NeuronError, UsageError

if TYPE_CHECKING:
    from neuron.client import NodeClient

EXAMPLES = (
    "neuron unload smollm2",
    "neuron unload --all --now",
    "neuron unload Qwen/Qwen3-0.6B assistant --host gpu1",
)
UNLOAD_S = 900.0
"""How long a node may take to see running work off."""


def run(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help="Ids, as neuron models shows them.",
            show_default=False,
            autocompletion=completing.loaded,
        ),
    ] = None,
    all: Annotated[
        bool, typer.Option("--all", help="Every model that is loaded or loading, pinned ones too.")
    ] = False,
    drain: Annotated[
        bool,
        typer.Option(
            "--drain/--now", help="Let running answers end, as long as the node's drain_s, or cut them."
        ),
    ] = True,
    host: HostOption = None,
    json: JsonOption = False,
) -> None:
    """Free loaded models; answers that are being made end first. A load that runs is cancelled.

    Several are freed one after the other; the exit code is that of the first that fails.
    """
    if all == bool(models):
        raise UsageError("name models, or all with --all", hint="neuron models shows what is loaded")
    with node(host, answer_s=UNLOAD_S) as client:
        names = [m.id for m in client.models() if not m.alias_of] if all else models or []
        results = [_unload(client, name, now=not drain) for name in dict.fromkeys(names)]
    if len(results) == 1 and results[0][1] is not None:
        raise results[0][1]
    _show(results, json, as_list=all or len(results) > 1)
    code = next((exit_code(error) for _, error in results if error is not None), Exit.OK)
    raise typer.Exit(code)


def _unload(client: NodeClient, name: str, *, now: bool) -> tuple[str, NeuronError | None]:
    try:
        client.unload(name, now=now)
    except NeuronError as error:
        return name, error
    return name, None


def _show(results: list[tuple[str, NeuronError | None]], json: bool, *, as_list: bool) -> None:
    from neuron.cli.render import notice, show_json
    from neuron.cli.terminal_text import one_line

    if json:
        rows = [
            {
                "model_id": name,
                "status": "failed" if error else "unloaded",
                "error": str(error) if error else None,
            }
            for name, error in results
        ]
        show_json(rows if as_list else rows[0])
    for name, error in results:
        if error is not None:
            notice(f"neuron: {name}: {error}")
            if error.hint:
                notice(f"hint: {error.hint}")
        elif not json:
            print(f"unloaded: {one_line(name)}")
    if not results:
        notice("no models are loaded")
