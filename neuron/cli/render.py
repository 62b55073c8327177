"""Answers on stdout: tables for people, or JSON. Without a terminal there are no escapes and nothing is cut."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from neuron.cli.terminal_text import one_line

if TYPE_CHECKING:
    from rich.console import Console

UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What JSON may carry as it is and a terminal may act on."""

NUMBER = re.compile(r"-|[\d,]+(\.\d+)?")
BAR_CHARS = 40


def show_json(value: Any) -> None:
    """One JSON document, indented, a newline at its end."""
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    print(UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table; numbers stand at the right."""
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=None, pad_edge=False)
    cells = [list(row) for row in rows]
    for at, column in enumerate(table.columns):
        column.justify = "right" if cells and all(_is_number(row[at]) for row in cells) else "left"
        column.overflow = "fold"
    for row in cells:
        table.add_row(*(Text(one_line(str(cell))) for cell in row))
    console = _stdout_console()
    with console.capture() as rendered:  # rich would make an exit of its own of a pipe that closes
        console.print(table)
    print(_without_padding(rendered.get()), end="")


def _without_padding(rendered: str) -> str:
    """Lines without the blanks that fill up their last column."""
    return "".join(f"{line.rstrip()}\n" for line in rendered.splitlines())


def _is_number(cell: object) -> bool:
    """A number, as such or as people read it; a dash stands for one."""
    return isinstance(cell, int) or bool(NUMBER.fullmatch(str(cell)))


def show_fields(fields: Iterable[tuple[str, object]]) -> None:
    """One ``name  value`` a line, names aligned."""
    pairs = [(name, one_line(str(value))) for name, value in fields]
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        print(f"{name:<{width}}  {value}".rstrip())


def show_bars(values: Sequence[tuple[str, float]]) -> None:
    """A bar a line: blocks on a terminal, in colour where it has any; else plain signs."""
    from rich.text import Text

    console, sign = _stdout_console(), "█" if sys.stdout.isatty() else "#"
    names = max((len(name) for name, _ in values), default=0)
    most = max((value for _, value in values), default=0) or 1
    with console.capture() as rendered:
        for name, value in values:
            bar = sign * max(1 if value else 0, round(BAR_CHARS * value / most))
            line = Text.assemble(
                f"{one_line(name):<{names}}  ", (f"{bar:<{BAR_CHARS}}", "cyan"), f"  {value:,.1f}"
            )
            console.print(line)
    print(_without_padding(rendered.get()), end="")


def notice(text: str) -> None:
    """A line on stderr."""
    print(one_line(text), file=sys.stderr, flush=True)


def megabytes(value: int | None) -> str:
    """``None`` as a dash, else with its unit."""
    return "-" if value is None else f"{value:,} MB"


def _stdout_console() -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() else 10_000
    return Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)
