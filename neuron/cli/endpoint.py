"""``neuron endpoint``: what an application must be told to use a node."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from neuron.cli import completing
from neuron.cli.context import HostOption, JsonOption, node
from neuron.errors import ModelNotLoaded, UsageError

if TYPE_CHECKING:
    from neuron.client import NodeClient

EXAMPLES = (
    "neuron endpoint",
    "neuron endpoint smollm2 --export",
    "neuron endpoint --host gpu1 --json",
)
NO_KEY = "none"
"""What clients send that insist on a key, to a node that asks for none."""


def run(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Its id [the only one that answers].",
            show_default=False,
            autocompletion=completing.loaded,
        ),
    ] = None,
    export: Annotated[bool, typer.Option("--export", help="As lines for a shell to evaluate.")] = False,
    host: HostOption = None,
    json: JsonOption = False,
) -> None:
    """Print what an application must be told: base URLs, the model, the variable that has the key.

    The URL is the node's public_url, where it has one, else the one that this command uses. The key itself is never
    printed.
    """
    from neuron.cli.render import show_fields, show_json
    from neuron.nodes import KEY_VARIABLE, shell_key

    if export and json:
        raise UsageError("--export and --json are two forms of one answer", hint="leave one out")
    with node(host) as client:
        answering = [m.id for m in client.models(all=True) if m.status in ("loaded", "available")]
        chosen = _chosen(model, answering, client.url)
        url = _base_url(client, chosen)
        found = {
            "openai_base_url": f"{url}/v1",
            "anthropic_base_url": url,
            "model": chosen,
            "key_variable": KEY_VARIABLE,
        }
    if json:
        show_json(found)
    elif export:
        print("\n".join(_exports(found, shell_key(host, os.environ) or NO_KEY)))
    else:
        show_fields((name.replace("_", " "), value) for name, value in found.items())


def _chosen(asked: str | None, answering: list[str], url: str) -> str:
    if asked is None and len(answering) == 1:
        return answering[0]
    if asked is not None and asked in answering:
        return asked
    if asked is None and answering:
        raise UsageError(f"{url}: name a model; it has {', '.join(answering)}", hint="neuron endpoint MODEL")
    wanted = "no model answers" if asked is None else f"no model {asked!r} answers"
    there = f"; it has {', '.join(answering)}" if answering else ""
    raise ModelNotLoaded(f"{url}: {wanted}{there}", hint=f"neuron load {asked or 'MODEL'} loads one")


def _base_url(client: NodeClient, model: str) -> str:
    """What the node says of itself, unless that is a name for its own machine only."""
    from neuron.node_url import is_loopback

    public = client.endpoint(model)
    if not is_loopback(public):
        return public.rstrip("/")
    if client.url.startswith("unix:"):
        raise UsageError(
            f"{client.url} is a Unix socket, which applications can't be told as a URL",
            hint="set public_url on the node, or have it listen on an address",
        )
    return client.url


def _exports(found: dict[str, str], key: str) -> list[str]:
    model = shlex.quote(found["model"])
    return [
        f"export OPENAI_BASE_URL={shlex.quote(found['openai_base_url'])}",
        f"export OPENAI_API_KEY={key}",
        f"export OPENAI_MODEL={model}",
        f"export ANTHROPIC_BASE_URL={shlex.quote(found['anthropic_base_url'])}",
        f"export ANTHROPIC_API_KEY={key}",
        f"export ANTHROPIC_MODEL={model}",
    ]
