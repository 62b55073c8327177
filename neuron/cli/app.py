"""The application: every command, and the help that frames them. Importing this must stay quick."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.main import get_command

from neuron.cli import (
    bench,
    chat,
    config_check,
    config_init,
    config_show,
    discovery,
    doctor,
    drain,
    endpoint,
    events,
    explain,
    health,
    keys_add,
    keys_list,
    keys_revoke,
    load,
    models,
    nodes,
    pull,
    rm,
    serve,
    show,
    unload,
    version,
    wait,
)
from neuron.cli.context import examples
from neuron.cli.exits import MEANINGS

COMMANDS = (
    serve,
    load,
    unload,
    models,
    show,
    endpoint,
    pull,
    rm,
    chat,
    health,
    wait,
    drain,
    explain,
    events,
    bench,
    doctor,
    discovery,
    nodes,
    version,
)
"""Modules with a function ``run`` and ``EXAMPLES``; the command is named like its module."""

GROUPS: dict[str, tuple[str, tuple[ModuleType, ...]]] = {
    "config": (
        "The settings of a node: what they are and whence, whether a file is right, a file to begin with.",
        (config_show, config_check, config_init),
    ),
    "keys": ("Who may use a node: make, list and take away keys.", (keys_add, keys_list, keys_revoke)),
}
"""Commands of two words: the first → its help and a module for each second; ``config_show`` is ``config show``."""

ALIASES: dict[str, str] = {"ps": "models"}
"""Other names that are not listed: ``ps`` → ``models``."""

EXAMPLES = (
    'neuron chat smollm2 "What is the capital of France?"',
    "neuron serve smollm2",
    "neuron models --host gpu1",
)


def program() -> Any:
    """The command line as a group of commands that can parse, complete and document itself."""
    return get_command(_app())


def _app() -> typer.Typer:
    app = typer.Typer(
        name="neuron",
        callback=_neuron,
        epilog=f"{examples(*EXAMPLES)}\n\n{_exit_codes()}",
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,  # plain help: no escapes, and no import of rich to show it
        pretty_exceptions_enable=False,
    )
    groups = {
        name: typer.Typer(name=name, help=text, rich_markup_mode=None) for name, (text, _) in GROUPS.items()
    }
    for words, module in commands():
        parent = groups[words[0]] if len(words) > 1 else app
        parent.command(words[-1], epilog=examples(*module.EXAMPLES))(module.run)
        for alias in (alias for alias, name in ALIASES.items() if (name,) == words):
            app.command(alias, epilog=examples(*module.EXAMPLES), hidden=True)(module.run)
    for group in groups.values():
        app.add_typer(group)
    return app


def commands() -> Iterator[tuple[tuple[str, ...], ModuleType]]:
    """Every command by its words, with the module that runs it."""
    for module in COMMANDS:
        yield (_last_name(module),), module
    for group, (_, modules) in GROUPS.items():
        for module in modules:
            yield (group, _last_name(module).removeprefix(f"{group}_")), module


def command_of(words: tuple[str, ...]) -> Any:
    """The parsed command of these words."""
    command = program()
    for word in words:
        command = command.commands[word]
    return command


def _last_name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def _exit_codes() -> str:
    lines = (f"  {code.value:>3}  {meaning}" for code, meaning in MEANINGS.items())
    return "\b\nExit codes:\n" + "\n".join(lines)


def _show_version(wanted: bool) -> None:
    if wanted:
        from neuron.cli.version import package_version

        print(f"neuron {package_version()}")
        raise typer.Exit


def _neuron(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and leave.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Load open-weight language models, chat with them, and serve them over HTTP, on this machine or another."""
