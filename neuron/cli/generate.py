"""Completions, manual pages and two documents, written from the application: ``python -m neuron.cli.generate``.

A test compares what is committed with what this writes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from neuron.cli import manual, manual_toml

ROOT = Path(__file__).parents[2]
SHELLS = {"bash": "neuron.bash", "zsh": "_neuron", "fish": "neuron.fish"}

AUTOLOADED = {"zsh": '[[ $zsh_eval_context[-1] == loadautofunc ]] && _neuron_completion "$@"\n'}
"""From a folder of ``fpath`` zsh runs the file when the first completion is asked for, and wants that one too."""


def main() -> None:
    """Write each file."""
    for path, text in files():
        target = ROOT / path
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8")


def files() -> Iterator[tuple[str, str]]:
    """Path, relative to the repository, and content of each generated file."""
    for shell, name in SHELLS.items():
        yield f"completions/{name}", completion(shell)
    for name, text in (*manual.pages(), manual_toml.page()):
        yield f"man/{name}", text
    yield from _documents()


def _documents() -> Iterator[tuple[str, str]]:
    """What needs types and tables that the command line itself starts without."""
    from neuron.cli import api_manual, handbook

    yield "man/neuron-api.7", api_manual.page()
    yield "docs/cli.md", handbook.handbook()
    yield "docs/json.md", handbook.json_page()
    yield "docs/cli.schema.json", handbook.schemas()


def completion(shell: str) -> str:
    """The script that makes ``shell`` ask the program itself for completions."""
    done = subprocess.run(
        [sys.executable, "-m", "neuron.cli.main"],
        env={**os.environ, "_NEURON_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return f"{done.stdout.strip()}\n{AUTOLOADED.get(shell, '')}"


if __name__ == "__main__":
    main()
