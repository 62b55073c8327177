"""``neuron config check``: whether a node would start with these settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    "neuron config check",
    "neuron config check /etc/neuron/neuron.toml",
)


def run(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help="The file [neuron.toml in ~/.config/neuron].", show_default=False
        ),
    ] = None,
) -> None:
    """Tell whether a node would take a configuration file, without starting one.

    The environment counts as it does for neuron serve. The files that the settings name are read as well: keys,
    certificates. Ends with 0, or with 78 and a line for each mistake that names file, line and key. Only a start
    tells whether models can be had and fit, whether the port is free, and whether a GPU that is there works.
    """
    from neuron.cli.before_start import look, look_at_address
    from neuron.settings import config_file

    found = look({}, os.environ, file)
    look_at_address(found)
    found.refuse()
    print(f"{config_file(os.environ, file) or 'no file, the defaults'}: good")
