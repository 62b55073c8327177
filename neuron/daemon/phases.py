"""Where the time of a request goes: marks on the way from its arrival to its end, and the times between them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

PHASES = ("read", "load", "prepare", "queue", "prefill", "decode", "deliver")
"""The body; waiting for the model; rendering, tokenising, grammars; waiting for a place and the device; the prompt,
up to the first token; the tokens after it; what was left to write then.
"""


@dataclass(slots=True)
class Marks:
    """Moments on the monotonic clock, 0 for what was not reached."""

    arrived_s: float = field(default_factory=time.monotonic)
    read_s: float = 0.0
    """The body is there and has its type."""
    held_s: float = 0.0
    """The model is in memory."""
    admitted_s: float = 0.0
    """It has a place or waits for one."""
    started_s: float = 0.0
    """The device begins with the prompt."""
    computed_s: float = 0.0
    """The device has the first token, where that is known: its text may come later, or never."""
    first_token_s: float = 0.0
    """Its text, or that of a later one, is there."""
    done_s: float = 0.0
    """The last answer is whole, or every vector is there."""
    closed_s: float = 0.0
    """Nothing follows: the last byte was written. Where the others end, too, if it ended early."""

    def end_s(self) -> float:
        """The end, or now."""
        return self.closed_s or time.monotonic()

    def total_ms(self) -> float:
        """From the arrival to the end, or to now."""
        return (self.end_s() - self.arrived_s) * 1e3

    def first_token_ms(self) -> float | None:
        """From the arrival to the first token, where there was one."""
        return (self.first_token_s - self.arrived_s) * 1e3 if self.first_token_s else None

    def phases_ms(self) -> Mapping[str, float]:
        """The time in each of `PHASES`; they add up to `total_ms`. What was not reached took none."""
        end = self.end_s()
        edges = [end]
        decodes_s = self.computed_s or self.first_token_s
        for mark in (self.done_s, decodes_s, self.started_s, self.admitted_s, self.held_s, self.read_s):
            edges.insert(0, min(mark or edges[0], edges[0]))
        edges = [self.arrived_s, *(max(edge, self.arrived_s) for edge in edges)]
        return {name: (b - a) * 1e3 for name, (a, b) in zip(PHASES, pairwise(edges), strict=True)}
