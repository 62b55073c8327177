"""TOML text as tables, with the file and line in every complaint."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from neuron.errors import ConfigError

T = TypeVar("T")
MOST_QUOTED = 300
"""Characters of what somebody wrote in a message."""


def parsed(path: Path, text: str) -> dict[str, Any]:
    """The top table of ``text``, which came from ``path``. Raises `ConfigError`."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        found = re.search(r"at line (\d+)", str(e))
        line = found[1] if found else len(text.splitlines())  # "at end of document"
        raise ConfigError(f"{path}:{line}: not valid TOML: {_printable(str(e))}") from e
    except (ValueError, RecursionError) as e:  # a number of 5,000 digits, lists 1,000 deep
        why = "too deep" if isinstance(e, RecursionError) else "a number too long"
        raise ConfigError(f"{path}:1: not valid TOML: {why}") from e


def line_of(text: str, key: str, after: int = 0) -> int:
    """Number of the line, behind line ``after``, where a key or table of that name begins; ``after`` or 1 where
    no plain line does."""
    named = re.compile(rf"""\s*\[*\s*["']?{re.escape(key)}["']?\s*[\].=]""")
    lines = enumerate(text.splitlines(), 1)
    return next((n for n, line in lines if n > after and named.match(line)), max(after, 1))


def tables(path: Path, text: str, shape: type[T]) -> Iterator[tuple[str, T, int]]:
    """Name, value and line of every table in a file of ``[name]`` tables of one shape.

    Raises:
        ConfigError: anything else, with file and line. A message holds no value, which may be a secret.
    """
    for name, table in parsed(path, text).items():
        line = line_of(text, name)
        if not isinstance(table, dict):
            raise ConfigError(
                f"{path}:{line}: {_printable(repr(name))} is not a table",
                hint=f"write {_printable(f'[{name}]')} above its keys",
            )
        try:
            yield name, msgspec.convert(table, shape), line
        except msgspec.ValidationError as e:
            key = _key_in(str(e))
            where = line_of(text, key, line) if key else line
            raise ConfigError(f"{path}:{where}: {_printable(f'[{name}]: {_plain(str(e))}')}") from None


def _printable(text: str) -> str:
    """Text of others in a message: control characters are spelled, and what is long is cut."""
    spelled = text if text.isprintable() else ascii(text)[1:-1]
    return spelled if len(spelled) <= MOST_QUOTED else f"{spelled[:MOST_QUOTED]}…"


def _key_in(message: str) -> str | None:
    found = re.search(r"`\$\.(\w+)|unknown field `(\w+)`", message)
    return (found[1] or found[2]) if found else None


def _plain(message: str) -> str:
    """msgspec's sentence in the words of a configuration."""
    message = re.sub(r" - at `\$\.(\w+)`", r" in \1", message)
    message = re.sub(r"Object contains unknown field `(\w+)`", r"unknown key '\1'", message)
    return re.sub(r"Object missing required field `(\w+)`", r"\1 is missing", message)
