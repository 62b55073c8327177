"""Styled text, broken between words at the terminal's width while it is written, and never touched again."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.style import Style

from neuron.cli.inline_markdown import Run


def styled(run: Run) -> str:
    """The run with the escape sequences of its style around it."""
    return Style.parse(run.style).render(run.text, color_system=ColorSystem.STANDARD)


class WrappedLine:
    """One line of source, as many as needed on the screen; those after the first are indented to ``hang``."""

    def __init__(
        self, write: Callable[[str], None], width: Callable[[], int], prefix: Run, hang: str
    ) -> None:
        self._write = write
        self._width = width
        self._hang = hang
        self._word: list[Run] = []
        self._space = ""
        self._column = cell_len(prefix.text)
        self._fresh = True
        write(styled(prefix))

    def add(self, runs: Iterable[Run]) -> None:
        """Write every word that has ended."""
        for run in runs:
            for char in run.text:
                self._char(char, run.style)

    def end(self) -> None:
        """Write the last word, and end the line."""
        self._flush()
        self._write("\n")

    def _char(self, char: str, style: str) -> None:
        if char.isspace() and char != "\u00a0":
            self._flush()
            self._space += char if char == " " else " "
        elif cell_len(char) > 1:  # Chinese and Japanese have no spaces: any place will do
            self._flush()
            self._word.append(Run(char, style))
            self._flush()
        elif self._word and self._word[-1].style == style:
            self._word[-1] = Run(self._word[-1].text + char, style)
        else:
            self._word.append(Run(char, style))

    def _flush(self) -> None:
        if not self._word:
            return
        cells = sum(cell_len(run.text) for run in self._word)
        if not self._fresh and self._column + len(self._space) + cells >= self._width():
            self._write("\n" + self._hang)
            self._column = cell_len(self._hang)
        else:
            self._write(self._space)
            self._column += len(self._space)
        self._write("".join(map(styled, self._word)))
        self._column += cells
        self._word, self._space, self._fresh = [], "", False
