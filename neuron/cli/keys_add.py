"""``neuron keys add``: make a key."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from neuron.cli.context import JsonOption
from neuron.cli.keys import FileOption, NameArgument, file_of, say_how_to_reload

EXAMPLES = (
    "neuron keys add alice",
    "neuron keys add batch --max-in-flight 4",
    "neuron keys add fleet --scope manage --file /etc/neuron/keys.toml",
)


class Granted(StrEnum):
    """Scopes that a key can have."""

    infer = "infer"
    manage = "manage"


def run(
    name: NameArgument,
    scope: Annotated[
        Granted,
        typer.Option("--scope", help="infer: ask models and read how the node is; manage: everything."),
    ] = Granted.infer,
    max_in_flight: Annotated[
        int | None,
        typer.Option(
            "--max-in-flight",
            metavar="N",
            min=1,
            help="Most answers that may run and wait on one model [max_per_principal].",
            show_default=False,
        ),
    ] = None,
    file: FileOption = None,
    json: JsonOption = False,
) -> None:
    """Make a key and print its secret, this once.

    The file gets only a hash of it. Clients send the secret as a bearer token; commands take it from
    NEURON_API_KEY.
    """
    from neuron import keys
    from neuron.cli.render import show_json
    from neuron.errors import UsageError
    from neuron.key_file import change

    if problem := keys.wrong_name(name):
        raise UsageError(problem)
    key, secret = keys.make(name, keys.GRANTED[scope], max_in_flight)
    path = file_of(file)
    change(path, lambda ring: ring.with_key(key))
    if json:
        show_json({**keys.shown(key), "secret": secret, "file": str(path)})
    else:
        print(secret)
    say_how_to_reload()
