"""The conversation on a terminal: a prompt, an answer, a prompt."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from neuron.cli import chat_commands
from neuron.cli.recap import show_recap
from neuron.cli.render import notice
from neuron.cli.talk import Talk, complain
from neuron.cli.terminal import is_capable
from neuron.errors import NeuronError

PROMPT = ">>> "
COMMAND = re.compile(r"/[a-z?]*(?:[ \t].*)?\s*", re.DOTALL)
"""A line that begins with a slash and one word; ``/etc/hosts`` does not."""


class Repl:
    """Reads messages, asks, prints, until the end of input or ``/exit``."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk

    def run(self) -> None:
        """The loop."""
        self._talk.measure()
        show_recap(self._talk)
        read = reader(self._talk)
        notice(f"{self._talk.conversation.model_id}: /help lists commands and keys, Ctrl-D leaves")
        while (text := _message(read)) is not None:
            try:
                self._take(text)
            except chat_commands.Leave:
                return

    def _take(self, text: str) -> None:
        if not COMMAND.fullmatch(text):
            if text.strip():
                self._talk.ask(text)
            return
        try:
            chat_commands.run(self._talk, text)
        except NeuronError as e:
            complain(e)
        except KeyboardInterrupt:
            notice("[stopped]")


def _message(read: Callable[[], str]) -> str | None:
    """What was typed; None at the end of input. Ctrl-C gives up the line."""
    try:
        return read()
    except EOFError:
        return None
    except UnicodeDecodeError:
        notice("that line is not text")
        return ""
    except KeyboardInterrupt:
        notice("Ctrl-D or /exit leaves")
        return ""


def reader(talk: Talk) -> Callable[[], str]:
    """The editor of messages, where the terminal is able to show it; else plain lines."""
    if is_capable(sys.stdin) and is_capable(sys.stdout):
        from neuron.cli.chat_prompt import ChatPrompt

        return ChatPrompt(talk)
    return _plain_line


def _plain_line() -> str:
    """A line; its prompt goes to the terminal, never into a file."""
    try:
        import readline  # noqa: F401 (importing it is what makes `input` edit lines)
    except ImportError:
        pass  # a Python without it still reads lines
    try:
        if sys.stdout.isatty():
            return input(PROMPT)
        print(PROMPT, end="", file=sys.stderr, flush=True)
        return input()
    except (EOFError, KeyboardInterrupt):
        print(file=sys.stderr)
        raise
