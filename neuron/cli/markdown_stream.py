"""Markdown on a terminal while it arrives. What is written stays, so nothing is there twice when it scrolls.

Prose is written word by word, code line by line and coloured, tables when they are whole. A line of the source is
a line on the screen, or several: models break lines where they mean it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from neuron.cli.inline_markdown import InlineStream, Run
from neuron.cli.wrapped import WrappedLine, styled

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_UNDECIDED = re.compile(
    r"\s*(?:#{0,6}\s*|[-*_](?:\s*[-*_])*\s*|\+\s*|\d{1,9}(?:[.)]\s*)?|>[\s>]*|`{1,2}|~{1,2}|`{3,}[^`]*|~{3,}.*|\|.*)"
)
"""The beginning of a line that does not say yet what it is."""
_MARKER = re.compile(
    r"(?P<indent>\s*)(?:(?P<heading>#{1,6})\s+|(?P<bullet>[-*+])\s+|(?P<number>\d{1,9}[.)])\s+|(?P<quote>(?:>\s?)+))?"
)
_FENCE = re.compile(r"(?P<indent>\s*)(?P<marks>`{3,}|~{3,})\s*(?P<language>[^\s`]*)[^`]*")
_RULE = re.compile(r"\s*([-*_])(?:\s*\1){2,}\s*")
_DIVIDER = re.compile(r"\s*\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*")
_CELL = re.compile(r"(?<!\\)\|")
COLOURED_LINES = 200
"""How far back colouring looks for what a line of code is part of."""


class _Fence(NamedTuple):
    """A block of code that is open."""

    indent: int
    marks: str
    language: str
    lines: list[str]


class MarkdownStream:
    """`feed` text in pieces, then `close`. The text must be harmless for a terminal already.

    Args:
        write: takes what is shown.
        console: knows the terminal and its width at any time.
    """

    def __init__(self, write: Callable[[str], None], console: Console) -> None:
        self._write = write
        self._console = console
        self._raw = ""
        self._prose: tuple[InlineStream, WrappedLine] | None = None
        self._fence: _Fence | None = None
        self._table: list[str] = []
        self._blank = False
        self._begun = False

    def feed(self, text: str) -> None:
        """Show what can be shown by now."""
        first, *others = text.replace("\t", "    ").split("\n")
        self._grow(first)
        for piece in others:
            self._end_line()
            self._grow(piece)

    def close(self) -> None:
        """Show the rest, and end the last line."""
        if self._raw:
            self._end_line()
        self._end_table()

    def _grow(self, piece: str) -> None:
        self._raw += piece
        if self._prose:
            self._add(self._prose, piece)
        elif self._raw and not self._fence and not _UNDECIDED.fullmatch(self._raw):
            self._begin_prose()

    def _add(self, prose: tuple[InlineStream, WrappedLine], piece: str) -> None:
        inline, line = prose
        line.add(inline.feed(piece))

    def _end_line(self) -> None:
        raw, self._raw = self._raw, ""
        if self._prose:
            inline, line = self._prose
            line.add(inline.end())
            line.end()
            self._prose = None
        elif self._fence:
            self._code_line(raw, self._fence)
        elif raw.strip().startswith("|"):
            self._table.append(raw)
            self._show_waiting()
        else:
            self._whole_line(raw)

    def _whole_line(self, raw: str) -> None:
        """A line that only its end told: nothing, a fence, a rule, or something short."""
        if not raw.strip():
            self._end_table()
            self._blank = self._begun
        elif fence := _FENCE.fullmatch(raw):
            self._begin_block()
            self._fence = _Fence(len(fence["indent"]), fence["marks"], fence["language"], [])
            self._write(styled(Run(raw, "dim")) + "\n")
        elif _RULE.fullmatch(raw):
            self._begin_block()
            self._write(styled(Run("─" * (self._console.width - 1), "dim")) + "\n")
        else:
            self._raw = raw
            self._begin_prose()
            self._end_line()

    def _begin_block(self) -> None:
        """What comes before any block: the table above it, an empty line if there was one."""
        self._end_table()
        if self._blank:
            self._write("\n")
        self._blank, self._begun = False, True

    def _begin_prose(self) -> None:
        self._begin_block()
        marker = _MARKER.match(self._raw)
        assert marker
        prefix, style = _prefix(marker)
        hang = "▌ " if marker["quote"] else " " * len(prefix.text)
        line = WrappedLine(self._write, lambda: self._console.width, prefix, hang)
        self._prose = InlineStream(style), line
        self._add(self._prose, self._raw[marker.end() :])

    # ---- code -------------------------------------------------------------------------------------------------

    def _code_line(self, raw: str, fence: _Fence) -> None:
        closing = raw.strip()
        if len(closing) >= len(fence.marks) and closing == fence.marks[0] * len(closing):
            self._fence = None
            self._write(styled(Run(raw, "dim")) + "\n")
            return
        fence.lines.append(raw)
        del fence.lines[:-COLOURED_LINES]
        self._print(self._coloured(fence))

    def _coloured(self, fence: _Fence) -> Text:
        """The last line, in the colours it has as part of the block."""
        from rich.syntax import Syntax
        from rich.text import Text

        if not fence.language or not fence.lines[-1].strip():
            return Text(fence.lines[-1])
        syntax = Syntax("", fence.language, theme="ansi_dark", background_color="default")
        lines = syntax.highlight("\n".join(fence.lines)).split("\n", allow_blank=False)
        last = lines[-1] if lines else Text()
        return last if last.plain == fence.lines[-1] else Text(fence.lines[-1])

    # ---- tables ------------------------------------------------------------------------------------------------

    def _show_waiting(self) -> None:
        """A short line in the place where the table will begin."""
        if len(self._table) == 1:
            rows, self._table = self._table, []
            self._begin_block()
            self._table = rows
        self._write("\r" + styled(Run(f"table, {len(self._table)} rows", "dim")))

    def _end_table(self) -> None:
        rows, self._table = self._table, []
        if not rows:
            return
        self._write("\r\x1b[K")
        if len(rows) < 2 or not _DIVIDER.fullmatch(rows[1]):
            self._write("".join(row + "\n" for row in rows))
            return
        self._show_table([_cells(row) for row in rows[:1] + rows[2:]], _cells(rows[1]))

    def _show_table(self, rows: list[list[str]], dividers: list[str]) -> None:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
        width = max(map(len, rows))
        for n, head in enumerate([*rows[0], *[""] * (width - len(rows[0]))]):
            divider = dividers[n] if n < len(dividers) else ""
            table.add_column(
                _text(head), justify="right" if divider.endswith(":") else "left", overflow="fold"
            )
        for row in rows[1:]:
            table.add_row(*map(_text, row))
        self._print(table)

    def _print(self, what: object) -> None:
        with self._console.capture() as shown:
            self._console.print(what, soft_wrap=not hasattr(what, "columns"))
        self._write(shown.get())


def _prefix(marker: re.Match[str]) -> tuple[Run, str]:
    """What stands before the text of a line, and the style of that text."""
    indent = marker["indent"]
    if marker["heading"]:
        return Run(""), "bold underline" if len(marker["heading"]) == 1 else "bold"
    if marker["bullet"]:
        return Run(f"{indent}• "), ""
    if marker["number"]:
        return Run(f"{indent}{marker['number']} "), ""
    return (Run("▌ ", "dim"), "italic") if marker["quote"] else (Run(indent), "")


def _cells(row: str) -> list[str]:
    inner = row.strip().removeprefix("|")
    if inner.endswith("|") and not inner.endswith("\\|"):
        inner = inner[:-1]
    return [cell.strip().replace("\\|", "|") for cell in _CELL.split(inner)]


def _text(cell: str) -> Text:
    from rich.text import Text

    return Text.assemble(*((run.text, run.style) for run in InlineStream().feed_all(cell)))
