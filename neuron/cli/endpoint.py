"""``neuron endpoint``: what an application must be told to use a node."""

from __future__ import annotations

import os
import shlex
from typing import Annotated

import typer

from neuron.cli import completing
from neuron.cli.context import HostOption, JsonOption, node
from neuron.errors import UsageError

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

    The key itself is never printed.
    """
    from neuron.cli.render import show_fields, show_json
    from neuron.nodes import KEY_VARIABLE

    if export and json:
        raise UsageError("--export and --json are two forms of one answer", hint="leave one out")
    with node(host) as client:
        answering = [m.id for m in client.models(all=True) if m.status in ("loaded", "available")]
        found = {
            "openai_base_url": f"{client.url}/v1",
            "anthropic_base_url": client.url,
            "model": _chosen(model, answering, client.url),
            "key_variable": KEY_VARIABLE,
        }
    if json:
        show_json(found)
    elif export:
        print("\n".join(_exports(found, bool(os.environ.get(KEY_VARIABLE)))))
    else:
        show_fields((name.replace("_", " "), value) for name, value in found.items())


def _chosen(asked: str | None, answering: list[str], url: str) -> str:
    if asked is None and len(answering) == 1:
        return answering[0]
    if asked is not None and asked in answering:
        return asked
    there = f"it has {', '.join(answering)}" if answering else "it has none"
    wanted = "name a model" if asked is None else f"no model {asked!r} answers"
    raise UsageError(f"{url}: {wanted}; {there}", hint="neuron load MODEL loads one")


def _exports(found: dict[str, str], has_key: bool) -> list[str]:
    key = f'"${found["key_variable"]}"' if has_key else NO_KEY
    model = shlex.quote(found["model"])
    return [
        f"export OPENAI_BASE_URL={shlex.quote(found['openai_base_url'])}",
        f"export OPENAI_API_KEY={key}",
        f"export OPENAI_MODEL={model}",
        f"export ANTHROPIC_BASE_URL={shlex.quote(found['anthropic_base_url'])}",
        f"export ANTHROPIC_API_KEY={key}",
        f"export ANTHROPIC_MODEL={model}",
    ]
