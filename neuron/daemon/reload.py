"""The settings read again while the node runs: keys that can change do, the others are named in the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from neuron.errors import Mistakes, NeuronError
from neuron.log import event
from neuron.settings import ABOUT, KEYS, Settings

log = logging.getLogger(__name__)

RELOADED = frozenset(key for key in KEYS if ABOUT[key].reloads)
"""Keys that SIGHUP puts into force. `neuron.settings` says which, beside their help."""

Take = Callable[[], None]
Listener = Callable[[Settings], Take]
"""Reads what new settings name, or raises `NeuronError`; what comes back puts it into force."""


class Reload:
    """Puts new settings into force everywhere or, if anybody can't take them, nowhere."""

    def __init__(self, settings: Settings, read: Callable[[], Settings]) -> None:
        """``read`` says what holds now, or raises `Mistakes`."""
        self.settings = settings
        """What is in force."""
        self.listeners: list[Listener] = []
        self._read = read
        self._running = asyncio.Lock()

    async def __call__(self) -> bool:
        """Whether the settings were taken; the log says what changed, or why nothing did."""
        async with self._running:
            try:
                said = await asyncio.to_thread(self._read)
                new = replace(self.settings, **{key: getattr(said, key) for key in RELOADED})
                takes = await self._asked(new)
            except Mistakes as e:
                for error in e.found:
                    event(
                        log,
                        "settings not reloaded",
                        level=logging.ERROR,
                        cause=error.message,
                        hint=error.hint,
                    )
                return False
            for take in takes:
                take()
            _log_changes(self.settings, new, said)
            self.settings = new
            return True

    async def _asked(self, new: Settings) -> list[Take]:
        """What puts the settings into force. Raises `Mistakes`: all that speaks against them."""
        takes: list[Take] = []
        wrong: list[NeuronError] = []
        for listener in self.listeners:
            try:
                takes.append(await asyncio.to_thread(listener, new))
            except NeuronError as e:
                wrong.append(e)
        if wrong:
            raise Mistakes(wrong)
        return takes


def takes(function: Callable[[Settings], None]) -> Listener:
    """A listener that takes any settings."""
    return lambda settings: lambda: function(settings)


def _log_changes(old: Settings, new: Settings, said: Settings) -> None:
    changed = [key for key in KEYS if getattr(new, key) != getattr(old, key)]
    waits = [key for key in KEYS if getattr(said, key) != getattr(new, key)]
    event(
        log,
        "settings reloaded",
        changed=", ".join(changed) or None,
        restart_for=", ".join(waits) or None,
    )
