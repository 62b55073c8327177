"""What ``/set`` and the flags of a chat can set: parameters of an answer, and how it is shown."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, get_args

import msgspec
from msgspec import Meta

from neuron.errors import UsageError


class Setting(NamedTuple):
    """A key: the type of its value, that type in words, and what it is for."""

    kind: Any
    takes: str
    help: str


EFFORTS = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
OnOff = Literal["on", "off"]

SAMPLING: dict[str, Setting] = {
    "temperature": Setting(
        Annotated[float, Meta(ge=0, le=2)], "a number, 0 to 2", "0 takes the likeliest token"
    ),
    "top_p": Setting(
        Annotated[float, Meta(gt=0, le=1)], "a number above 0, up to 1", "likeliest tokens that sum up to it"
    ),
    "top_k": Setting(Annotated[int, Meta(ge=0)], "a whole number", "so many of the likeliest tokens; 0: all"),
    "min_p": Setting(
        Annotated[float, Meta(ge=0, le=1)], "a number, 0 to 1", "no token below it times the likeliest"
    ),
    "repetition_penalty": Setting(
        Annotated[float, Meta(gt=0, le=2)], "a number above 0, up to 2", "above 1: repeat less"
    ),
    "presence_penalty": Setting(
        Annotated[float, Meta(ge=-2, le=2)], "a number, -2 to 2", "against tokens that were there"
    ),
    "frequency_penalty": Setting(
        Annotated[float, Meta(ge=-2, le=2)], "a number, -2 to 2", "the same, each time they were there"
    ),
    "max_tokens": Setting(Annotated[int, Meta(ge=1)], "a whole number, 1 or more", "at most so many tokens"),
    "seed": Setting(int, "a whole number", "the same seed gives the same answer"),
    "stop": Setting(str, "a text", "end the answer before this text"),
    "reasoning_effort": Setting(
        EFFORTS, "/".join(get_args(EFFORTS)), "none: no thinking, where it can be off"
    ),
}
"""Fields of a request."""


@dataclass
class Display:
    """How answers are shown."""

    markdown: str = "on"
    reasoning: str = "show"
    usage: str = "off"


DISPLAY: dict[str, Setting] = {
    "markdown": Setting(OnOff, "on/off", "render Markdown, on a terminal"),
    "reasoning": Setting(
        Literal["show", "fold", "hide"], "show/fold/hide", "what to show of a model's thinking"
    ),
    "usage": Setting(OnOff, "on/off", "counts and speed after each answer"),
}
SETTINGS = {**SAMPLING, **DISPLAY}
DEFAULT = "default"
"""The word that takes a parameter of an answer back to what holds unsaid."""
MODERATE: dict[str, int | float] = {"temperature": 0.7, "top_p": 0.95}
"""What a chat asks for where the model recommends no temperature: at 1, which is the API's, small models ramble."""


def defaults(recommended: Mapping[str, int | float] | None) -> dict[str, int | float]:
    """What a chat adds to what a model's files recommend; nothing where that is not known."""
    if recommended is None or "temperature" in recommended:
        return {}
    return {key: value for key, value in MODERATE.items() if key not in recommended}


def parsed(key: str, text: str) -> Any:
    """The value that ``text`` gives a key; None for the default.

    Raises:
        UsageError: a key that is not there, with the nearest; a value that it does not take.
    """
    setting = SETTINGS.get(key)
    if setting is None:
        near = difflib.get_close_matches(key, SETTINGS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "the keys are " + ", ".join(SETTINGS)
        raise UsageError(f"there is nothing to set called {key}", hint=hint)
    if text == DEFAULT and key in SAMPLING:
        return None
    try:
        return msgspec.convert(text, setting.kind, strict=False)
    except msgspec.ValidationError as e:
        raise UsageError(f"{key}: {text!r} is not {_article(setting)}") from e


def _article(setting: Setting) -> str:
    return f"one of {setting.takes.replace('/', ', ')}" if "/" in setting.takes else setting.takes
