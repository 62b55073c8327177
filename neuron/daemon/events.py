"""What a node does, as it happens: the events of its log, in a ring that any number of readers follow.

Nobody waits for a reader. One that is slower than the ring turns loses the oldest events and is told how many.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

from neuron.errors import InvalidValue
from neuron.log import as_line

KEPT = 1000
LOST = "events lost"
"""The event in place of those that a reader was too slow for."""
SOURCE = "neuron"
"""The logger above all of this program's own."""

Line = dict[str, Any]


class Events(logging.Handler):
    """The newest events from ``info`` up, numbered from 1. Written to from any thread, read on the event loop."""

    def __init__(self, kept: int = KEPT) -> None:
        super().__init__(logging.INFO)
        self.lost = 0
        """Events that readers were too slow for."""
        self._ring: deque[Line] = deque(maxlen=kept)
        self._guard = threading.Lock()
        self._last = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._arrived = asyncio.Event()
        self._ended = False

    def start(self) -> None:
        """Take what is logged from now on. A log that is quieter than ``info`` does not make the events fewer."""
        self._loop = asyncio.get_running_loop()
        logger = logging.getLogger(SOURCE)
        if logger.getEffectiveLevel() > logging.INFO:
            logger.setLevel(logging.INFO)
        logger.addHandler(self)

    def stop(self) -> None:
        """Take no more."""
        logging.getLogger(SOURCE).removeHandler(self)
        self.end()

    def end(self) -> None:
        """Let every reader end once it has read what there is."""
        self._ended = True
        self._wake()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        line = as_line(record)
        with self._guard:
            self._last += 1
            self._ring.append({"seq": self._last, **line})
        try:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            pass  # the loop is closed: nobody reads any more

    def check(self, since: int) -> None:
        """Raise `InvalidValue` for a number that was not reached yet: it is one of an earlier run of the node."""
        if since > self._last:
            raise InvalidValue(
                f"since={since} is beyond the newest event, which is number {self._last}",
                hint="numbers begin again with the node: 0 shows all that are kept",
                param="since",
            )

    async def read(self, since: int, follow: bool) -> AsyncGenerator[Line, None]:
        """Events after number ``since``; with ``follow`` those to come as well, until `end`."""
        seen = since
        while True:
            arrived, ended = self._arrived, self._ended
            for line in self._after(seen):
                seen = line["seq"]
                yield line
            if not follow or ended:
                return
            await arrived.wait()

    def _after(self, seen: int) -> list[Line]:
        """What came after ``seen``, before it a line for what has been forgotten of that."""
        with self._guard:
            lines = list(itertools.dropwhile(lambda line: line["seq"] <= seen, self._ring))
        if not lines or lines[0]["seq"] == seen + 1:
            return lines
        first = lines[0]
        n_lost = first["seq"] - seen - 1
        self.lost += n_lost
        mark = {
            "seq": first["seq"] - 1,
            "time": first["time"],
            "level": "warning",
            "event": LOST,
            "n": n_lost,
        }
        return [mark, *lines]

    def _wake(self) -> None:
        arrived, self._arrived = self._arrived, asyncio.Event()
        arrived.set()
