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
    certificates. Ends with 0, or with 78 and a line that names file, line and key.
    """
    from neuron import keys, tls
    from neuron.address import address_of, check_guarded
    from neuron.settings import config_file, resolve

    settings = resolve({}, os.environ, file)
    tls.server_context(settings)
    ring = keys.load(settings.keys_file, os.environ)
    if settings.uds is None:
        check_guarded(f"bind {settings.bind}", address_of(settings)[1][0], settings, ring is not None)
    print(f"{config_file(os.environ, file) or 'no file, the defaults'}: good")
