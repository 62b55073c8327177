"""The commands of a conversation, one table: what each takes, does, and how it is completed."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from neuron.cli import chat_settings, sessions
from neuron.cli.chat_settings import DEFAULT, DISPLAY, SETTINGS
from neuron.cli.recap import show_recap
from neuron.cli.render import notice
from neuron.cli.talk import Talk
from neuron.cli.terminal_text import clean, one_line
from neuron.errors import UsageError


class Leave(Exception):
    """The conversation is over."""


class Command(NamedTuple):
    """A word after a slash."""

    run: Callable[[Talk, str], None]
    help: str
    takes: str = ""
    completes: str = ""
    """What its argument is one of: ``models``, ``sessions``, ``settings``, ``paths``."""


def run(talk: Talk, text: str) -> None:
    """Do what ``/name argument`` says.

    Raises:
        Leave: that was asked for.
        NeuronError: it can't be done; nothing changed.
    """
    name, _, argument = text[1:].strip().partition(" ")
    name = OTHER_NAMES.get(name, name)
    command = COMMANDS.get(name)
    if command is None:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean /{near[0]}?" if near else "/help lists them"
        raise UsageError(f"there is no command /{name}", hint=hint)
    argument = argument.strip()
    if argument and not command.takes:
        raise UsageError(f"/{name} takes nothing after it")
    command.run(talk, argument)


def help_lines() -> Iterator[tuple[str, str]]:
    """Each command as it is typed, and what it does."""
    for name, command in COMMANDS.items():
        yield f"/{name} {command.takes}".strip(), command.help


KEYS = {
    "Enter": "send; after a backslash, a new line",
    "Alt-Enter, Ctrl-J": "a new line",
    "Tab": "complete commands, models, sessions, settings and paths",
    "Ctrl-R": "search what was asked before",
    "Ctrl-G": "write in $VISUAL or $EDITOR",
    "Ctrl-C": "stop an answer, whose part is kept; give up a line",
    "Ctrl-Z": "stop the program; the shell's `fg` brings it back",
    "Ctrl-D": "leave",
}
"""Keys at the prompt."""


def _help(talk: Talk, argument: str) -> None:
    rows = [*help_lines(), *KEYS.items()]
    width = max(len(words) for words, _ in rows)
    for words, meaning in rows:
        _say(f"  {words:<{width}}  {meaning}")


def _exit(talk: Talk, argument: str) -> None:
    raise Leave


def _clear(talk: Talk, argument: str) -> None:
    talk.conversation.change({"do": "clear"})
    talk.measure()
    notice("the conversation is forgotten")


def _undo(talk: Talk, argument: str) -> None:
    question = talk.conversation.undo()
    talk.measure()
    notice(f"taken back: {_short(question)}")


def _regen(talk: Talk, argument: str) -> None:
    talk.ask(_last_question(talk), again=True)


def _edit(talk: Talk, argument: str) -> None:
    from neuron.cli.editor import edited

    question = edited(_last_question(talk))
    if question.strip():
        talk.ask(question, again=True)
    else:
        notice("nothing to ask")


def _last_question(talk: Talk) -> str:
    question = talk.conversation.last_question
    if question is None:
        raise UsageError("nothing was asked yet")
    return question


def _reasoning(talk: Talk, argument: str) -> None:
    answer = talk.conversation.last_answer
    thoughts = (answer or {}).get("reasoning")
    if not thoughts:
        raise UsageError("the last answer has no reasoning")
    _say(clean(thoughts).strip("\n"))


def _save(talk: Talk, argument: str) -> None:
    if not argument:
        where = f"the session {talk.session.name}" if talk.session else "nothing: name a session"
        notice(f"the conversation is kept in {where}")
    elif _is_path(argument):
        path = Path(argument).expanduser()
        _write_file(path, talk)
        notice(f"written: {path}")
    else:
        talk.save_as(argument)
        notice(f"the conversation goes on in the session {argument}")


def _write_file(path: Path, talk: Talk) -> None:
    try:
        if path.suffix == sessions.SUFFIX:
            sessions.write_copy(path, talk.lines())
        else:
            with path.open("x", encoding="utf-8") as file:
                file.write(_as_markdown(talk))
    except OSError as e:
        raise UsageError(f"{path}: {e.strerror}") from e


def _as_markdown(talk: Talk) -> str:
    """The conversation to read: questions as quotes."""
    parts = []
    for turn in talk.conversation.turns:
        text = turn["content"].strip("\n")
        parts.append(
            "\n".join(f"> {line}".rstrip() for line in text.split("\n")) if turn["role"] == "user" else text
        )
    return "\n\n".join(parts) + "\n"


def _is_path(text: str) -> bool:
    return "/" in text or text.endswith((".md", ".txt", sessions.SUFFIX)) or text.startswith("~")


def _load(talk: Talk, argument: str) -> None:
    if not argument:
        raise UsageError("/load needs the name of a session", hint="/sessions lists them")
    talk.move(argument)
    notice(f"the session {argument} goes on with {talk.conversation.model_id}")
    show_recap(talk)


def _sessions(talk: Talk, argument: str) -> None:
    own = talk.session.name if talk.session else None
    found = sessions.summaries()
    for session in found:
        mark = "*" if session.name == own else " "
        _say(f"{mark} {session.name:<20} {session.messages:>4} messages  {_short(session.begins)}")
    if not found:
        notice("there are no sessions yet")


def _model(talk: Talk, argument: str) -> None:
    if argument:
        talk.switch(argument)
        notice(f"the conversation goes on with {talk.conversation.model_id}")
        return
    for model in talk.target.node.models():
        mark = "*" if model.id == talk.conversation.model_id else " "
        _say(f"{mark} {one_line(model.id)}  {model.status}, context {model.limit.context}")


def _system(talk: Talk, argument: str) -> None:
    if not argument:
        _say(clean(talk.conversation.system or "there is no system message"))
        return
    value = None if argument == "-" else argument
    talk.conversation.change({"do": "system", "value": value})
    talk.measure()
    notice("the system message is set" if value else "there is no system message any more")


def _set(talk: Talk, argument: str) -> None:
    key, _, text = argument.partition(" ")
    if not key:
        for name in SETTINGS:
            _say(_setting(talk, name))
    elif not text.strip() and key in SETTINGS:
        _say(_setting(talk, key))
    else:
        _change(talk, key, chat_settings.parsed(key, text.strip()))
        _say(_setting(talk, key))


def _change(talk: Talk, key: str, value: object) -> None:
    if key in DISPLAY:
        setattr(talk.printer.display, key, value)
    else:
        talk.conversation.change({"do": "set", "key": key, "value": value})


def _setting(talk: Talk, key: str) -> str:
    shown = getattr(talk.printer.display, key) if key in DISPLAY else _parameter(talk, key)
    return f"  {key:<18}  {one_line(str(shown)):<12}  {SETTINGS[key].takes}"


def _parameter(talk: Talk, key: str) -> str:
    """The value that is set, else the default with the value that holds, where that is known."""
    if (value := talk.conversation.sampling.get(key)) is not None:
        return str(value)
    held = {**talk.recommended, **talk.conversation.defaults}.get(key)
    return DEFAULT if held is None else f"{held} {DEFAULT}"


def _tokens(talk: Talk, argument: str) -> None:
    if argument:
        _say(f"{talk.count(argument)} tokens")
        return
    count = talk.count()
    if talk.context is None:
        _say(f"{count} tokens")
    else:
        _say(f"{count} of {talk.context} tokens, {max(talk.context - count, 0)} left")


def _short(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= 60 else line[:59] + "…"


def _say(text: str) -> None:
    import sys

    print(text, file=sys.stderr, flush=True)


COMMANDS: dict[str, Command] = {
    "help": Command(_help, "this list"),
    "undo": Command(_undo, "take back the last question and its answer"),
    "regen": Command(_regen, "ask the last question again"),
    "edit": Command(_edit, "change the last question in an editor, ask that instead"),
    "reasoning": Command(_reasoning, "what the model thought before its last answer"),
    "save": Command(_save, "go on in a session of that name, or write a file", "[NAME|FILE]", "paths"),
    "load": Command(_load, "go on with another session", "NAME", "sessions"),
    "sessions": Command(_sessions, "list the sessions"),
    "model": Command(_model, "list the models, or go on with another", "[MODEL]", "models"),
    "system": Command(_system, "show the system message, or set it; - takes it away", "[TEXT|-]"),
    "set": Command(_set, "show the settings, or set one", "[KEY [VALUE]]", "settings"),
    "tokens": Command(_tokens, "count the tokens of the conversation, or of a text", "[TEXT]"),
    "clear": Command(_clear, "forget the conversation, but not the system message"),
    "exit": Command(_exit, "leave"),
}
OTHER_NAMES = {"quit": "exit", "bye": "exit", "?": "help", "h": "help", "q": "exit", "retry": "regen"}
