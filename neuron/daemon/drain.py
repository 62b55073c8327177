"""A drain that was asked for over HTTP: the process that serves waits for it beside its signals."""

from __future__ import annotations

import asyncio


class Drain:
    """Asked for once; the first word counts."""

    def __init__(self, timeout_s: float) -> None:
        self.asked = asyncio.Event()
        self.default_s = timeout_s
        self.timeout_s = timeout_s
        """How long work that was admitted may go on."""

    def ask(self, timeout_s: float | None) -> None:
        """Begin, with another time than the settings' if one is said."""
        if not self.asked.is_set():
            self.timeout_s = self.default_s if timeout_s is None else timeout_s
            self.asked.set()
