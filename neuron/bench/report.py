"""What a measurement amounts to. These structs are the output of ``neuron bench --json``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

import msgspec

from neuron.bench.answer import Answer, name_of
from neuron.errors import NeuronError

MIN_VALUES = {50: 1, 90: 10, 99: 100}
"""Fewer values than this have no such percentile worth the name."""


class Spread(msgspec.Struct, kw_only=True):
    """Percentiles; null where there are too few values (10 for p90, 100 for p99)."""

    mean: float | None
    p50: float | None
    p90: float | None
    p99: float | None


class Failure(msgspec.Struct, kw_only=True):
    """Failures of one kind."""

    error: str
    """HTTP status and the server's code, or what became of the connection."""
    count: int
    message: str
    """Of the first one."""


class Level(msgspec.Struct, kw_only=True):
    """One concurrency."""

    concurrency: int
    completed: int
    failed: int
    interrupted: bool
    """Ctrl-C came; what was running then is not counted."""
    seconds: float
    prompt_tokens: int | None
    """In the mean of the answers; null: the server does not count."""
    completion_tokens: int
    """Of all answers."""
    tokens_from: Literal["usage", "pieces"]
    """Whether the server counted tokens, or the pieces of text that came were counted."""
    tokens_per_second: float
    """Of all answers together, over ``seconds``."""
    tokens_per_second_each: Spread
    """Of each answer, from its first token to its last."""
    first_token_ms: Spread
    """From sending a request to the first piece of its text."""
    inter_token_ms: Spread
    """Between two pieces of text of one answer; a piece is mostly a token."""
    total_ms: Spread
    failures: list[Failure]


class Report(msgspec.Struct, kw_only=True):
    """Answer of ``neuron bench --json``."""

    url: str
    model: str
    requests: int
    """For each concurrency."""
    prompt_tokens: int
    """As asked for."""
    max_tokens: int
    ignore_eos: bool
    """False: the server does not know ``ignore_eos``, so answers may be shorter than ``max_tokens``."""
    levels: list[Level]


def level(
    concurrency: int, outcomes: Sequence[Answer | NeuronError], seconds: float, *, interrupted: bool
) -> Level:
    """One concurrency, from what became of each request."""
    answers = [outcome for outcome in outcomes if isinstance(outcome, Answer)]
    errors = [outcome for outcome in outcomes if not isinstance(outcome, Answer)]
    tokens = sum(answer.tokens for answer in answers)
    counted = [answer.prompt_tokens for answer in answers if answer.prompt_tokens is not None]
    return Level(
        concurrency=concurrency,
        completed=len(answers),
        failed=len(errors),
        interrupted=interrupted,
        seconds=round(seconds, 3),
        prompt_tokens=round(sum(counted) / len(counted)) if counted else None,
        completion_tokens=tokens,
        tokens_from="pieces" if any(a.completion_tokens is None for a in answers) else "usage",
        tokens_per_second=round(tokens / seconds, 2) if seconds else 0.0,
        tokens_per_second_each=spread(filter(None, map(_speed, answers))),
        first_token_ms=spread(a.arrived_s[0] * 1000 for a in answers if a.arrived_s),
        inter_token_ms=spread(gap * 1000 for a in answers for gap in _gaps(a.arrived_s)),
        total_ms=spread(answer.total_s * 1000 for answer in answers),
        failures=_failures(errors),
    )


def spread(values: Iterable[float]) -> Spread:
    """Mean and percentiles, between neighbours by their distance."""
    ordered = sorted(values)
    mean = round(sum(ordered) / len(ordered), 2) if ordered else None
    found = {
        f"p{p}": round(_percentile(ordered, p), 2) if len(ordered) >= least else None
        for p, least in MIN_VALUES.items()
    }
    return Spread(mean=mean, **found)


def _percentile(ordered: Sequence[float], percent: int) -> float:
    at = (len(ordered) - 1) * percent / 100
    low, high = ordered[math.floor(at)], ordered[math.ceil(at)]
    return low + (high - low) * (at - math.floor(at))


def _gaps(times_s: Sequence[float]) -> list[float]:
    return [after - before for before, after in pairwise(times_s)]


def _speed(answer: Answer) -> float | None:
    """Tokens a second behind the first; None where there is no time between two."""
    took_s = answer.arrived_s[-1] - answer.arrived_s[0] if answer.arrived_s else 0.0
    return (answer.tokens - 1) / took_s if took_s > 0 else None


def _failures(errors: Iterable[NeuronError]) -> list[Failure]:
    found: dict[str, Failure] = {}
    for error in errors:
        name = name_of(error)
        found.setdefault(name, Failure(error=name, count=0, message=error.message)).count += 1
    return sorted(found.values(), key=lambda failure: -failure.count)
