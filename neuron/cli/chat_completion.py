"""What Tab completes in a conversation."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from neuron.cli import sessions
from neuron.cli.chat_commands import COMMANDS
from neuron.cli.chat_settings import DEFAULT, SAMPLING, SETTINGS
from neuron.cli.target import COMPLETION_S
from neuron.cli.terminal_text import one_line
from neuron.errors import NeuronError
from neuron.sources.aliases import ALIASES


class KnownModels:
    """Ids of loaded models, and short names. A node has 100 ms to say them; later ones serve the next time."""

    def __init__(self, ask: Callable[[], list[str]]) -> None:
        self._ask = ask
        self._ids: list[str] = []
        self._asking: threading.Thread | None = None

    def __call__(self) -> list[str]:
        if self._asking is None or not self._asking.is_alive():
            self._asking = threading.Thread(target=self._refresh, daemon=True)
            self._asking.start()
        self._asking.join(COMPLETION_S)
        return list(dict.fromkeys([*self._ids, *ALIASES]))

    def _refresh(self) -> None:
        try:
            self._ids = [model for model in self._ask() if one_line(model) == model]
        except NeuronError:
            pass  # what was known stays


class ChatCompleter(Completer):
    """Commands after a slash, and what their arguments may be."""

    def __init__(self, models: Callable[[], list[str]]) -> None:
        self._paths = PathCompleter(expanduser=True)
        self._words: dict[str, Callable[[], Iterable[tuple[str, str]]]] = {
            "models": lambda: ((model, "") for model in models()),
            "sessions": lambda: ((name, "") for name in sessions.names()),
            "settings": lambda: ((key, setting.help) for key, setting in SETTINGS.items()),
        }

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterator[Completion]:
        """Of the word before the cursor, in a line that is a command."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, space, argument = text[1:].partition(" ")
        if not space:
            words: Iterable[tuple[str, str]] = ((f"/{n}", c.help) for n, c in COMMANDS.items())
            yield from _matching(text, words)
        elif command := COMMANDS.get(name):
            yield from self._arguments(command.completes, argument, event)

    def _arguments(self, kind: str, argument: str, event: CompleteEvent) -> Iterator[Completion]:
        key, space, value = argument.partition(" ")
        if kind == "paths":
            yield from self._paths.get_completions(Document(argument), event)
        elif kind == "settings" and space:
            yield from _matching(value, ((word, "") for word in _values(key)))
        elif kind:
            yield from _matching(argument, self._words[kind]())


def _values(key: str) -> list[str]:
    """The words that a setting takes, where they can be listed."""
    setting = SETTINGS.get(key)
    if setting is None:
        return []
    words = setting.takes.split("/") if "/" in setting.takes else []
    return [*words, *([DEFAULT] if key in SAMPLING else [])]


def _matching(begun: str, words: Iterable[tuple[str, str]]) -> Iterator[Completion]:
    for word, meaning in words:
        if word.startswith(begun):
            yield Completion(word, -len(begun), display_meta=meaning)
