"""``neuron serve``: run a node in the foreground."""

from __future__ import annotations

import os
from collections.abc import Iterator
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any

import typer

from neuron.cli import completing
from neuron.cli.context import model_references
from neuron.errors import Mistakes
from neuron.settings import ABOUT, HINTS, Settings, default_words, flag_of, is_list, read

EXAMPLES = (
    "neuron serve",
    "neuron serve smollm2 --port 13132",
    "neuron serve ./model.gguf --model-root /srv/models --threads 4",
    "neuron serve --config /etc/neuron/neuron.toml",
)


def run(config: Path | None = None, **said: Any) -> None:
    """Run a node in the foreground until it is told to stop.

    Every option can also be said as NEURON_<NAME> in the environment or as a key of neuron.toml; the command line
    wins, then the environment. SIGTERM and Ctrl-C let running answers end; a second one ends at once.
    """
    flags = {key: value for key, value in said.items() if value is not None and value != []}
    raise typer.Exit(_serve(flags, config))


def _serve(flags: dict[str, Any], config: Path | None) -> int:
    """Bind before anything heavy is imported: a wrong setting or a taken port shows at once."""
    from neuron.cli.before_start import look
    from neuron.daemon.listen import listen
    from neuron.daemon.server import serve

    found = look(flags, os.environ, config)
    found.refuse()
    settings, ring = found.settings, found.ring
    socks = listen(settings, guarded=ring is not None)
    return serve(settings, socks, keys=ring, read_again=lambda: _read_again(flags, config))


def _read_again(flags: dict[str, Any], config: Path | None) -> Settings:
    """The settings as they are now. Raises `Mistakes`."""
    settings, wrong = read(flags, os.environ, config)
    if wrong:
        raise Mistakes(wrong)
    return settings


def parameters() -> Iterator[Parameter]:
    """What `run` takes: an option for each key, text that `neuron.settings.resolve` gives its type."""
    for key in ABOUT:
        yield _parameter(key, _kind(key), _declared(key))
    yield _parameter(
        "config",
        Path,
        typer.Option(metavar="FILE", help="Settings in TOML [neuron.toml in ~/.config/neuron]."),
    )


def _parameter(name: str, kind: Any, declared: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, declared])


def _kind(key: str) -> Any:
    return bool if HINTS[key] is bool else list[str] if is_list(key) else str


def _declared(key: str) -> Any:
    """The option of a key, or the argument."""
    about, flag = ABOUT[key], flag_of(key)
    if not flag.startswith("--"):
        return typer.Argument(
            metavar=about.metavar,
            help=about.help,
            show_default=False,
            callback=model_references,
            autocompletion=completing.references,
        )
    words = f"{about.help.rstrip('.')} [{default_words(key)}]."
    if HINTS[key] is bool:
        return typer.Option(f"{flag}/--no-{flag.removeprefix('--')}", help=words)
    return typer.Option(flag, metavar=about.metavar, help=words)


run.__signature__ = Signature(list(parameters()))  # type: ignore[attr-defined]
