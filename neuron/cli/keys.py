"""What the commands of ``neuron keys`` share: which file, and what a running node has to do with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from neuron.cli.render import notice

FileOption = Annotated[
    Path | None,
    typer.Option(
        "--file",
        metavar="FILE",
        help="The file of keys [the settings' keys_file, else keys.toml in the state folder].",
        show_default=False,
    ),
]
NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Letters, digits, - and _.", show_default=False)
]


def file_of(said: Path | None) -> Path:
    """The file of keys: what was said, else what a node started here with the same settings would read."""
    from neuron.keys import default_file
    from neuron.settings import resolve

    return said or resolve({}, os.environ).keys_file or default_file()


def say_how_to_reload() -> None:
    """A running node goes on with what it has read."""
    notice("a running node takes it over on SIGHUP: systemctl reload neuron, or kill -HUP PID")
