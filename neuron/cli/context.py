"""What several commands share: where the node is, and whether to answer in JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from neuron.cli import completing

if TYPE_CHECKING:
    from neuron.client import NodeClient


def model_reference(text: str) -> str:
    """What a person wrote to name a model, unless it is nearly a short name; ``hf:`` in front says it is meant so.

    Raises:
        UsageError: with the nearest short name.
    """
    from neuron.errors import UsageError
    from neuron.sources.aliases import near_miss

    if near := near_miss(text):
        hint = f"did you mean {near}? hf:{text} is the hub's repository of that name"
        raise UsageError(f"{text!r} is no short name of a model", hint=hint)
    return text


def _checked(context: typer.Context, value: str) -> str:
    return value if context.resilient_parsing else model_reference(value)


def model_references(context: typer.Context, value: list[str] | None) -> list[str] | None:
    """Several of them, as the callback of an argument."""
    return value if context.resilient_parsing else [model_reference(text) for text in value or []]


HostOption = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="NAME|HOST[:PORT]|URL",
        envvar="NEURON_HOST",
        show_envvar=True,
        help="The node to speak to, this machine's by default; a NAME is one of nodes.toml.",
        autocompletion=completing.nodes,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A short name, ORG/NAME on the hub, pypi:NAME, a folder or a .gguf file; @REVISION at the end.",
        show_default=False,
        callback=_checked,
        autocompletion=completing.references,
    ),
]


def examples(*lines: str) -> str:
    """The end of a command's help: each line as it would be typed."""
    return "\b\nExamples:\n" + "\n".join("  " + line for line in lines)


def node(host: str | None, connect_s: float = 3.0, answer_s: float = 30.0) -> NodeClient:
    """A client of the node that ``--host`` or ``NEURON_HOST`` names, else of the local one."""
    from neuron.client import NodeClient

    return NodeClient(host or None, connect_s=connect_s, answer_s=answer_s)
