"""What several commands share: where the node is, and whether to answer in JSON."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from neuron.client import NodeClient


def _names(incomplete: str) -> list[str]:
    """Names of nodes that the shell can go on with; none where the file can't be read."""
    from neuron import nodes
    from neuron.errors import NeuronError

    try:
        return [name for name in nodes.read(os.environ) if name.startswith(incomplete)]
    except NeuronError:
        return []


HostOption = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="NAME|HOST[:PORT]|URL",
        envvar="NEURON_HOST",
        show_envvar=True,
        help="The node to speak to, this machine's by default; a NAME is one of nodes.toml.",
        autocompletion=_names,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A short name, ORG/NAME on the hub, pypi:NAME, a folder or a .gguf file; @REVISION at the end.",
        show_default=False,
    ),
]


def examples(*lines: str) -> str:
    """The end of a command's help: each line as it would be typed."""
    return "\b\nExamples:\n" + "\n".join("  " + line for line in lines)


def node(host: str | None, connect_s: float = 3.0, answer_s: float = 30.0) -> NodeClient:
    """A client of the node that ``--host`` or ``NEURON_HOST`` names, else of the local one."""
    from neuron.client import NodeClient

    return NodeClient(host or None, connect_s=connect_s, answer_s=answer_s)
