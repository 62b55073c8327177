"""A model's thinking on stderr: shown dim, folded into a line, or hidden."""

from __future__ import annotations

import sys
import time

from neuron.cli.terminal import dim, is_capable
from neuron.cli.terminal_text import TerminalText


class ReasoningPrinter:
    """`feed` it thoughts as they come, then `end` it; nothing happens where there are none."""

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._filter = TerminalText()
        self._pieces = 0
        self._began_s = 0.0
        self._last = "\n"

    def feed(self, text: str) -> None:
        """The next thought; a piece is a token, as a rule."""
        if not text:
            return
        self._began_s = self._began_s or time.monotonic()
        self._pieces += 1
        if self._mode == "show":
            self._show(self._filter.feed(text))
        elif self._mode == "fold" and is_capable(sys.stderr):
            self._say("\r" + dim(f"thinking for {self._spent_s():.0f} s", sys.stderr))

    def end(self) -> None:
        """The thinking is over: its line ends, or the line that it is folded into is written."""
        if not self._pieces:
            return
        if self._mode == "show":
            self._say(("" if self._last == "\n" else "\n") + ("\n" if is_capable(sys.stderr) else ""))
        elif self._mode == "fold":
            erase = "\r\x1b[K" if is_capable(sys.stderr) else ""
            words = f"thought for {self._spent_s():.1f} s, about {self._pieces} tokens"
            self._say(f"{erase}{dim(words, sys.stderr)}\n")
        self._pieces = 0

    def _show(self, text: str) -> None:
        if text:
            self._last = text[-1]
            self._say(dim(text, sys.stderr))

    def _spent_s(self) -> float:
        return time.monotonic() - self._began_s

    def _say(self, text: str) -> None:
        print(text, end="", file=sys.stderr, flush=True)
