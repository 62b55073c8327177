"""What may come next, guessed from what came before: ids that followed an earlier occurrence of the newest ones.

Guesses are checked in one step, which costs less than a step for each, and change nothing but the time (ADR 0017).
Plain values, no torch: the event loop's threads index the prompt, the device thread does the rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from neuron.engine.sequence import Sequence

MOST_DRAFTED = 12
"""Ids that are guessed for one step of one sequence."""
CANDIDATES = 8
"""Earlier occurrences of the newest two ids that are compared, the latest first."""
CHANCES = (0.0, 0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9)
"""How often the guess was right after so many ids that agreed (the last: or more), before a sequence has shown its
own. Measured."""
LEARNING_RATE = 0.1
ROW_COST = 0.3
"""What a row adds to a step's time, in parts of what a step without rows would take: on a processor the weights are
read once for all rows. Measured, see docs/benchmarks/speculation.md."""


class Drafts:
    """The ids of one sequence, indexed by pairs, and the place of the earlier ones that the newest follow now."""

    def __init__(self, prompt_ids: Iterable[int]) -> None:
        self._ids: list[int] = []
        self._latest: dict[tuple[int, int], int] = {}
        """Pair -> the place behind its latest occurrence."""
        self._previous: list[int] = []
        """For each place, the one behind the occurrence before of the pair that ends there; 0: none."""
        self._chances = list(CHANCES)
        self._place = self._n_agreed = 0
        for token in prompt_ids:
            self._append(token)

    def add(self, token: int) -> None:
        """Take the id that came, and learn from it whether the guess was right, drafted or not."""
        is_right = bool(self._place) and self._ids[self._place] == token
        if self._place:
            self._learn(is_right)
        self._append(token)
        if is_right:
            self._place, self._n_agreed = self._place + 1, self._n_agreed + 1
        else:
            self._search()

    def guess(self, n: int) -> list[int]:
        """The next ``n`` ids, none if nothing is guessed; what ends at the newest id goes on in circles."""
        if not self._place:
            return []
        period = len(self._ids) - self._place
        ids = self._ids[self._place : self._place + n]
        while len(ids) < n:
            ids.append(ids[-period])
        return ids

    def chances(self, n: int) -> Iterator[float]:
        """How likely the first, the first two, … of up to ``n`` guessed ids are right; never rising."""
        all_right = 1.0
        for i in range(n if self._place else 0):
            all_right *= self._chances[min(self._n_agreed + i, len(self._chances) - 1)]
            yield all_right

    def _learn(self, is_right: bool) -> None:
        at = min(self._n_agreed, len(self._chances) - 1)
        self._chances[at] += LEARNING_RATE * (is_right - self._chances[at])

    def _append(self, token: int) -> None:
        self._ids.append(token)
        pair = (self._ids[-2] if len(self._ids) > 1 else -1, token)
        self._previous.append(self._latest.get(pair, 0))
        self._latest[pair] = len(self._ids)

    def _search(self) -> None:
        """Go to the earlier place that agrees with the longest end, the latest of several."""
        self._place = self._n_agreed = 0
        place = self._previous[-1]
        for _ in range(CANDIDATES):
            if not place:
                return
            n = self._n_agreeing(place)
            if n > self._n_agreed:
                self._place, self._n_agreed = place, n
            place = self._previous[place - 1]

    def _n_agreeing(self, place: int) -> int:
        """How many ids before a place, of which two do, are the newest ones."""
        ids, n, most = self._ids, 2, min(place, len(CHANCES) - 1)
        while n < most and ids[place - 1 - n] == ids[-1 - n]:
            n += 1
        return n


def lengths(decoding: list[Sequence], n_rows: int, room: int) -> dict[Sequence, int]:
    """How many ids to draft for each sequence in a step of ``n_rows`` without any; at most ``room`` together.

    Rows are added, the likeliest first, while one brings more tokens for its time than the step has without it.
    """
    offers = [(chance, s) for s in decoding if s.drafts for chance in s.drafts.chances(s.most_drafted)]
    offers.sort(key=lambda offer: -offer[0])
    tokens, time = float(len(decoding)), 1 + ROW_COST * n_rows
    drafted: Counter[Sequence] = Counter()
    for chance, sequence in offers[: max(0, room)]:
        if chance * time <= tokens * ROW_COST:
            break
        tokens, time = tokens + chance, time + ROW_COST
        drafted[sequence] += 1
    return drafted
