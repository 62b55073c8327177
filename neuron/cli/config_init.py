"""``neuron config init``: a configuration file to begin with."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = (
    "neuron config init",
    "neuron config init gpu1.toml",
    "neuron config init -",
)


def run(
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="Where to write it, - for standard output [neuron.toml in ~/.config/neuron].",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that is there.")] = False,
) -> None:
    """Write a configuration file with every key in it, its description and its default, all commented out."""
    from neuron.cli.config_file import commented
    from neuron.settings import config_dir

    if file == Path("-"):
        print(commented(), end="")
        return
    path = file or config_dir(os.environ) / "neuron.toml"
    if file is None:
        path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, commented(), force)
    print(path)


def _write(path: Path, text: str, force: bool) -> None:
    """Whole or not at all. Raises `ConfigError` without a folder, and where a file is there without ``force``."""
    from neuron.errors import ConfigError

    if not path.parent.is_dir():
        folder = path.parent
        raise ConfigError(f"{path}: there is no folder {folder}", hint=f"mkdir -p {shlex.quote(str(folder))}")
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(text, encoding="utf-8")
    try:
        if force:
            new.replace(path)
        else:
            os.link(new, path)
    except FileExistsError as e:
        raise ConfigError(f"{path} is there already", hint="--force replaces it") from e
    finally:
        new.unlink(missing_ok=True)
