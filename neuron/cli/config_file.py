"""A configuration file with every key in it, and how a value is written there."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neuron.settings import ABOUT, Settings, default_words

WIDTH = 100
HEADER = """\
Settings of neuron serve. A flag wins over a variable, which wins over this file, which wins over the default.
Each key is here with its default: take away the # before it to say something else.
neuron config check tells mistakes, neuron config show --origin what holds and where it was said.\
"""


def commented() -> str:
    """The file: each key commented out, below its description."""
    parts = [_comment(HEADER), *(f"{_comment(_described(key))}\n# {assignment(key)}" for key in ABOUT)]
    return "\n\n".join(parts) + "\n"


def assignment(key: str) -> str:
    """``key = value`` with the default, or with what stands for one."""
    default = getattr(Settings(), key)
    return f"{key} = {ABOUT[key].metavar if default is None else toml(default)}"


def toml(value: Any) -> str:
    """A value of a setting as TOML."""
    if isinstance(value, tuple):
        return f"[{', '.join(toml(item) for item in value)}]"
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


def _described(key: str) -> str:
    about = ABOUT[key]
    when = " SIGHUP takes it over." if about.reloads else ""
    return f"{about.help} Default: {default_words(key)}.{when}"


def _comment(text: str) -> str:
    return "\n".join(f"# {line}" for line in _lines(text))


def _lines(text: str) -> Iterator[str]:
    for paragraph in text.splitlines():
        yield from textwrap.wrap(paragraph, WIDTH, break_long_words=False, break_on_hyphens=False)
