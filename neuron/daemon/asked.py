"""What a request asked for: its parameters, and, where the operator wants it kept, its text and the answer's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from neuron.engine.events import ReasoningDelta, TextDelta, ToolCallDelta
from neuron.engine.request import ChatPrompt, Generation, Prompt, TextPrompt

MAX_CHARS = 1 << 16
"""Most that is kept of one prompt or answer."""


def parameters(wanted: Generation) -> dict[str, Any]:
    """What was said of sampling and limits, without any text of the client's. What was not said is left out."""
    limits = {
        "max_tokens": wanted.max_tokens,
        "min_tokens": wanted.min_tokens,
        "n": wanted.n,
        "stop_strings": len(wanted.stop),
        "stop_token_ids": len(wanted.stop_token_ids),
        "ignore_eos": wanted.ignore_eos,
        "logprobs": wanted.logprobs,
        "constraint": type(wanted.constraint).__name__ if wanted.constraint else None,
        "reasoning_budget": wanted.reasoning_budget,
    }
    sampling = {**asdict(wanted.sampling), "logit_bias": len(wanted.sampling.logit_bias)}
    unsaid = {
        "min_tokens": 0,
        "n": 1,
        "stop_strings": 0,
        "stop_token_ids": 0,
        "ignore_eos": False,
        "logit_bias": 0,
    }
    return {
        key: value
        for key, value in (sampling | limits).items()
        if value is not None and not (key in unsaid and value == unsaid[key])
    }


class Transcript:
    """The texts of a request, bounded."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.answers: dict[int, str] = {}
        self.reasoning: dict[int, str] = {}

    def ask(self, prompts: Sequence[Prompt]) -> None:
        """Keep the prompts."""
        self.prompts = [_text(prompt)[:MAX_CHARS] for prompt in prompts]

    def note(self, event: TextDelta | ReasoningDelta | ToolCallDelta) -> None:
        """Keep a piece of an answer; calls as their names and arguments."""
        texts = self.reasoning if isinstance(event, ReasoningDelta) else self.answers
        piece = f"{event.name or ''}{event.arguments}" if isinstance(event, ToolCallDelta) else event.text
        texts[event.index] = (texts.get(event.index, "") + piece)[:MAX_CHARS]


def _text(prompt: Prompt) -> str:
    match prompt:
        case ChatPrompt():
            return msgspec.json.encode(prompt.messages, enc_hook=str).decode()
        case TextPrompt():
            return prompt.text
        case _:
            return f"{len(prompt.ids)} token ids"
