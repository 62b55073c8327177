"""The line, or the lines, that a person types: editing, history, completion, a status line below."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app, run_in_terminal
from prompt_toolkit.filters import Condition, is_searching
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.shortcuts import CompleteStyle
from prompt_toolkit.styles import Style

from neuron.cli.chat_completion import ChatCompleter, KnownModels
from neuron.cli.editor import edited
from neuron.cli.render import notice
from neuron.cli.talk import Talk, complain
from neuron.cli.terminal_text import one_line
from neuron.errors import UsageError
from neuron.settings import state_dir

PROMPT = ">>> "
MORE = "... "
STYLE = Style.from_dict({"bottom-toolbar": "noreverse fg:ansibrightblack"})


class ChatPrompt:
    """Asks for messages on a terminal."""

    def __init__(self, talk: Talk) -> None:
        self._session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=MORE,
            history=_history(),
            completer=ChatCompleter(KnownModels(talk.target.list_ids)),
            complete_while_typing=Condition(lambda: get_app().current_buffer.text.startswith("/")),
            complete_style=CompleteStyle.COLUMN,
            complete_in_thread=True,
            key_bindings=_keys(),
            bottom_toolbar=lambda: status(talk),
            reserve_space_for_menu=4,
            enable_suspend=True,
            style=STYLE,
        )

    def __call__(self) -> str:
        """A message. Raises `EOFError` for Ctrl-D, `KeyboardInterrupt` for Ctrl-C."""
        return self._session.prompt(pre_run=_watch_stops)


def _watch_stops() -> None:
    """Ctrl-Z is the editor's own key; a stop by a signal from elsewhere comes unseen, and is seen as it ends."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGCONT, _take_terminal_back)


def _take_terminal_back() -> None:
    """Draw the prompt anew, where a shell has set the terminal to whole lines meanwhile."""
    if not termios.tcgetattr(sys.stdin)[3] & termios.ICANON:
        return
    app = get_app()
    app.input.raw_mode().__enter__()  # what leaving the prompt sets is what was there before it
    app.renderer.reset()  # the cursor is below what the shell wrote
    run_in_terminal(lambda: None)


def status(talk: Talk) -> str:
    """Model, context, speed and session in a line."""
    used = "-" if talk.used is None else f"{talk.used:,}"
    limit = "-" if talk.context is None else f"{talk.context:,}"
    speed = talk.printer.tokens_per_s
    parts = [
        one_line(talk.conversation.model_id),
        f"context {used} / {limit}",
        *([] if speed is None else [f"{speed:.1f} tok/s"]),
        talk.session.name if talk.session else "not kept",
    ]
    return "  ·  ".join(parts)


def _history() -> History:
    """What was typed before, in a file that only its owner reads; ``NEURON_NO_HISTORY`` keeps none."""
    if os.environ.get("NEURON_NO_HISTORY"):
        return InMemoryHistory()
    path = state_dir() / "chat_history"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as e:
        notice(f"what is typed is not kept: {path}: {e.strerror}")
        return InMemoryHistory()
    return FileHistory(path)


def _keys() -> KeyBindings:
    keys = KeyBindings()
    keys.add(Keys.Enter, filter=~is_searching)(_enter)
    keys.add(Keys.Escape, Keys.Enter)(_new_line)
    keys.add(Keys.ControlJ, filter=~is_searching)(_new_line)
    keys.add(Keys.ControlG, filter=~is_searching)(_editor)
    return keys


def _enter(event: KeyPressEvent) -> None:
    """Send; a backslash before the cursor becomes a new line instead."""
    buffer = event.current_buffer
    if buffer.complete_state and buffer.complete_state.current_completion:
        buffer.complete_state = None
    elif buffer.document.char_before_cursor == "\\":
        buffer.delete_before_cursor()
        buffer.newline(copy_margin=False)
    else:
        buffer.validate_and_handle()


def _new_line(event: KeyPressEvent) -> None:
    event.current_buffer.newline(copy_margin=False)


def _editor(event: KeyPressEvent) -> None:
    buffer = event.current_buffer

    def edit() -> None:
        try:
            text = edited(buffer.text)
        except UsageError as e:
            complain(e)
            return
        buffer.text = text
        buffer.cursor_position = len(text)

    run_in_terminal(edit)
