"""A terminal: the program on a pseudo terminal, its keys, and the screen that an emulator makes of its output."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pexpect
import pyte

from tests.support.cli import PROGRAM, environment

KEYS = {"enter": "\r", "alt-enter": "\x1b\r", "tab": "\t", "up": "\x1b[A", "escape": "\x1b"}
KEYS |= {f"ctrl-{letter}": chr(ord(letter) - 96) for letter in "abcdefghijklmnopqrstuvwxyz"}


class _Screen(pyte.HistoryScreen):
    """Answers what programs ask a terminal, as one does."""

    answer: Callable[[str], None]

    def write_process_input(self, data: str) -> None:
        self.answer(data)


class Terminal:
    """A program and what its terminal shows."""

    def __init__(self, args: list[str], env: dict[str, str], columns: int, lines: int) -> None:
        self.screen = _Screen(columns, lines, history=10_000, ratio=0.001)
        self.screen.answer = self._answer
        self._stream = pyte.ByteStream(self.screen)
        self.child = pexpect.spawn(args[0], args[1:], env=env, dimensions=(lines, columns), timeout=10)
        self.output = b""
        """Every byte the program wrote."""

    def _answer(self, data: str) -> None:
        with suppress(OSError):
            self.child.send(data)

    def read(self, wait_s: float = 0.05) -> None:
        """Show what the program has written by now."""
        with suppress(pexpect.TIMEOUT, pexpect.EOF):
            while data := self.child.read_nonblocking(65536, wait_s):
                self.output += data
                self._stream.feed(data)
                wait_s = 0

    def until(self, condition: Callable[[], bool], within_s: float = 15) -> None:
        """Read until ``condition``, or fail with the screen."""
        deadline_s = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline_s, "it did not happen; the screen:\n" + self.text
            self.read()

    def wait_for(self, text: str, within_s: float = 15) -> None:
        """Until the text is somewhere on the screen or above it."""
        self.until(lambda: text in self.text, within_s)

    def wait_prompt(self) -> None:
        """Until an empty prompt has the cursor, with the status line below it."""
        self.until(lambda: self.line.strip() == ">>>" and "context" in self.shown[-1])

    def wait_end(self) -> int:
        """Until the program has ended; its exit code."""
        self.until(lambda: not self.child.isalive())
        self.read()
        self.child.close()
        return int(self.child.exitstatus if self.child.exitstatus is not None else -1)

    def press(self, *keys: str) -> None:
        """Keys by name; anything else is typed as it is."""
        for key in keys:
            self.child.send(KEYS.get(key, key))

    def ask(self, text: str) -> None:
        """Type and send."""
        self.press(text, "enter")

    def paste(self, text: str) -> None:
        """As a terminal does that was asked to mark what is pasted."""
        assert b"\x1b[?2004h" in self.output
        self.child.send(f"\x1b[200~{text}\x1b[201~")

    def resize(self, columns: int, lines: int) -> None:
        """Another size, and the signal that says so."""
        self.screen.resize(lines, columns)
        self.child.setwinsize(lines, columns)
        self.child.kill(signal.SIGWINCH)

    @property
    def job(self) -> int:
        """The process that the program, a shell, runs as its job."""
        pid = self.child.pid
        (found,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(found)

    @property
    def line(self) -> str:
        """The line that has the cursor."""
        return self.screen.display[self.screen.cursor.y].rstrip()

    @property
    def shown(self) -> list[str]:
        """The lines of the screen up to the last that has anything."""
        return [line.rstrip() for line in self.screen.display if line.strip()] or [""]

    @property
    def text(self) -> str:
        """Everything that was shown: what has scrolled away, and the screen."""
        above = [
            "".join(row[x].data for x in range(self.screen.columns)).rstrip()
            for row in self.screen.history.top
        ]
        return "\n".join([*above, *(line.rstrip() for line in self.screen.display)]).rstrip()

    @property
    def flat(self) -> str:
        """The same without the ends of lines, where a long one may have been broken anywhere."""
        return self.text.replace("\n", "")

    def count(self, pattern: str) -> int:
        """How often a regular expression is found in all that was shown."""
        return len(re.findall(pattern, self.text))


@contextmanager
def terminal(
    *args: str,
    state: Path,
    columns: int = 80,
    lines: int = 24,
    program: tuple[str, ...] = PROGRAM,
    **env: str,
) -> Iterator[Terminal]:
    """The program on a terminal of that size, ended on the way out."""
    more = {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8", "NEURON_STATE": str(state), **env}
    running = Terminal([*program, *args], environment(**more), columns, lines)
    try:
        yield running
    finally:
        running.child.close(force=True)
