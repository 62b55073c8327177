"""What the engine says about a generation: one `Started`, text, then exactly one `Finished` or `Failed`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from neuron.errors import NeuronError

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Counts of tokens."""

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens whose cache was reused."""
    reasoning_tokens: int = 0
    drafted_tokens: int = 0
    """Tokens that were guessed and checked beside others in a step."""
    drafted_right_tokens: int = 0
    """Those of them that became part of the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Where the time of a generation went, in milliseconds."""

    queue_ms: float
    prefill_ms: float
    decode_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihood:
    """A token and the natural logarithm of its probability, from the raw logits."""

    token_id: int
    token: str
    """Its text; bytes that are no whole character show as U+FFFD."""
    data: bytes
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprobs:
    """The chosen token and the likeliest ones in its place, best first."""

    chosen: Likelihood
    top: tuple[Likelihood, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The prompt has begun to be computed."""

    prompt_tokens: int
    at_s: float = field(default_factory=time.monotonic, compare=False)
    """When it happened, on the monotonic clock: a reader that is slow learns of it later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """Whole characters of the answer, never a part of a stop string."""

    text: str
    n_tokens: int
    """Completion tokens so far."""
    index: int = 0
    """Which of the ``n`` answers."""
    logprobs: tuple[TokenLogprobs, ...] = ()
    """Of the tokens since the last delta, where they were asked for."""
    at_s: float = field(default_factory=time.monotonic, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningDelta:
    """Whole characters of the model's thinking, its markers left out."""

    text: str
    n_tokens: int
    index: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()
    at_s: float = field(default_factory=time.monotonic, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallDelta:
    """A piece of a tool call. The first of a call has its id and name, the others its arguments alone."""

    call: int
    """Which call of the answer, from 0."""
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    """A fragment of the string that the model wrote."""
    n_tokens: int = 0
    index: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()
    at_s: float = field(default_factory=time.monotonic, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The only clean end of an answer; a stream ends after the last answer's."""

    reason: FinishReason
    usage: Usage
    """``prompt_tokens`` are the same in each answer of a stream and count once."""
    timings: Timings
    index: int = 0
    stop: str | None = None
    """The stop string that ended it."""
    logprobs: tuple[TokenLogprobs, ...] = ()
    """Of tokens that no delta carried, an end-of-sequence one left out."""
    first_token_s: float = field(default=0.0, compare=False)
    """When the device had the first token, on the monotonic clock; 0: not known."""
    at_s: float = field(default_factory=time.monotonic, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The end of a stream that could not go on, all its answers included."""

    error: NeuronError


Event = Started | TextDelta | ReasoningDelta | ToolCallDelta | Finished | Failed
