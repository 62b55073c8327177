"""What the terminal at the other end can do, and keys that are pressed while nobody reads them."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import TextIO

ENDING = (signal.SIGTERM, signal.SIGHUP)


def is_capable(stream: TextIO) -> bool:
    """Whether ``stream`` is a terminal that moves a cursor."""
    return stream.isatty() and os.environ.get("TERM") not in (None, "", "dumb", "unknown")


def takes_style(stream: TextIO) -> bool:
    """The same, and ``NO_COLOR`` doesn't speak against it."""
    return is_capable(stream) and not os.environ.get("NO_COLOR")


def dim(text: str, stream: TextIO) -> str:
    """``text`` paler, where ``stream`` takes it."""
    return f"\x1b[2m{text}\x1b[22m" if text.strip() and takes_style(stream) else text


@contextlib.contextmanager
def keys_wait() -> Iterator[None]:
    """While an answer is printed: typed keys aren't echoed into it, and wait for the next prompt as they were
    typed. Ctrl-C still interrupts. A shell that stopped the process may have changed the terminal meanwhile."""
    if not is_capable(sys.stdin):
        yield
        return
    import termios

    before = termios.tcgetattr(sys.stdin)
    quiet = termios.tcgetattr(sys.stdin)
    quiet[0] &= ~termios.ICRNL
    quiet[3] &= ~(termios.ECHO | termios.ICANON)

    def hush(number: int = 0, frame: FrameType | None = None) -> None:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, quiet)

    continued = signal.signal(signal.SIGCONT, hush)
    hush()
    try:
        yield
    finally:
        signal.signal(signal.SIGCONT, continued)
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)


class _Ended(BaseException):
    """A signal that ends the process."""


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """SIGTERM, and SIGHUP of a terminal that is closed, unwind what runs, so that it keeps what it has; then the
    process dies of the signal, as it would have. A signal that is ignored stays so."""
    caught: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        for each in (*ENDING, signal.SIGINT):
            signal.signal(each, signal.SIG_IGN)
        caught.append(number)
        raise _Ended

    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, end)
    try:
        yield
    finally:
        if caught:
            signal.signal(caught[0], signal.SIG_DFL)
            os.kill(os.getpid(), caught[0])


@contextlib.contextmanager
def one_interrupt() -> Iterator[None]:
    """The first Ctrl-C interrupts what runs; more of them, until that has ended, do nothing."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
