"""How fast a model has been, from the steps that it ran."""

from __future__ import annotations

SMOOTHING = 0.1
"""Weight of the newest step in the running mean."""


class Meter:
    """Tokens per second of steps that only decode and of steps that prefill, as running means."""

    def __init__(self) -> None:
        self.prefill_tok_s = 0.0
        self.decode_tok_s = 0.0

    def record(self, n_tokens: int, n_sequences: int, n_generated: int, elapsed_s: float) -> None:
        """Count one step of so many new tokens in the sequences that took part, which brought so many ids."""
        elapsed_s = max(elapsed_s, 1e-6)
        if n_tokens == n_sequences:
            self.decode_tok_s = _mean(self.decode_tok_s, n_generated / elapsed_s)
        else:
            self.prefill_tok_s = _mean(self.prefill_tok_s, n_tokens / elapsed_s)


def _mean(old: float, new: float) -> float:
    return new if old == 0 else old + SMOOTHING * (new - old)
