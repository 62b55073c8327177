"""Which sequences take part in the next step: every decoding one, and a bounded chunk of prefill."""

from __future__ import annotations

from typing import NamedTuple

from neuron.engine.drafts import lengths
from neuron.engine.sequence import Sequence
from neuron.model.native_step import MOST_ROWS


class Part(NamedTuple):
    """What a step computes of one sequence."""

    sequence: Sequence
    ids: list[int]
    draft: list[int]
    """Ids that are guessed to come next."""


class Scheduler:
    """The running sequences of one model, in the order they came.

    ``few_rows``: new tokens that the device computes as fast each as a long prompt's; None: no such number.
    """

    def __init__(self, chunk_tokens: int, few_rows: int | None = None) -> None:
        self.chunk_tokens = chunk_tokens
        self.few_rows = few_rows
        self.running: list[Sequence] = []
        self._shortest_first = False

    def plan(self) -> list[Part]:
        """The next step.

        Prompts are computed ``chunk_tokens`` at a time, and less while others decode, so that a long prompt does
        not hold up running streams.
        """
        decoding = [s for s in self.running if s.is_decoding]
        if len(decoding) == len(self.running):
            return self._drafted(decoding, 0)
        budget = self._beside(len(decoding)) if decoding else self.chunk_tokens
        parts: list[Part] = []
        for sequence in self._prompts():
            if budget:
                ids = sequence.next_ids(budget)
                budget -= len(ids)
                parts.append(Part(sequence, ids, []))
        return self._drafted(decoding, sum(len(part.ids) for part in parts)) + parts

    def _prompts(self) -> list[Sequence]:
        """Those to compute: in one step first come first served, in the next the one with the least left first.
        So a short prompt waits for a chunk of a long one, and a long one gets half of the steps at least.
        """
        prompts = [s for s in self.running if not s.is_decoding and not s.filling]
        self._shortest_first = not self._shortest_first
        return sorted(prompts, key=lambda s: s.n_prompt_left) if self._shortest_first else prompts

    def _beside(self, n_decoding: int) -> int:
        """Prompt tokens beside so many that decode: a quarter of a chunk, or what is left of few rows."""
        quarter = max(1, self.chunk_tokens // 4)
        if self.few_rows is None:
            return quarter
        return min(quarter, max(self.few_rows - n_decoding, self.few_rows // 4))

    @staticmethod
    def _drafted(decoding: list[Sequence], n_prompt: int) -> list[Part]:
        """The decoding sequences, with guesses where they pay, within the rows that one call computes."""
        if not any(s.drafts for s in decoding):
            return [Part(s, s.ids[-1:], []) for s in decoding]
        n_rows = len(decoding) + n_prompt
        room = MOST_ROWS - (n_rows if n_rows <= MOST_ROWS else len(decoding))
        n_drafted = lengths(decoding, n_rows, room)
        return [Part(s, s.ids[-1:], s.drafts.guess(n_drafted[s]) if s.drafts else []) for s in decoding]
