"""``neuron unload``: have a node free a model."""

from __future__ import annotations

from typing import Annotated

import typer

from neuron.cli import completing
from neuron.cli.context import HostOption, JsonOption, node

EXAMPLES = ("neuron unload smollm2", "neuron unload Qwen/Qwen3-0.6B --host gpu1")


def run(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Its id, as neuron models shows it.",
            show_default=False,
            autocompletion=completing.loaded,
        ),
    ],
    host: HostOption = None,
    json: JsonOption = False,
) -> None:
    """Free a loaded model; answers that are being made end first."""
    from neuron.cli.render import show_json
    from neuron.cli.terminal_text import one_line

    with node(host) as client:
        status = client.unload(model).status
    if json:
        show_json({"model_id": model, "status": status})
    else:
        print(f"{status}: {one_line(model)}")
