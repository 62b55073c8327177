"""How fast a model has been, from the steps that it ran."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuron.engine.scheduler import Part

SMOOTHING = 0.1
"""Weight of the newest step in the running mean."""


class Meter:
    """Tokens per second of steps that only decode and of steps that prefill, as running means."""

    def __init__(self) -> None:
        self.prefill_tok_s = 0.0
        self.decode_tok_s = 0.0

    def record(self, plan: Sequence[Part], n_generated: int, elapsed_s: float) -> None:
        """Count one step of the plan, which brought so many tokens."""
        n_tokens, elapsed_s = sum(len(part.ids) for part in plan), max(elapsed_s, 1e-6)
        if n_tokens == len(plan):
            self.decode_tok_s = _mean(self.decode_tok_s, n_generated / elapsed_s)
        else:
            self.prefill_tok_s = _mean(self.prefill_tok_s, n_tokens / elapsed_s)


def _mean(old: float, new: float) -> float:
    return new if old == 0 else old + SMOOTHING * (new - old)
