"""Those who were refused for want of room and told when to come again, for whom room is kept then."""

from __future__ import annotations

import time

GRACE_S = 2.0
"""How much later than told somebody may come: the way to the node, a client that adds a little at random."""


class Promises:
    """When each of them ends."""

    def __init__(self) -> None:
        self._ends_s: list[float] = []

    def make(self, wait_s: float) -> None:
        """Somebody was told to come in ``wait_s``."""
        self._ends_s.append(time.monotonic() + wait_s + GRACE_S)

    def keep(self) -> None:
        """Somebody came: the oldest one is kept."""
        if self._ends_s:
            self._ends_s.remove(min(self._ends_s))

    def outstanding(self) -> int:
        """How many may still come."""
        now_s = time.monotonic()
        self._ends_s = [end_s for end_s in self._ends_s if end_s > now_s]
        return len(self._ends_s)
