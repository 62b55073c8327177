"""``neuron config show``: the settings that a node here would run with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuron.cli.context import JsonOption

if TYPE_CHECKING:
    from neuron.settings import Settings

EXAMPLES = (
    "neuron config show --origin",
    "neuron config show --json",
    "neuron config show --config /etc/neuron/neuron.toml",
)


def run(
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings in TOML [neuron.toml in ~/.config/neuron].")
    ] = None,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value comes from.")] = False,
    json: JsonOption = False,
) -> None:
    """Show every setting as neuron serve would take it now, from the environment and the file.

    In JSON each key has its value, its origin (default, file, environment, flag) and where that is: the file and
    line, or the variable.
    """
    from neuron.cli.render import show_json, show_table
    from neuron.settings import KEYS, resolve

    settings = resolve({}, os.environ, config)
    if json:
        show_json({key: _shown(settings, key) for key in KEYS})
        return
    columns = ("KEY", "VALUE", "ORIGIN") if origin else ("KEY", "VALUE")
    rows = ((k, _words(getattr(settings, k)), settings.origins.get(k, "default")) for k in KEYS)
    show_table(columns, (row[: len(columns)] for row in rows))


def _shown(settings: Settings, key: str) -> dict[str, Any]:
    value, at = _plain(getattr(settings, key)), settings.origins.get(key)
    return {"value": value, "origin": settings.kind(key), "at": at}


def _plain(value: Any) -> Any:
    """As JSON has it."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _words(value: Any) -> str:
    from neuron.cli.config_file import toml

    return "-" if value is None else toml(value)
