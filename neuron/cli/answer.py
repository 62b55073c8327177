"""Answers on the terminal, in a pipe, or as JSON."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from neuron.cli.chat_settings import Display
from neuron.cli.reasoning import ReasoningPrinter
from neuron.cli.render import notice
from neuron.cli.terminal import takes_style
from neuron.cli.terminal_text import TerminalText
from neuron.client import ChatDelta, ChatEnd

if TYPE_CHECKING:
    from neuron.cli.markdown_stream import MarkdownStream

Show = Callable[[ChatDelta], None]
Ask = Callable[[Show], ChatEnd]
"""Asks, hands every part of the answer to what it is given, and returns its end."""


class AnswerPrinter:
    """Prints answers to stdout as they come, and what is to be said about them to stderr."""

    def __init__(self, display: Display | None = None, *, raw: bool = False) -> None:
        self.display = display or Display()
        self.tokens_per_s: float | None = None
        """Of the last answer."""
        self.raw = raw
        self.begin()

    def answer(self, ask: Ask) -> ChatEnd:
        """Ask and print. The line is ended however the answer ends."""
        self.begin()
        try:
            end = ask(self._show)
        finally:
            self._end_lines()
        self.remark(end)
        return end

    def begin(self) -> None:
        """A new answer: nothing of it is there yet."""
        self._text, self._reasoning = TerminalText(), ReasoningPrinter(self.display.reasoning)
        self._markdown = self._new_markdown()
        self._last = "\n"
        self._asked_s = time.monotonic()
        self._first_s: float | None = None

    def _new_markdown(self) -> MarkdownStream | None:
        """Where the output is a terminal that takes styles, and nothing speaks against it."""
        if self.raw or self.display.markdown == "off" or not takes_style(sys.stdout):
            return None
        from rich.console import Console

        from neuron.cli.markdown_stream import MarkdownStream

        return MarkdownStream(self._write, Console(file=sys.stdout, highlight=False))

    def _show(self, delta: ChatDelta) -> None:
        self.note(delta)
        self._reasoning.feed(delta.reasoning)
        if not delta.text:
            return
        self._reasoning.end()
        text = delta.text if self.raw else self._text.feed(delta.text)
        write = self._markdown.feed if self._markdown else self._write
        write(text)
        sys.stdout.flush()

    def note(self, delta: ChatDelta) -> None:
        """Something came; the first time of an answer counts for its speed."""
        self._first_s = self._first_s or time.monotonic()

    def _write(self, text: str) -> None:
        if text:
            print(text, end="")
            self._last = text[-1]

    def _end_lines(self) -> None:
        self._reasoning.end()
        if self._markdown:
            self._markdown.close()
        if self._last != "\n":
            print()
        sys.stdout.flush()

    def remark(self, end: ChatEnd) -> None:
        """What is to be said about an answer after it."""
        if end.finish_reason == "length":
            notice("[cut: the answer reached its limit of tokens]")
        if end.usage is None:
            return
        first_s = self._first_s or time.monotonic()
        decode_s = max(time.monotonic() - first_s, 1e-6)
        self.tokens_per_s = max(end.usage.completion_tokens - 1, 0) / decode_s
        if self.display.usage == "on":
            notice(
                f"[{end.usage.prompt_tokens} prompt tokens, first text after {first_s - self._asked_s:.2f} s; "
                f"{end.usage.completion_tokens} answer tokens, {self.tokens_per_s:.1f} a second]"
            )
