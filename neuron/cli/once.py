"""One question and its answer, for scripts: as text, as JSON, held to a schema, or only its first block of code."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from neuron.cli.render import show_json
from neuron.cli.talk import Talk
from neuron.cli.terminal_text import clean
from neuron.client import ChatDelta, ChatEnd
from neuron.errors import AnswerUnusable, InvalidModelFile, NeuronError, UsageError
from neuron.files import read_json_object

FENCE = re.compile(
    r"^ {0,3}(?P<marks>`{3,}|~{3,})[^`\n]*\n(?P<code>.*?)^ {0,3}(?P=marks)[`~]*[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
BEGUN = re.compile(r"^ {0,3}(?:`{3,}|~{3,})", re.MULTILINE)
MAX_TOKENS_HINT = "allow more: --max-tokens"


def schema_from(path: Path) -> dict[str, Any]:
    """The JSON schema in a file. Raises `UsageError`."""
    try:
        return read_json_object(path)
    except InvalidModelFile as e:
        raise UsageError(f"--schema: {e.message}") from e


def as_text(talk: Talk, question: str) -> None:
    """The answer as it comes; Ctrl-C ends the program."""
    talk.printer.answer(lambda show: talk.conversation.ask(question, show))


def as_json(talk: Talk, question: str) -> None:
    """The whole answer as one JSON object."""
    text, reasoning, end = _whole(talk, question)
    if talk.conversation.has_schema:
        _demand_json(text, end)
    show_json(
        {
            "model": talk.conversation.model_id,
            "content": text,
            "reasoning": reasoning or None,
            "finish_reason": end.finish_reason,
            "usage": end.usage,
        }
    )
    talk.printer.remark(end)


def as_schema(talk: Talk, question: str) -> None:
    """The answer, if it is a whole JSON text; nothing otherwise."""
    text, _, end = _whole(talk, question)
    _demand_json(text, end)
    _print(talk, text)
    talk.printer.remark(end)


def as_block(talk: Talk, question: str) -> None:
    """What is in the first fenced block of code; nothing if there is no whole one."""
    text, _, end = _whole(talk, question)
    block = FENCE.search(text)
    if block is None:
        raise AnswerUnusable(
            "the answer's code block was cut off" if BEGUN.search(text) else "the answer has no code block",
            hint=MAX_TOKENS_HINT if end.finish_reason == "length" else None,
        )
    _print(talk, block["code"])
    talk.printer.remark(end)


FORMS: dict[str, Callable[[Talk, str], None]] = {
    "text": as_text,
    "json": as_json,
    "schema": as_schema,
    "block": as_block,
}


def _whole(talk: Talk, question: str) -> tuple[str, str, ChatEnd]:
    """Text, thoughts and end of an answer."""
    parts: list[ChatDelta] = []
    talk.printer.begin()

    def take(part: ChatDelta) -> None:
        talk.printer.note(part)
        parts.append(part)

    try:
        end = talk.conversation.ask(question, take)
    except NeuronError as e:
        raise _of_the_schema(e) if talk.conversation.has_schema else e from e
    return "".join(p.text for p in parts), "".join(p.reasoning for p in parts), end


def _of_the_schema(error: NeuronError) -> NeuronError:
    """The error, in words of its own where it is about the schema."""
    if not str(error.param or "").startswith("response_format"):
        return error
    return AnswerUnusable(f"the answer can't be held to this schema: {error.message}", hint=error.hint)


def _demand_json(text: str, end: ChatEnd) -> None:
    if end.finish_reason != "stop":
        raise AnswerUnusable(
            "the answer was cut off before it was whole, so it does not fit the schema", hint=MAX_TOKENS_HINT
        )
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError as e:
        raise AnswerUnusable(f"the answer is not JSON, so it does not fit the schema: {e}") from e


def _print(talk: Talk, text: str) -> None:
    shown = text if talk.printer.raw else clean(text)
    print(shown, end="" if shown.endswith("\n") or not shown else "\n", flush=True)
