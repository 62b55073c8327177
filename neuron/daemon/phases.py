"""Where the time of a request goes: marks on the way from its arrival to its end, and the times between them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

PHASES = ("prepare", "queue", "prefill", "decode", "deliver")
"""Reading, rendering, tokenising; waiting for a place; the prompt; tokens after the first; the last bytes."""


@dataclass(slots=True)
class Marks:
    """Moments on the monotonic clock, 0 for what was not reached."""

    arrived_s: float = field(default_factory=time.monotonic)
    admitted_s: float = 0.0
    """It has a place or waits for one."""
    started_s: float = 0.0
    """The device begins with the prompt."""
    first_token_s: float = 0.0
    done_s: float = 0.0
    """The last answer is whole."""
    closed_s: float = 0.0
    """Nothing follows; where the others end, too, if it ended early."""

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
        for mark in (self.done_s, self.first_token_s, self.started_s, self.admitted_s):
            edges.insert(0, min(mark or edges[0], edges[0]))
        edges = [self.arrived_s, *(max(edge, self.arrived_s) for edge in edges)]
        return {name: (b - a) * 1e3 for name, (a, b) in zip(PHASES, pairwise(edges), strict=True)}
