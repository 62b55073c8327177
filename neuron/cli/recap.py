"""What a conversation that goes on had last: enough of it to know where one was."""

from __future__ import annotations

import sys

from neuron.cli.talk import Talk
from neuron.cli.terminal import dim
from neuron.cli.terminal_text import clean

QUESTION_LINES = 3
ANSWER_LINES = 8
LINE_CHARS = 240


def show_recap(talk: Talk) -> None:
    """Session, counts and the last exchange on stderr, dim; nothing of a conversation that is new."""
    turns = talk.conversation.turns
    if talk.session is None or not turns:
        return
    count = f"{len(turns)} message{'s' if len(turns) > 1 else ''}"
    lines = [f"session {talk.session.name}: {count}, at the end:"]
    for turn in turns[(len(turns) - 1) // 2 * 2 :]:
        lines += _question(turn["content"]) if turn["role"] == "user" else _answer(turn)
    print("\n".join(dim(line, sys.stderr) for line in lines), file=sys.stderr, flush=True)


def _question(text: str) -> list[str]:
    return [f"> {line}".rstrip() for line in _beginning(text, QUESTION_LINES)]


def _answer(turn: dict[str, object]) -> list[str]:
    lines = [f"  {line}".rstrip() for line in _beginning(str(turn["content"]), ANSWER_LINES)]
    return [*lines, "  [stopped]"] if turn.get("stopped") else lines


def _beginning(text: str, most: int) -> list[str]:
    """The first lines of a text, cut where they are long, and how many more there are."""
    lines = clean(text).strip().split("\n")
    shown = [line if len(line) <= LINE_CHARS else line[:LINE_CHARS] + "…" for line in lines]
    return shown if len(lines) <= most + 1 else [*shown[:most], f"… {len(lines) - most} more lines"]
